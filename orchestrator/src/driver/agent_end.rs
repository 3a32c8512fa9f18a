//! Who ended an agent, from what its machine's console says. A machine that stops in mid-step is our failure, unless
//! what watched over the agent inside says that it was killed: while a step runs, only the job is there to do that,
//! or uses up the memory so that the kernel does. The words are the guest's, whom nobody trusts; believed they only
//! cost the job that lied its further tries.

use std::time::Duration;

use super::console::end_of_console;
use crate::{daemon::Deps, model::names::MachineName};

/// What an image's start script or unit says; see `images/README.md`.
const STATUS: &str = "helios-ci: the agent ended with status ";
/// What it says when it was killed itself, and started again by the machine's init.
const BOTH: &str = "helios-ci: the agent was killed, and what watched over it";

/// The last words may still be on their way from the console to its file.
const POLLS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// How somebody in the machine killed its agent; `None` when nothing says so.
pub(super) async fn killed(deps: &Deps, name: &MachineName) -> Option<String> {
    for _ in 0..POLLS {
        let console = end_of_console(deps, name).await;
        if let Some(how) = read(&String::from_utf8_lossy(&console)) {
            return Some(how);
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

/// The last end of an agent in a console's text, when it was a kill.
fn read(console: &str) -> Option<String> {
    let by = console.lines().rev().find_map(|line| {
        if line.contains(BOTH) {
            return Some(Some("SIGKILL"));
        }
        let (_, status) = line.split_once(STATUS)?;
        Some(signal(status.split_whitespace().next().unwrap_or_default()))
    })??;
    Some(format!(
        "the machine's agent was killed ({by}) while the step ran: a step that ends every process of its machine, \
         or takes all of its memory, ends its job"
    ))
}

/// The signal behind a status, if it is one that only others send: an agent that fails by itself ends otherwise.
/// The numbers are the same on Linux and illumos. An agent that is told to end does so with 143, as a shell would say it.
fn signal(status: &str) -> Option<&'static str> {
    match status {
        "129" | "killed/HUP" => Some("SIGHUP"),
        "130" | "killed/INT" => Some("SIGINT"),
        "131" | "killed/QUIT" | "dumped/QUIT" => Some("SIGQUIT"),
        "137" | "killed/KILL" => Some("SIGKILL"),
        "143" | "exited/143" | "killed/TERM" => Some("SIGTERM"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_from_a_failure_of_the_agents_own() {
        let console = |status: &str| {
            format!("login: \r\nhelios-ci: the agent ended with status {status}\r\n[ 9.1] Power down\r\n")
        };
        for (status, name) in [
            ("137", "SIGKILL"),
            ("143", "SIGTERM"),
            ("killed/KILL", "SIGKILL"),
            ("exited/143", "SIGTERM"),
        ] {
            assert!(read(&console(status)).unwrap().contains(name), "{status}");
        }
        for status in ["0", "2", "3", "4", "134", "139", "1370", "exited/4", "dumped/SEGV", ""] {
            assert_eq!(read(&console(status)), None, "{status}");
        }
        let both =
            "helios-ci: starting the agent\nhelios-ci: the agent was killed, and what watched over it; powering off\n";
        assert!(read(both).is_some());
        assert_eq!(read("the agent ended with status 137\n[ 3.1] Kernel panic"), None);
        assert_eq!(read(&(console("137") + &console("4"))), None, "the last word counts");
    }
}
