//! Properties of services: svcprop(1) and svccfg(8), as far as ipfilter's is concerned.

use std::time::Duration;

use super::{CommandError, Failure, judge};
use crate::exec::{Cmd, Output};

/// ipfilter's service.
pub const IPFILTER: &str = "network/ipfilter:default";
/// How it comes by its rules: `none`, `deny`, `allow`, or `custom`, which is a file.
pub const POLICY: &str = "firewall_config_default/policy";
/// The property that names the file of that policy.
pub const POLICY_FILE: &str = "firewall_config_default/custom_policy_file";

const DEADLINE: Duration = Duration::from_secs(30);

const WORDS: &[(&str, Failure)] = &[
    ("Couldn't find property", Failure::Absent),
    ("doesn't match any", Failure::Absent),
];

/// `svcprop -p PROPERTY FMRI`.
#[must_use]
pub fn property(fmri: &str, name: &str) -> Cmd {
    Cmd::new("/usr/bin/svcprop").args(["-p", name, fmri]).deadline(DEADLINE)
}

/// What [`property`] printed; none when there is no such property, or no such service.
///
/// # Errors
/// When it failed otherwise.
pub fn value(output: &Output) -> Result<Option<String>, CommandError> {
    match judge(output, WORDS) {
        // An empty string is printed as two quotes.
        Ok(text) => Ok(Some(text.trim().trim_matches('"').to_owned())),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// `svccfg -s FMRI setprop PROPERTY = astring: VALUE`; in force after a refresh.
#[must_use]
pub fn set(fmri: &str, name: &str, value: &str) -> Cmd {
    Cmd::new("/usr/sbin/svccfg")
        .args(["-s", fmri, "setprop", name, "=", "astring:", value])
        .deadline(DEADLINE)
}

/// `svcadm refresh FMRI`.
#[must_use]
pub fn refresh(fmri: &str) -> Cmd {
    Cmd::new("/usr/sbin/svcadm").args(["refresh", fmri]).deadline(DEADLINE)
}

/// `svcadm enable -s FMRI`: returns when it is online.
#[must_use]
pub fn enable(fmri: &str) -> Cmd {
    Cmd::new("/usr/sbin/svcadm")
        .args(["enable", "-s", fmri])
        .deadline(DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::zone::command::failed;

    #[test]
    fn the_commands_are_what_the_manual_says() {
        assert_eq!(
            property(IPFILTER, POLICY).to_string(),
            "/usr/bin/svcprop -p firewall_config_default/policy network/ipfilter:default"
        );
        assert_eq!(
            set(IPFILTER, POLICY, "custom").to_string(),
            "/usr/sbin/svccfg -s network/ipfilter:default setprop firewall_config_default/policy = astring: custom"
        );
    }

    #[test]
    fn a_value_may_be_empty_and_absent() {
        let printed = |text: &str| {
            let mut output = failed("");
            (output.code, output.stdout) = (Some(0), text.into());
            value(&output).unwrap()
        };
        assert_eq!(printed("custom\n").as_deref(), Some("custom"));
        assert_eq!(printed("\"\"\n").as_deref(), Some(""));
        let absent = "svcprop: Couldn't find property 'x/y' for instance 'svc:/network/ipfilter:default'.";
        assert_eq!(value(&failed(absent)).unwrap(), None);
        value(&failed("svcprop: Permission denied")).unwrap_err();
    }
}
