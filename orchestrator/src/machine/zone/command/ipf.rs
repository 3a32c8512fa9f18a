//! ipfilter: whether the rules that keep guests from the host's own addresses are in force.

use std::time::Duration;

use super::{CommandError, judge};
use crate::{
    exec::{Cmd, Output},
    model::illumos::network::Range,
};

/// `ipfstat -ioR`: every rule in force. Without `-R` a port that the services file names is printed by that name
/// (`port = http-alt`), and would be no rule of ours.
#[must_use]
pub fn list() -> Cmd {
    Cmd::new("/usr/sbin/ipfstat")
        .arg("-ioR")
        .deadline(Duration::from_secs(30))
}

/// What is wrong with the rules in force, from what [`list`] printed; none when all is well. ipfilter takes the first
/// rule that fits and says `quick`, so ours must be the first of those for packets that come in, in their order.
///
/// # Errors
/// When it failed: ipfilter is not running, or only root may ask.
pub fn wrong(range: Range, port: u16, output: &Output) -> Result<Option<String>, CommandError> {
    let text = judge(output, &[])?;
    // ipfstat writes the flags out; what stands before them is what was loaded.
    let core = |rule: &str| rule.split(" flags ").next().unwrap_or_default().trim().to_owned();
    let decides = |rule: &&str| {
        let mut words = rule.split_whitespace();
        words.nth(1) == Some("in") && words.any(|word| word == "quick")
    };
    let mut lines = text.lines().filter(decides);
    for rule in range.filter_rules(port) {
        match lines.next() {
            Some(line) if core(line) == core(&rule) => {}
            Some(other) if text.lines().any(|line| core(line) == core(&rule)) => {
                return Ok(Some(format!("the rule `{}` stands before `{rule}`", other.trim())));
            }
            _ => return Ok(Some(format!("the rule `{rule}` is not in force"))),
        }
    }
    Ok(None)
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
            wrong(Range::default(), 9417, &output).unwrap()
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
        let wrong = |text: String| said(&text).unwrap();
        assert!(wrong(format!("{block}\n{one}\n{two}\n")).contains(&format!("`{block}` stands before")));
        assert!(wrong(format!("{one}\n{block}\n")).contains("9418"));
        assert!(wrong(format!("{one}\n{two}\n")).contains("is not in force"));
        assert!(wrong(String::new()).contains("9417"));
        // Somebody else's rules: those that decide nothing may stand anywhere, others only behind ours.
        let ssh = "pass in log quick proto tcp from any to any port = 22";
        let harmless = "block in all\npass out quick all";
        assert_eq!(
            said(&format!("{harmless}\n{one}\n{harmless}\n{two}\n{block}\n{ssh}\n")),
            None
        );
        for text in [
            format!("{ssh}\n{one}\n{two}\n{block}\n"),
            format!("{one}\n{two}\n{ssh}\n{block}\n"),
        ] {
            assert!(wrong(text).contains("port = 22` stands before"));
        }
        assert!(super::wrong(Range::default(), 9417, &failed("open device: No such device")).is_err());
    }
}
