//! What an attempt's agent says: its output goes to the log, its meaning to the state machine.

use helios_proto::v1;
use tokio::sync::mpsc;

use super::{Task, number};
use crate::{
    agent_api::LinkEvent,
    clock::now_ms,
    driver::{
        progress::{Event, Exit, Phase},
        sections::{CLOCK, LEFT},
        stopped::Stopped,
    },
    failpoint::{self, Point},
    foreign_text::{one_line, printable},
    logs::Channel,
};

/// A flood is made durable sooner, after this many bytes: the agent's memory for what nobody has
/// acknowledged is small, and must not run full while the disk works.
const SYNC_BYTES: usize = 512 << 10;
/// What is kept of the output that comes after the log's cap.
const TAIL_BYTES: u64 = 1 << 20;
/// So many of the processes that end with the job are named.
const NAMED: usize = 20;
/// Ids of quiet commands lie far above those of the state machine.
const QUIET_BASE: u64 = 1 << 40;

impl Task<'_> {
    pub(super) async fn link(&mut self, event: LinkEvent) -> Result<(), Stopped> {
        match event {
            LinkEvent::Connected { hello, to_agent } => self.connected(&hello, to_agent).await,
            LinkEvent::Disconnected => {
                self.to_agent = None;
                Ok(())
            }
            LinkEvent::Event(event) => self.event(event).await,
            // It was refused, and whoever has copied the token can cause it: only when the machine ends is it believed.
            LinkEvent::AgentRestarted => {
                self.anew = true;
                Ok(())
            }
        }
    }

    async fn connected(&mut self, hello: &v1::Hello, to_agent: mpsc::Sender<v1::ToAgent>) -> Result<(), Stopped> {
        if let Some(facts) = &hello.facts {
            self.facts = facts_json(facts);
        }
        self.to_agent = Some(to_agent);
        self.send(v1::to_agent::Message::Welcome(v1::Welcome {
            version: helios_proto::VERSIONS.1.min(hello.version_max),
            last_sequence: self.last_sequence.max(self.log.last_sequence()),
            time_ms: now_ms(),
            known_ended: Vec::new(),
            max_output: helios_proto::MAX_OUTPUT as u32,
        }));
        if self.progress.phase == Phase::Booting {
            failpoint::hit(Point::AgentJoined);
            return self.feed(Event::AgentReady).await;
        }
        self.feed(Event::Connected).await?;
        // The agent ignores what it has seen before.
        if let Some(running) = self.progress.running.clone() {
            self.send_running().await?;
            if running.stop.is_some() {
                self.send_stop();
            }
        }
        self.send_clear();
        Ok(())
    }

    /// One event of the agent: its output goes to the log, its meaning to the state machine, and
    /// only then it counts as handled.
    async fn event(&mut self, event: v1::Event) -> Result<(), Stopped> {
        let v1::Event {
            sequence,
            exec_id: exec,
            time_ms,
            event: Some(event),
        } = event
        else {
            return Ok(());
        };
        if sequence <= self.last_sequence {
            return Ok(());
        }
        let step = self.progress.step_of(exec);
        match event {
            v1::event::Event::Output(output) => {
                let channel = match output.stream() {
                    v1::output::Stream::Stderr => Channel::Stderr,
                    _ => Channel::Stdout,
                };
                if let Some(step) = step {
                    self.output(sequence, step, channel, time_ms, &output.data).await?;
                    self.feed(Event::Output { exec }).await?;
                }
            }
            v1::event::Event::Exited(exited) => {
                let how = match exited.how {
                    Some(v1::exited::How::Code(code)) => Exit::Code(code),
                    Some(v1::exited::How::Signal(signal)) => Exit::Signal(signal),
                    None => Exit::Code(-1),
                };
                if let (Some(step), true) = (step, exited.leftovers > 0) {
                    self.line(
                        step,
                        &format!(
                            "{} process(es) of this step were still running and were ended.",
                            exited.leftovers
                        ),
                    );
                }
                let survivors = exited.survivors > 0;
                if let (Some(step), true) = (step, survivors) {
                    let line = match exited.survivors {
                        1 => "1 process of this step runs on until the job ends.".to_owned(),
                        count => format!("{count} processes of this step run on until the job ends."),
                    };
                    self.line(step, &line);
                }
                failpoint::hit(Point::StepEnded);
                self.feed(Event::Exited { exec, how, survivors }).await?;
            }
            v1::event::Event::ProcessesEnded(ended) => {
                if let Some(line) = ended_words(&ended) {
                    self.line(0, &line);
                }
                self.feed(Event::Cleared { exec }).await?;
            }
            v1::event::Event::Failed(failed) => {
                let message = one_line(&printable(&failed.message), 500);
                self.feed(Event::Refused { exec, message }).await?;
            }
            v1::event::Event::OutputSkipped(skipped) => {
                if let Some(step) = step {
                    self.line(step, &format!("{} bytes of output were left out here.", skipped.bytes));
                }
            }
            v1::event::Event::ClockStepped(stepped) => {
                self.line(0, &format!("{CLOCK} {} ms and was set.", stepped.offset_ms));
            }
            v1::event::Event::Started(_)
            | v1::event::Event::Done(_)
            | v1::event::Event::Files(_)
            | v1::event::Event::Metrics(_) => {}
        }
        self.last_sequence = sequence;
        self.log.consumed(sequence);
        self.dirty();
        Ok(())
    }

    async fn output(
        &mut self,
        sequence: u64,
        step: usize,
        channel: Channel,
        guest_ms: i64,
        data: &[u8],
    ) -> Result<(), Stopped> {
        let caused = match self.log.output(sequence, number(step), channel, guest_ms, data) {
            Ok(caused) => caused,
            Err(error) => return self.log_failed(&error).await,
        };
        failpoint::hit(Point::OutputWritten);
        self.deps
            .metrics
            .log_bytes(u64::try_from(data.len()).unwrap_or(u64::MAX));
        self.dirty();
        self.unsynced += data.len();
        if self.unsynced >= SYNC_BYTES {
            self.sync_at = Some(tokio::time::Instant::now());
        }
        if !caused.new_masks.is_empty() {
            failpoint::hit(Point::MaskFound);
            // Before the frame is acknowledged: a daemon that takes over must know the mask.
            self.checkpoint().await?;
        }
        if caused.cap_reached {
            let target = self.progress.running.as_ref().map_or(0, |r| r.exec);
            self.command(
                QUIET_BASE + target,
                v1::command::Command::QuietOutput(v1::QuietOutput {
                    target: 0,
                    tail_bytes: TAIL_BYTES,
                }),
            );
        }
        Ok(())
    }
}

/// What the log says of processes that ended with the job. Their names are the job's own words.
fn ended_words(ended: &v1::ProcessesEnded) -> Option<String> {
    if ended.count == 0 {
        return None;
    }
    let named = ended.processes.iter().take(NAMED).map(|process| {
        let name = one_line(&printable(&process.name), 40);
        format!("{name} ({})", process.pid)
    });
    let named: Vec<String> = named.collect();
    let more = match usize::try_from(ended.count)
        .unwrap_or(usize::MAX)
        .saturating_sub(named.len())
    {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut line = format!("{LEFT}{}{more}.", named.join(", "));
    if ended.remaining > 0 {
        line.push_str(&format!(
            " {} of them could not be killed and end with the machine.",
            ended.remaining
        ));
    }
    if ended.unread > 0 {
        line.push_str(&format!(
            " {} bytes that they wrote after their steps are not in this log.",
            ended.unread
        ));
    }
    Some(line)
}

fn facts_json(facts: &v1::MachineFacts) -> String {
    let short = |text: &str| text.chars().take(200).collect::<String>();
    serde_json::json!({
        "os": short(&facts.os),
        "architecture": short(&facts.architecture),
        "kernel": short(&facts.kernel),
        "hostname": short(&facts.hostname),
        "cpus": facts.cpus,
        "memory_bytes": facts.memory_bytes,
        "agent_version": short(&facts.agent_version),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, name: &str) -> v1::processes_ended::Process {
        v1::processes_ended::Process { pid, name: name.into() }
    }

    #[test]
    fn the_log_names_what_ended_with_the_job_in_bounds() {
        assert_eq!(ended_words(&v1::ProcessesEnded::default()), None);
        let mut ended = v1::ProcessesEnded {
            processes: vec![process(7, "sleep"), process(9, "a\u{1b}[31m\nb")],
            count: 2,
            ..v1::ProcessesEnded::default()
        };
        assert_eq!(
            ended_words(&ended).unwrap(),
            "Still running, and ended with the job: sleep (7), a[31mb (9)."
        );
        ended.processes = (0..10_000).map(|pid| process(pid, &"x".repeat(5000))).collect();
        (ended.count, ended.remaining, ended.unread) = (10_000, 1, 12);
        let line = ended_words(&ended).unwrap();
        assert!(
            line.len() < 2000 && line.contains(" and 9980 more. 1 of them"),
            "{line}"
        );
        assert!(
            line.ends_with("12 bytes that they wrote after their steps are not in this log."),
            "{line}"
        );
    }
}
