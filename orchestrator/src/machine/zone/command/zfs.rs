//! zfs(8). Its words are `cannot VERB 'NAME': REASON`.

use std::{collections::BTreeMap, time::Duration};

use super::{CommandError, Failure, judge};
use crate::{
    exec::{Cmd, Output},
    machine::zone::owned::Owned,
    model::{
        ids::AttemptId,
        illumos::names::{DatasetName, SnapshotName, VolumeSize},
        names::NodeName,
    },
};

const ZFS: &str = "/sbin/zfs";
/// Commands take long only when a pool is not healthy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whose a dataset is, as a *local* property: children inherit it and prove nothing.
pub const NODE: &str = "helios-ci:node";
/// For which attempt it was made.
pub const ATTEMPT: &str = "helios-ci:attempt";
/// `quarantined`, when it could not be destroyed.
pub const STATE: &str = "helios-ci:state";

/// The tag of our holds.
const HOLD: &str = "helios-ci";

/// The most telling words first: `destroy -r` that meets a busy snapshot ends with `dataset already exists`, which is
/// then said of the parent.
const WORDS: &[(&str, Failure)] = &[
    ("dataset does not exist", Failure::Absent),
    ("could not find any snapshots to destroy", Failure::Absent),
    ("no such tag on this dataset", Failure::Absent),
    ("dataset is busy", Failure::Busy),
    ("it's being held", Failure::Busy),
    ("has dependent clones", Failure::Busy),
    ("has children", Failure::Busy),
    ("snapshot is cloned", Failure::Busy),
    ("pool I/O is currently suspended", Failure::Busy),
    ("dataset already exists", Failure::Exists),
    ("tag already exists on this dataset", Failure::Exists),
    ("out of space", Failure::Full),
];

fn zfs(verb: &str) -> Cmd {
    Cmd::new(ZFS).arg(verb).deadline(DEADLINE)
}

fn property(name: &str, value: &str) -> [String; 2] {
    ["-o".to_owned(), format!("{name}={value}")]
}

/// `zfs clone` of a golden snapshot for one attempt. A clone is written to without waiting for the disk: it
/// is of no use after a crash of the host.
#[must_use]
pub fn clone(origin: &SnapshotName, target: &DatasetName, node: &NodeName, attempt: AttemptId) -> Cmd {
    zfs("clone")
        .args(property(NODE, node.as_str()))
        .args(property(ATTEMPT, &attempt.to_string()))
        .args(property("sync", "disabled"))
        .arg(origin)
        .arg(target)
}

/// `zfs set volsize=`: only ever to more, because less cuts off in silence.
#[must_use]
pub fn grow(volume: &DatasetName, size: VolumeSize) -> Cmd {
    zfs("set").arg(format!("volsize={size}")).arg(volume)
}

/// `zfs create` of a zone's own filesystem, before `zoneadm install` would make one without our owner tags.
#[must_use]
pub fn create_zonepath(dataset: &DatasetName, node: &NodeName, attempt: AttemptId) -> Cmd {
    zfs("create")
        .args(property(NODE, node.as_str()))
        .args(property(ATTEMPT, &attempt.to_string()))
        .args(property("sharenfs", "off"))
        .args(property("sharesmb", "off"))
        .args(property("quota", "256m"))
        .arg(dataset)
}

/// `zfs destroy` of one volume, which has neither children nor snapshots.
#[must_use]
pub fn destroy(dataset: &Owned<DatasetName>) -> Cmd {
    zfs("destroy").arg(&**dataset)
}

/// `zfs destroy -r` of a zone's own filesystem: never of anything else.
#[must_use]
pub fn destroy_zonepath(dataset: &Owned<DatasetName>) -> Cmd {
    zfs("destroy").arg("-r").arg(&**dataset)
}

/// `zfs set helios-ci:state=quarantined`: what could not be destroyed is nobody's any more.
#[must_use]
pub fn quarantine(dataset: &Owned<DatasetName>) -> Cmd {
    zfs("set").arg(format!("{STATE}=quarantined")).arg(&**dataset)
}

/// The properties of a dataset that [`query`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub name: DatasetName,
    /// The node of its *local* owner tag.
    pub node: Option<String>,
    /// The attempt of its *local* owner tag.
    pub attempt: Option<String>,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
    /// Size of a volume, in bytes.
    pub volsize: Option<u64>,
    /// Whether a filesystem is mounted.
    pub mounted: bool,
    /// What a filesystem and all below it may take, in bytes; none when only the pool bounds it.
    pub quota: Option<u64>,
}

/// `zfs get` of all that proves what a dataset is; user properties count where they are local.
#[must_use]
pub fn query(dataset: &DatasetName) -> Cmd {
    zfs("get")
        .args(["-Hp", "-o", "property,value,source"])
        .arg(format!("{NODE},{ATTEMPT},origin,volsize,mounted,quota"))
        .arg(dataset)
}

/// Reads what [`query`] printed. `None` when there is no such dataset.
///
/// # Errors
/// When the command failed otherwise.
pub fn dataset(name: &DatasetName, output: &Output) -> Result<Option<Dataset>, CommandError> {
    let text = match judge(output, WORDS) {
        Ok(text) => text,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut dataset = Dataset {
        name: name.clone(),
        node: None,
        attempt: None,
        origin: None,
        volsize: None,
        mounted: false,
        quota: None,
    };
    for line in text.lines() {
        let mut parts = line.split('\t');
        let (Some(property), Some(value), Some(source)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let set = (value != "-").then(|| value.to_owned());
        match property {
            NODE if source == "local" => dataset.node = set,
            ATTEMPT if source == "local" => dataset.attempt = set,
            "origin" => dataset.origin = set,
            "volsize" => dataset.volsize = value.parse().ok(),
            "mounted" => dataset.mounted = value == "yes",
            "quota" => dataset.quota = value.parse().ok().filter(|bytes| *bytes > 0),
            _ => {}
        }
    }
    Ok(Some(dataset))
}

/// `zfs create` of a plain filesystem of the tree, with its owner tag and these properties.
#[must_use]
pub fn create_filesystem(dataset: &DatasetName, node: &NodeName, properties: &[(&str, &str)]) -> Cmd {
    let own = properties.iter().flat_map(|(name, value)| property(name, value));
    zfs("create").args(property(NODE, node.as_str())).args(own).arg(dataset)
}

/// `zfs set quota=`: what all below a filesystem of the tree may take together.
#[must_use]
pub fn set_quota(dataset: &DatasetName, gib: u64) -> Cmd {
    zfs("set").arg(format!("quota={gib}G")).arg(dataset)
}

/// `zfs mount` of a filesystem of the tree.
#[must_use]
pub fn mount(dataset: &DatasetName) -> Cmd {
    zfs("mount").arg(dataset)
}

/// `zfs create -s -V` of a golden disk to be: sparse, so that zeroes that are never written cost nothing.
#[must_use]
pub fn create_volume(volume: &DatasetName, node: &NodeName, size: VolumeSize) -> Cmd {
    zfs("create")
        .args(["-s", "-V"])
        .arg(size.to_string())
        .args(["-b", "16k"])
        .args(property("compression", "lz4"))
        .args(property(NODE, node.as_str()))
        .arg(volume)
}

/// `zfs set` of one property.
#[must_use]
pub fn set(dataset: &DatasetName, name: &str, value: &str) -> Cmd {
    zfs("set").arg(format!("{name}={value}")).arg(dataset)
}

/// `zfs snapshot`.
#[must_use]
pub fn snapshot(snapshot: &SnapshotName) -> Cmd {
    zfs("snapshot").arg(snapshot)
}

/// `zfs hold`: nobody destroys the snapshot by mistake.
#[must_use]
pub fn hold(snapshot: &SnapshotName) -> Cmd {
    zfs("hold").arg(HOLD).arg(snapshot)
}

/// `zfs release`.
#[must_use]
pub fn release(snapshot: &Owned<SnapshotName>) -> Cmd {
    zfs("release").arg(HOLD).arg(&**snapshot)
}

/// `zfs destroy` of one snapshot.
#[must_use]
pub fn destroy_snapshot(snapshot: &Owned<SnapshotName>) -> Cmd {
    zfs("destroy").arg(&**snapshot)
}

/// `zfs rename`, which keeps holds and clones.
#[must_use]
pub fn rename(from: &Owned<DatasetName>, to: &DatasetName) -> Cmd {
    zfs("rename").arg(&**from).arg(to)
}

/// `zfs list` of an image's snapshots.
#[must_use]
pub fn list_snapshots(image: &DatasetName) -> Cmd {
    zfs("list")
        .args(["-Hp", "-r", "-t", "snapshot", "-o", "name"])
        .arg(image)
}

/// The versions of an image whose golden snapshot is there, in order, from what [`list_snapshots`] printed; none
/// when there is no such image.
///
/// # Errors
/// When it failed otherwise.
pub fn versions(image: &DatasetName, output: &Output) -> Result<Vec<u32>, CommandError> {
    let text = match judge(output, WORDS) {
        Ok(text) => text,
        Err(error) if error.is_absent() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let prefix = format!("{image}/v");
    let version = |name: &str| name.trim().strip_prefix(&prefix)?.strip_suffix("@gold")?.parse().ok();
    let mut versions: Vec<u32> = text.lines().filter_map(version).collect();
    versions.sort_unstable();
    Ok(versions)
}

/// `zfs get` of properties.
#[must_use]
pub fn get(dataset: &DatasetName, properties: &[&str]) -> Cmd {
    zfs("get")
        .args(["-Hp", "-o", "property,value,source"])
        .arg(properties.join(","))
        .arg(dataset)
}

/// The local properties among what [`get`] printed.
///
/// # Errors
/// When it failed.
pub fn noted(output: &Output) -> Result<BTreeMap<String, String>, CommandError> {
    let text = judge(output, WORDS)?;
    let mut noted = BTreeMap::new();
    for line in text.lines() {
        if let [name, value, "local"] = line.split('\t').collect::<Vec<_>>().as_slice() {
            noted.insert((*name).to_owned(), (*value).to_owned());
        }
    }
    Ok(noted)
}

/// `zfs get` of the owner tags of everything below a dataset.
#[must_use]
pub fn list(parent: &DatasetName) -> Cmd {
    zfs("get")
        .args(["-Hp", "-r", "-o", "name,property,value,source"])
        .arg(format!("{NODE},{STATE}"))
        .arg(parent)
}

/// Datasets directly below another, by owner tag; each name is without its parent's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildrenByOwner {
    /// With this node's own local owner tag.
    pub ours: Vec<String>,
    /// Ours, and given up.
    pub quarantined: Vec<String>,
    /// With no owner tag, or another node's.
    pub others: Vec<String>,
}

/// What [`list`] printed; nothing when there is no such dataset.
///
/// # Errors
/// When it failed otherwise.
pub fn children_by_owner(
    parent: &DatasetName,
    node: &NodeName,
    output: &Output,
) -> Result<ChildrenByOwner, CommandError> {
    let text = match judge(output, WORDS) {
        Ok(text) => text,
        Err(error) if error.is_absent() => return Ok(ChildrenByOwner::default()),
        Err(error) => return Err(error),
    };
    let (prefix, mut children) = (format!("{parent}/"), ChildrenByOwner::default());
    for line in text.lines() {
        let [name, property, value, source] = line.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        let Some(name) = name
            .strip_prefix(&prefix)
            .filter(|name| !name.contains(['/', '@', '#']))
        else {
            continue;
        };
        match (property, value, source) {
            (NODE, value, "local") if value == node.as_str() => children.ours.push(name.to_owned()),
            (NODE, ..) => children.others.push(name.to_owned()),
            (STATE, "quarantined", "local") => children.quarantined.push(name.to_owned()),
            _ => {}
        }
    }
    // Only what is ours can be quarantined by us.
    children.quarantined.retain(|name| children.ours.contains(name));
    children.ours.retain(|name| !children.quarantined.contains(name));
    Ok(children)
}

/// Names right below `parent`, whosever they are, from what [`list`] printed.
///
/// # Errors
/// When it failed.
pub fn children(parent: &DatasetName, output: &Output) -> Result<Vec<String>, CommandError> {
    let (text, prefix) = (judge(output, WORDS)?, format!("{parent}/"));
    let name = |line: &str| Some(line.split('\t').next()?.strip_prefix(&prefix)?.to_owned());
    let mut names: Vec<String> = text.lines().filter_map(name).collect();
    names.retain(|name| !name.contains(['/', '@', '#']));
    names.dedup();
    Ok(names)
}

/// `zfs get` of how many bytes may still be written below a dataset.
#[must_use]
pub fn space(dataset: &DatasetName) -> Cmd {
    get(dataset, &["available"])
}

/// Reads what [`space`] printed; a volume has a number too, but not a snapshot.
///
/// # Errors
/// When it failed.
pub fn available(output: &Output) -> Result<Option<u64>, CommandError> {
    let text = judge(output, WORDS)?;
    let value = |line: &str| line.strip_prefix("available\t")?.split('\t').next()?.parse().ok();
    Ok(text.lines().find_map(value))
}

/// Judges a command that prints nothing.
///
/// # Errors
/// What its words mean.
pub fn done(output: &Output) -> Result<(), CommandError> {
    judge(output, WORDS).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::zone::command::failed;

    fn dataset(text: &str) -> DatasetName {
        text.parse().unwrap()
    }

    fn ours(text: &str) -> Owned<DatasetName> {
        Owned::assumed(dataset(text))
    }

    #[test]
    fn the_commands_are_what_the_plan_says() {
        let (node, attempt) = ("n1".parse().unwrap(), "01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap());
        let clone = clone(
            &"rpool/hci/images/debian/v3@gold".parse().unwrap(),
            &dataset("rpool/hci/machines/hci-01k9zk6x0f5t3b8w2q7m4d1c0e"),
            &node,
            attempt,
        );
        assert_eq!(
            clone.to_string(),
            "/sbin/zfs clone -o helios-ci:node=n1 -o helios-ci:attempt=01k9zk6x0f5t3b8w2q7m4d1c0e -o sync=disabled \
             rpool/hci/images/debian/v3@gold rpool/hci/machines/hci-01k9zk6x0f5t3b8w2q7m4d1c0e"
        );
        let grow = grow(&dataset("p/v"), VolumeSize::at_least(40 << 30));
        assert_eq!(grow.to_string(), "/sbin/zfs set volsize=42949672960 p/v");
        let volume = create_volume(&dataset("p/i/.new-v2"), &node, VolumeSize::at_least(1 << 30));
        assert_eq!(
            volume.to_string(),
            "/sbin/zfs create -s -V 1073741824 -b 16k -o compression=lz4 -o helios-ci:node=n1 p/i/.new-v2"
        );
        let gold = dataset("p/i/v2").snapshot("gold").unwrap();
        assert_eq!(hold(&gold).to_string(), "/sbin/zfs hold helios-ci p/i/v2@gold");
        assert_eq!(
            release(&Owned::assumed(gold)).to_string(),
            "/sbin/zfs release helios-ci p/i/v2@gold"
        );
        let renamed = rename(&ours("p/i/.new-v2"), &dataset("p/i/v2"));
        assert_eq!(renamed.to_string(), "/sbin/zfs rename p/i/.new-v2 p/i/v2");
        assert_eq!(destroy(&ours("p/v")).to_string(), "/sbin/zfs destroy p/v");
        assert_eq!(destroy_zonepath(&ours("p/z")).to_string(), "/sbin/zfs destroy -r p/z");
        assert_eq!(
            quarantine(&ours("p/v")).to_string(),
            "/sbin/zfs set helios-ci:state=quarantined p/v"
        );
    }

    #[test]
    fn words_become_meanings_and_unknown_ones_are_shown() {
        for (said, failure) in [
            ("cannot open 'p/v': dataset does not exist", Failure::Absent),
            ("cannot create 'p/v': dataset already exists", Failure::Exists),
            ("cannot destroy 'p/v': dataset is busy", Failure::Busy),
            (
                "cannot destroy 'p/v': volume has children\nuse '-r' to destroy …",
                Failure::Busy,
            ),
            (
                "cannot destroy snapshot p/v@s: dataset is busy\ncannot destroy 'p': dataset already exists",
                Failure::Busy,
            ),
            ("cannot create 'p/v': out of space", Failure::Full),
            ("cannot open 'p/v': the moon is full", Failure::Unknown),
        ] {
            let error = done(&failed(said)).unwrap_err();
            assert_eq!(error.failure, failure, "{said}");
            assert!(error.to_string().contains("cannot"), "{error}");
        }
    }

    #[test]
    fn golden_snapshots_are_found_in_order() {
        let mut output = failed("");
        output.code = Some(0);
        output.stdout = b"p/i/v9@gold\np/i/v10@gold\np/i/v11@half\np/i/.new-12@gold\np/i/vx@gold\n".to_vec();
        assert_eq!(versions(&dataset("p/i"), &output).unwrap(), [9, 10]);
        let absent = failed("cannot open 'p/i': dataset does not exist");
        assert!(versions(&dataset("p/i"), &absent).unwrap().is_empty());
    }

    #[test]
    fn what_lies_below_is_listed_by_its_own_mark() {
        let mut output = failed("");
        (output.code, output.stdout) = (
            Some(0),
            b"p/m\thelios-ci:node\tn1\tlocal\n\
            p/m/a\thelios-ci:node\tn1\tlocal\np/m/b\thelios-ci:node\tother\tlocal\n\
            p/m/c\thelios-ci:node\tn1\tinherited from p/m\n\
            p/m/d\thelios-ci:node\tn1\tlocal\np/m/d\thelios-ci:state\tquarantined\tlocal\n"
                .to_vec(),
        );
        let parent = dataset("p/m");
        let children = children_by_owner(&parent, &"n1".parse().unwrap(), &output).unwrap();
        assert_eq!(
            (children.ours, children.quarantined),
            (vec!["a".to_owned()], vec!["d".to_owned()])
        );
        assert_eq!(children.others, ["b", "c"]);
        let absent = failed("cannot open 'p/m': dataset does not exist");
        assert_eq!(
            super::children_by_owner(&parent, &"n1".parse().unwrap(), &absent).unwrap(),
            ChildrenByOwner::default()
        );
    }

    #[test]
    fn children_are_named_once_without_what_is_below_or_of_them() {
        let mut output = failed("");
        output.code = Some(0);
        output.stdout = b"p/i\thelios-ci:node\tn1\tlocal\np/i\thelios-ci:state\t-\t-\n\
            p/i/v1\thelios-ci:node\tn1\tlocal\np/i/v1\thelios-ci:state\t-\t-\n\
            p/i/v1@gold\thelios-ci:node\tn1\tinherited from p/i/v1\np/i/v2/x\thelios-ci:node\t-\t-\n\
            p/ix\thelios-ci:node\t-\t-\n"
            .to_vec();
        assert_eq!(children(&dataset("p/i"), &output).unwrap(), ["v1"]);
    }

    #[test]
    fn space_is_a_number_of_bytes() {
        let mut output = failed("");
        output.code = Some(0);
        for (said, bytes) in [
            ("available\t1234567890123\t-\n", Some(1_234_567_890_123)),
            ("available\t0\t-\n", Some(0)),
            ("available\t-\t-\n", None),
            ("", None),
        ] {
            output.stdout = said.as_bytes().to_vec();
            assert_eq!(available(&output).unwrap(), bytes, "{said:?}");
        }
    }

    #[test]
    fn only_local_owner_tags_prove_anything() {
        let mut output = failed("");
        output.code = Some(0);
        output.stdout = b"helios-ci:node\tn1\tlocal\nhelios-ci:attempt\tx\tinherited from p\norigin\tp/i@gold\t-\n\
            volsize\t1024\tlocal\nmounted\t-\t-\n"
            .to_vec();
        let seen = super::dataset(&dataset("p/v"), &output).unwrap().unwrap();
        assert_eq!(
            (seen.node.as_deref(), seen.attempt, seen.volsize),
            (Some("n1"), None, Some(1024))
        );
        assert_eq!((seen.origin.as_deref(), seen.mounted), (Some("p/i@gold"), false));
        let absent = failed("cannot open 'p/v': dataset does not exist");
        assert!(super::dataset(&dataset("p/v"), &absent).unwrap().is_none());
    }
}
