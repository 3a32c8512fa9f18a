//! The fault plan (`faults.json`): what goes wrong, for which call, and the quirks of single zones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything that is to go wrong. The default is a host on which nothing does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Faults of single calls; the first that fits acts.
    pub calls: Vec<Fault>,
    /// Quirks by zone name; `*` holds for every zone without its own entry.
    pub zones: BTreeMap<String, Quirks>,
    /// So many destroys of a volume fail as busy after its last user closed it.
    pub busy_after_close: u32,
    /// A zonecfg file that errs commits nothing, instead of what verifies: both were seen.
    pub zonecfg_commits_nothing_on_error: bool,
    /// A property of a zone that this release's zonecfg does not know.
    pub zonecfg_lacks: Option<String>,
    /// `create-vnic` takes `-p mtu=` and does nothing with it: that was seen.
    pub create_vnic_ignores_mtu: bool,
    /// So many queries show a new address as `tentative`: it is probed first.
    pub tentative_looks: u32,
    /// `show-linkprop -c` leaves the value of an unset property empty, instead of `--`: both were seen.
    pub unset_linkprop_is_empty: bool,
    /// Whether `zoneadm list` leaves out the eighth field, as illumos without the debug id does.
    pub seven_list_fields: bool,
}

/// One call that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The program: `zfs`.
    pub program: String,
    /// Words that its arguments hold in this order; `abc*` fits any word that begins so.
    #[serde(default)]
    pub args: Vec<String>,
    /// The first matching call that goes wrong, counted from 1.
    #[serde(default = "one")]
    pub nth: u32,
    /// How many matching calls go wrong from then on.
    #[serde(default = "one")]
    pub times: u32,
    pub action: Action,
    /// Matching calls so far; the simulator counts here.
    #[serde(default)]
    pub seen: u32,
}

fn one() -> u32 {
    1
}

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Nothing is done; this is said.
    Fail {
        code: i32,
        /// Standard error, with its newline.
        stderr: String,
    },
    /// It is done; this is said all the same.
    FailAfter {
        code: i32,
        /// Standard error, with its newline.
        stderr: String,
    },
    /// Nothing is done, and the program never ends.
    Hang,
    /// It is done, and the program never ends.
    HangAfter,
    /// The program is killed before it does anything.
    Kill,
    /// It is done (by zoneadmd, or by the kernel), but the client was killed: nobody hears of it.
    KillAfter,
    /// Killed in the middle of an install, uninstall or halt: what was begun stays as it is.
    KillMidway,
    /// The client is killed at once; zoneadmd, which has its word, does the act later by itself. Whoever asks
    /// zoneadmd meanwhile waits. For `boot` and `halt`; another program's act is done by the kernel at once.
    KillClient {
        /// After so many passes of any program.
        after: u32,
    },
    /// It takes so much longer.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// It waits, before it does anything, until [`Sim::release`](crate::Sim::release).
    Held,
}

/// What is odd about one zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// bhyve ends with this code soon after a boot that succeeded.
    pub bhyve_exits: Option<i32>,
    /// So many listings still show the zone as running when bhyve could not start; two without it. A real host takes
    /// seconds to halt it.
    pub dies_late: Option<u32>,
    /// The boot hook fails with this text.
    pub boot_error: Option<String>,
    /// The install hook ends with this code.
    pub install_hook: Option<i32>,
    /// The guest reacts to the power button. Off: firmware, a panic, or a minimal image.
    pub obeys_power_button: bool,
    /// A halt fails and leaves the zone in this state: `shutting_down` or `down`.
    pub halt_leaves: Option<String>,
    /// `/dev/vmm/NAME` outlives bhyve.
    pub leaves_vm: bool,
    /// So many listings show the zone as `shutting_down` after bhyve ended.
    pub lingers: u32,
    /// What `zoneadm list` makes of the zone.
    pub listed: Option<Listed>,
}

/// Oddities of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    /// It changed state meanwhile: left out, with a word on standard error.
    Skipped,
    /// Its id is `-` although it runs.
    WithoutId,
    /// A state of some later release.
    As(String),
}

impl Quirks {
    /// How many listings go by before a bhyve that could not start is noticed.
    #[must_use]
    pub fn deathbed(&self) -> u32 {
        self.dies_late.unwrap_or(2)
    }
}

impl Faults {
    /// The quirks of a zone.
    #[must_use]
    pub fn quirks(&self, zone: &str) -> Quirks {
        self.zones
            .get(zone)
            .or_else(|| self.zones.get("*"))
            .cloned()
            .unwrap_or_default()
    }

    /// Counts this call, and says what goes wrong with it.
    pub fn next(&mut self, program: &str, args: &[String]) -> Option<Action> {
        let mut action = None;
        for fault in &mut self.calls {
            if fault.program != program || !holds(args, &fault.args) {
                continue;
            }
            fault.seen += 1;
            let acts = fault.seen >= fault.nth && fault.seen - fault.nth < fault.times;
            if acts && action.is_none() {
                action = Some(fault.action.clone());
            }
        }
        action
    }
}

/// Whether the words come in this order, with anything between them.
fn holds(args: &[String], words: &[String]) -> bool {
    let mut args = args.iter();
    words.iter().all(|word| {
        args.any(|arg| match word.strip_suffix('*') {
            Some(start) => arg.starts_with(start),
            None => arg == word,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_matching_call_goes_wrong() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut faults = Faults {
            calls: vec![Fault {
                program: "zfs".into(),
                args: words("destroy rpool/*"),
                nth: 2,
                times: 2,
                action: Action::Hang,
                seen: 0,
            }],
            ..Faults::default()
        };
        let mut went = |program: &str, text: &str| faults.next(program, &words(text)).is_some();
        assert!(!went("zfs", "destroy rpool/a"));
        assert!(!went("zpool", "destroy rpool/a"));
        assert!(!went("zfs", "rpool/a destroy"));
        assert!(went("zfs", "destroy -r rpool/b"));
        assert!(went("zfs", "destroy rpool/b"));
        assert!(!went("zfs", "destroy rpool/b"));
    }
}
