//! Stopping a step: SIGINT, then SIGTERM, then SIGKILL, each after a grace period. Pure.

use std::time::Duration;

use helios_proto::v1;
use nix::sys::signal::Signal;
use tokio::time::Instant;

/// How long a program may take to end after SIGINT, when the node does not say.
const INTERRUPT_GRACE: Duration = Duration::from_millis(7500);

/// The same after SIGTERM.
const TERMINATE_GRACE: Duration = Duration::from_millis(2500);

/// SIGKILL is repeated: a tree may fork while it is hunted.
const KILL_AGAIN: Duration = Duration::from_millis(200);

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Gently first, with the grace after SIGINT and after SIGTERM.
    Cancel(Duration, Duration),
    /// At once.
    Kill,
}

impl TryFrom<&v1::Signal> for Stop {
    type Error = String;

    fn try_from(signal: &v1::Signal) -> Result<Self, String> {
        let grace = |ms: u32, default| {
            if ms == 0 {
                default
            } else {
                Duration::from_millis(u64::from(ms))
            }
        };
        match signal.kind() {
            v1::signal::Kind::Cancel => Ok(Self::Cancel(
                grace(signal.interrupt_grace_ms, INTERRUPT_GRACE),
                grace(signal.terminate_grace_ms, TERMINATE_GRACE),
            )),
            v1::signal::Kind::Kill => Ok(Self::Kill),
            v1::signal::Kind::Unspecified => Err(format!("there is no signal kind {}", signal.kind)),
        }
    }
}

/// How far stopping has come.
#[derive(Debug, Default)]
pub struct Escalation {
    sent: Option<Signal>,
    graces: (Duration, Duration),
    due: Option<Instant>,
}

impl Escalation {
    /// When [`Escalation::advance`] wants to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The signal to send for a request. A repeated request goes one stage further at once.
    pub fn request(&mut self, stop: Stop, now: Instant) -> Signal {
        match stop {
            Stop::Kill => self.send(Signal::SIGKILL, now),
            Stop::Cancel(interrupt, terminate) => {
                if self.sent.is_none() {
                    self.graces = (interrupt, terminate);
                }
                self.advance(now)
            }
        }
    }

    /// The next signal, because a grace period has passed.
    pub fn advance(&mut self, now: Instant) -> Signal {
        let next = match self.sent {
            None => Signal::SIGINT,
            Some(Signal::SIGINT) => Signal::SIGTERM,
            Some(_) => Signal::SIGKILL,
        };
        self.send(next, now)
    }

    fn send(&mut self, signal: Signal, now: Instant) -> Signal {
        let grace = match signal {
            Signal::SIGINT => self.graces.0,
            Signal::SIGTERM => self.graces.1,
            _ => KILL_AGAIN,
        };
        self.sent = Some(signal);
        self.due = Some(now + grace);
        signal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENTLE: Stop = Stop::Cancel(Duration::from_secs(5), Duration::from_secs(2));

    #[test]
    fn each_stage_has_its_grace() {
        let start = Instant::now();
        let mut escalation = Escalation::default();
        assert_eq!(escalation.due(), None);
        assert_eq!(escalation.request(GENTLE, start), Signal::SIGINT);
        assert_eq!(escalation.due(), Some(start + Duration::from_secs(5)));
        let then = start + Duration::from_secs(5);
        assert_eq!(escalation.advance(then), Signal::SIGTERM);
        assert_eq!(escalation.due(), Some(then + Duration::from_secs(2)));
        assert_eq!(escalation.advance(then), Signal::SIGKILL);
        assert_eq!(escalation.advance(then), Signal::SIGKILL);
    }

    #[test]
    fn a_second_request_goes_further_at_once() {
        let now = Instant::now();
        let mut escalation = Escalation::default();
        let sent = [(); 4].map(|()| escalation.request(GENTLE, now));
        assert_eq!(
            sent,
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL]
        );
        assert_eq!(Escalation::default().request(Stop::Kill, now), Signal::SIGKILL);
    }

    #[test]
    fn requests_have_defaults_and_unknown_kinds_are_refused() {
        let signal = v1::Signal {
            kind: v1::signal::Kind::Cancel.into(),
            ..v1::Signal::default()
        };
        assert_eq!(
            Stop::try_from(&signal),
            Ok(Stop::Cancel(INTERRUPT_GRACE, TERMINATE_GRACE))
        );
        assert!(Stop::try_from(&v1::Signal { kind: 9, ..signal }).is_err());
    }
}
