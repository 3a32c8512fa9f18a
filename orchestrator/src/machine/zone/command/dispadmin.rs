//! dispadmin(8): the scheduling class that processes of this host begin in. Shares of the processor (`cpu-shares`)
//! count in the fair-share class only.

use std::time::Duration;

use crate::exec::{Cmd, Output};

/// What an administrator does about another class.
pub const ADVICE: &str = "dispadmin -d FSS, as root; it holds from the next boot of the host on";

/// `dispadmin -d`: prints the default class and its description.
#[must_use]
pub fn default_class() -> Cmd {
    Cmd::new("/usr/sbin/dispadmin")
        .arg("-d")
        .deadline(Duration::from_secs(10))
}

/// Whether what [`default_class`] printed names the fair-share class. A host where none was ever set says so and fails
/// (`Default scheduling class is not set`): it has TS.
#[must_use]
pub fn is_fair(output: &Output) -> bool {
    output.code == Some(0) && output.text().split_whitespace().next() == Some("FSS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::zone::command::failed;

    #[test]
    fn only_the_fair_share_class_is_fair() {
        let said = |code, stdout: &str| Output {
            code: Some(code),
            stdout: stdout.as_bytes().to_vec(),
            ..failed("")
        };
        assert!(is_fair(&said(0, "FSS\t(Fair Share)\n")));
        assert!(!is_fair(&said(0, "TS\t(Time Sharing)\n")));
        assert!(!is_fair(&said(0, "")));
        assert!(!is_fair(&failed(
            "/usr/sbin/dispadmin: Default scheduling class is not set"
        )));
    }
}
