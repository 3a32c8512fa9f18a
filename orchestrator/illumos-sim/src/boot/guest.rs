//! The seam to the guest: what runs in the zone once it is booted. A state of the model, or a real machine
//! where the host's setting says so.

use super::{Machine, emulated::Emulated};
use crate::host::Host;

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Running,
    /// bhyve ended with this code.
    Exited(i32),
}

/// What runs in a zone.
pub trait Guest {
    /// Starts it; the zone is running already.
    fn start(&self, host: &mut Host, machine: &Machine) -> Start;

    /// Presses the power button; whether the guest went down on it.
    fn power_button(&self, host: &Host, zone: &str) -> bool;

    /// bhyve was started again in place.
    fn reset(&self, host: &Host, zone: &str);

    /// Ends it at once.
    fn kill(&self, host: &mut Host, zone: &str);
}

/// A guest that exists only in the model; its quirks come from the fault plan.
#[derive(Debug, Clone, Copy)]
pub struct Modelled;

impl Guest for Modelled {
    fn start(&self, host: &mut Host, machine: &Machine) -> Start {
        match host.faults.quirks(&machine.name).bhyve_exits {
            // A reboot ends in a running guest again.
            None | Some(0) => Start::Running,
            Some(code) => Start::Exited(code),
        }
    }

    fn power_button(&self, host: &Host, zone: &str) -> bool {
        host.faults.quirks(zone).obeys_power_button
    }

    fn reset(&self, _host: &Host, _zone: &str) {}

    fn kill(&self, host: &mut Host, zone: &str) {
        if let Some(zone) = host.state.zones.get_mut(zone) {
            zone.guest = false;
        }
    }
}

/// The guest of this host.
#[must_use]
pub fn guest(host: &Host) -> &'static dyn Guest {
    if host.state.real.is_some() {
        &Emulated
    } else {
        &Modelled
    }
}
