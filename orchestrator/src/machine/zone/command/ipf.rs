//! ipfilter: whether the rules that keep guests from the host's own addresses are in force.

use std::time::Duration;

use super::{CommandError, judge};
use crate::{
    exec::{Cmd, Output},
    model::illumos::network::Range,
};

/// `ipfstat -io`: every rule in force.
#[must_use]
pub fn list() -> Cmd {
    Cmd::new("/usr/sbin/ipfstat")
        .arg("-io")
        .deadline(Duration::from_secs(10))
}

/// The first rule that is missing or stands in the wrong place, from what [`list`] printed; none when all is well.
///
/// # Errors
/// When it failed: ipfilter is not running.
pub fn missing(range: Range, port: u16, output: &Output) -> Result<Option<String>, CommandError> {
    let text = judge(output, &[])?;
    // ipfstat writes the flags out; what stands before them is what was loaded.
    let core = |rule: &str| rule.split(" flags ").next().unwrap_or_default().trim().to_owned();
    let mut lines = text.lines().map(core);
    // In their order: a block before a pass would win.
    Ok(range
        .filter_rules(port)
        .into_iter()
        .find(|rule| !lines.any(|line| line == core(rule))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::zone::command::failed;

    #[test]
    fn all_three_rules_are_there_in_their_order() {
        let said = |text: &str| {
            let mut output = failed("");
            (output.code, output.stdout) = (Some(0), text.as_bytes().to_vec());
            missing(Range::default(), 9417, &output).unwrap()
        };
        let pass = |port| {
            format!("pass in quick proto tcp from 10.77.0.0/16 to 10.77.0.0/16 port = {port} flags S/FSRPAU keep state")
        };
        let block = "block in quick from 10.77.0.0/16 to any";
        let (one, two) = (pass(9417), pass(9418));
        assert_eq!(
            said(&format!("empty list for ipfilter(out)\n{one}\n{two}\n{block}\n")),
            None
        );
        assert_eq!(said(&format!("{block}\n{one}\n{two}\n")).unwrap(), block);
        assert!(said(&format!("{one}\n{block}\n")).unwrap().contains("9418"));
        assert!(said("").is_some());
        assert!(missing(Range::default(), 9417, &failed("open device: No such device")).is_err());
    }
}
