//! What a zone host needs before its first machine: the tree of datasets and the rules of ipfilter. It inspects first,
//! and says what is missing as the commands that would make it; nothing that is another's is touched.

pub mod rehearsal;
pub mod scratch;
use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::Duration};

use ipnet::Ipv4Net;

use super::command::{CommandError, ipadm, ipf, smf, zfs};
use crate::{
    config::Zone,
    exec::{Cmd, ExecError},
    files,
    model::{
        illumos::{
            names::{DatasetName, Unfit},
            network::{Slot, SlotNetwork},
        },
        names::NodeName,
    },
};

/// ipfilter's rules that outlive a reboot.
const IPF_CONF: &str = "/etc/ipf/ipf.conf";
/// Our rules stand between these two lines.
const BEGIN: &str = "# helios-ci: begin";
const END: &str = "# helios-ci: end";

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Act {
    /// Run a command.
    Run(Cmd),
    /// A file with a new content.
    Write {
        /// The file that is replaced.
        path: String,
        /// Its whole new text.
        text: String,
    },
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(command) => command.fmt(f),
            Self::Write { path, .. } => write!(f, "write {path}"),
        }
    }
}

/// Why a host cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A name that illumos would not take.
    #[error(transparent)]
    Name(#[from] Unfit),
    /// A command could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A command of the host failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file that cannot be used.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The machines' addresses are the host's, too.
    #[error("the machines' addresses {range} overlap {address} of {interface}: choose another range as `zone.network`")]
    Overlap {
        /// The configured network.
        range: String,
        /// The host's, with its network.
        address: String,
        /// Which of its address objects.
        interface: String,
    },
    /// Our part of a file has no end.
    #[error(
        "{path} has a line `{BEGIN}` and none `{END}` after it: restore that line where our rules end, or remove them"
    )]
    Markers {
        /// The file with broken markers.
        path: String,
    },
    /// Others could put something else in the zones' place.
    #[error(
        "{path} does not belong to root, or its group or everybody may write to it; zones lie below it: \
         `chown root {path}; chmod go-w {path}`, or choose another `zone.path`"
    )]
    Writable {
        /// The directory that is not ours alone.
        path: String,
    },
    /// ipfilter's rules are made by somebody else.
    #[error(
        "ipfilter's service makes its rules by policy `{policy}` {file}, so rules in {IPF_CONF} would be gone at its next \
         start: put the host's own rules into {IPF_CONF}, and set {policy_name} to `custom` and {file_name} to \
         {IPF_CONF} with svccfg -s {service} setprop",
        policy_name = smf::POLICY,
        file_name = smf::POLICY_FILE,
        service = smf::IPFILTER,
    )]
    Policy {
        /// `deny`, `allow`, or `custom` with another file.
        policy: String,
        /// The file that the service loads instead.
        file: String,
    },
    /// The tree's place is taken.
    #[error(
        "{dataset} exists and does not carry the owner tag of node {node}: choose another `zone.dataset`, or, if it is meant, set it with `zfs set helios-ci:node={node} {dataset}`"
    )]
    Foreign {
        /// The dataset.
        dataset: String,
        /// This node.
        node: String,
    },
}

/// What is missing on this host, in the order in which it is to be done; nothing when all is there.
///
/// # Errors
/// When the host cannot be inspected, or another's dataset has the tree's name.
pub fn missing(node: &NodeName, zone: &Zone) -> Result<Vec<Act>, SetupError> {
    apart(node, zone)?;
    let mut acts = missing_datasets(node, zone)?;
    acts.extend(missing_rules(zone)?);
    Ok(acts)
}

/// The part of [`missing`] that is ZFS's.
///
/// # Errors
/// As there.
pub fn missing_datasets(node: &NodeName, zone: &Zone) -> Result<Vec<Act>, SetupError> {
    let mut acts = Vec::new();
    rooted(zone)?;
    let (machines, zones) = (zone.dataset.child("machines")?, zone.dataset.child("zones")?);
    for (dataset, properties) in tree(zone)? {
        let seen = zfs::dataset(&dataset, &zfs::query(&dataset).run_blocking()?)?;
        match seen {
            Some(seen) if seen.node.as_deref() == Some(node.as_str()) => {
                match zone.quota_gib.filter(|_| dataset == machines) {
                    Some(gib) if seen.quota != Some(gib << 30) => acts.push(Act::Run(zfs::set_quota(&dataset, gib))),
                    _ => {}
                }
                if dataset == zones && !seen.mounted {
                    acts.push(Act::Run(zfs::mount(&dataset)));
                }
            }
            Some(_) => {
                return Err(SetupError::Foreign {
                    dataset: dataset.to_string(),
                    node: node.to_string(),
                });
            }
            None => {
                let properties: Vec<(&str, &str)> = properties.iter().map(|(k, v)| (*k, v.as_str())).collect();
                acts.push(Act::Run(zfs::create_filesystem(&dataset, node, &properties)));
            }
        }
    }
    Ok(acts)
}

/// The part of [`missing`] that is ipfilter's.
fn missing_rules(zone: &Zone) -> Result<Vec<Act>, SetupError> {
    let mut acts = Vec::new();
    let text = match fs::read_to_string(IPF_CONF) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(SetupError::Io {
                path: IPF_CONF.to_owned(),
                source,
            });
        }
    };
    let wanted = with_rules(&text, zone).ok_or_else(|| SetupError::Markers {
        path: IPF_CONF.to_owned(),
    })?;
    let rewritten = wanted != text;
    if rewritten {
        acts.push(Act::Write {
            path: IPF_CONF.to_owned(),
            text: wanted,
        });
    }
    let in_force = ipf::list()
        .run_blocking()
        .ok()
        .and_then(|output| ipf::wrong(zone.network, zone.port, &output).ok());
    let lasting = lasting_rules()?;
    if rewritten || in_force != Some(None) || !lasting.is_empty() {
        acts.extend(lasting);
        acts.push(Act::Run(smf::enable(smf::IPFILTER)));
        // Emptied and read again: rules that were added twice would stand in the wrong order.
        acts.push(Act::Run(Cmd::new("/usr/sbin/ipf").args(["-Fa", "-f", IPF_CONF])));
    }
    Ok(acts)
}

/// What makes ipfilter's service load our file at its next start, too. Where it was enabled before, it may make its
/// rules from a policy instead; a release without these properties knows only the file.
fn lasting_rules() -> Result<Vec<Act>, SetupError> {
    let property =
        |name| -> Result<_, SetupError> { Ok(smf::value(&smf::property(smf::IPFILTER, name).run_blocking()?)?) };
    let Some(policy) = property(smf::POLICY)? else {
        return Ok(Vec::new());
    };
    let file = property(smf::POLICY_FILE)?.unwrap_or_default();
    match (policy.as_str(), file.as_str()) {
        ("custom", IPF_CONF) => Ok(Vec::new()),
        ("none", _) | ("custom", "") => Ok([
            smf::set(smf::IPFILTER, smf::POLICY, "custom"),
            smf::set(smf::IPFILTER, smf::POLICY_FILE, IPF_CONF),
            smf::refresh(smf::IPFILTER),
        ]
        .map(Act::Run)
        .into()),
        _ => Err(SetupError::Policy { policy, file }),
    }
}

/// Whether nobody but root can put another directory in the place of the zones: zoneadm refuses such a parent.
fn rooted(zone: &Zone) -> Result<(), SetupError> {
    let path = zone.path.to_string();
    // Where this program's root is not the system's, the latter's files are somebody else's and safe all the same.
    let roots = [0, fs::metadata("/").map_or(0, |meta| meta.uid())];
    for dir in Path::new(&path).ancestors() {
        let meta = match fs::metadata(dir) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(SetupError::Io {
                    path: dir.display().to_string(),
                    source,
                });
            }
        };
        if !roots.contains(&meta.uid()) || meta.mode() & 0o022 != 0 {
            return Err(SetupError::Writable {
                path: dir.display().to_string(),
            });
        }
    }
    Ok(())
}

/// Whether no network of the host is among the machines'.
fn apart(node: &NodeName, zone: &Zone) -> Result<(), SetupError> {
    for (object, address) in ipadm::addresses(&ipadm::show_addresses().run_blocking()?)? {
        if !zone.network.overlaps(address) || is_slots(node, zone, &object, address) {
            continue;
        }
        return Err(SetupError::Overlap {
            range: zone.network.to_string(),
            address: address.to_string(),
            interface: object,
        });
    }
    Ok(())
}

/// Whether it is the host's end of one of our slots.
fn is_slots(node: &NodeName, zone: &Zone, object: &str, address: Ipv4Net) -> bool {
    let slot = object.strip_suffix("/v4").and_then(Slot::of_vnic);
    let network = slot.and_then(|slot| SlotNetwork::of(node, zone.network, slot).ok().flatten());
    network.is_some_and(|network| object == format!("{}/v4", network.host) && address.addr() == network.host_address)
}

/// What a dataset is created with.
type Properties = Vec<(&'static str, String)>;

/// The datasets and their properties, parents first.
fn tree(zone: &Zone) -> Result<Vec<(DatasetName, Properties)>, Unfit> {
    let root = &zone.dataset;
    let off = || vec![("mountpoint", "none".to_owned())];
    let zones = vec![
        ("mountpoint", zone.path.to_string()),
        ("canmount", "on".to_owned()),
        ("atime", "off".to_owned()),
        ("compression", "lz4".to_owned()),
    ];
    let quota = zone.quota_gib.map(|gib| ("quota", format!("{gib}G")));
    Ok(vec![
        (root.clone(), off()),
        (root.child("images")?, off()),
        (root.child("machines")?, off().into_iter().chain(quota).collect()),
        (root.child("zones")?, zones),
        (
            root.child("state")?,
            vec![("mountpoint", "none".to_owned()), ("reservation", "64m".to_owned())],
        ),
    ])
}

/// ipf.conf with our rules before all others: ipfilter takes the first that says `quick`. None when it is not known
/// where the rules end that were ours before.
fn with_rules(text: &str, zone: &Zone) -> Option<String> {
    let mut others = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim() {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if !inside => {
                others.push_str(line);
                others.push('\n');
            }
            _ => {}
        }
    }
    let rules = zone.network.filter_rules(zone.port).join("\n");
    (!inside).then(|| format!("{BEGIN}\n{rules}\n{END}\n{others}"))
}

/// Does one thing.
///
/// # Errors
/// When it fails; what was done before stays, and the next setup goes on from there.
pub fn perform(act: &Act) -> Result<(), SetupError> {
    match act {
        Act::Run(command) => {
            let output = command.clone().deadline(Duration::from_secs(120)).run_blocking()?;
            zfs::done(&output)?;
        }
        Act::Write { path, text } => {
            let written = Path::new(path)
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| files::write_private(Path::new(path), text.as_bytes()));
            written.map_err(|source| SetupError::Io {
                path: path.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::illumos::network::Range;

    fn zone() -> Zone {
        Zone {
            dataset: "rpool/hci".parse().unwrap(),
            path: "/zones/hci".parse().unwrap(),
            network: Range::default(),
            port: 9417,
            bandwidth: "1G".parse().unwrap(),
            quota_gib: None,
            max_vcpus: 32,
        }
    }

    #[test]
    fn our_rules_come_first_once_and_others_stay() {
        let mine = "pass out all\nblock in on net0 all\n";
        let once = with_rules(mine, &zone()).unwrap();
        assert!(
            once.starts_with("# helios-ci: begin\npass in quick") && once.ends_with(mine),
            "{once}"
        );
        assert_eq!(with_rules(&once, &zone()).unwrap(), once);
        let mut other = zone();
        other.port = 7000;
        let changed = with_rules(&once, &other).unwrap();
        assert!(
            changed.contains("port = 7000") && !changed.contains("9417"),
            "{changed}"
        );
        assert_eq!(changed.matches("helios-ci: begin").count(), 1);
        // Whatever follows a beginning without an end may be the administrator's.
        assert_eq!(with_rules(&once.replace(END, ""), &zone()), None);
    }

    #[test]
    fn the_tree_has_its_parents_first_and_no_volume_below_zones() {
        let names: Vec<String> = tree(&zone())
            .unwrap()
            .iter()
            .map(|(name, _)| name.to_string())
            .collect();
        assert_eq!(
            names,
            [
                "rpool/hci",
                "rpool/hci/images",
                "rpool/hci/machines",
                "rpool/hci/zones",
                "rpool/hci/state"
            ]
        );
    }
}
