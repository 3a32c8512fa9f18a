//! zfs(8). Its words are `cannot VERB 'NAME': REASON`.

use std::time::Duration;

use super::{CommandError, Failure, judge};
use crate::{
    exec::{Cmd, Output},
    model::{
        ids::AttemptId,
        illumos::names::{DatasetName, SnapshotName, VolumeSize},
        names::NodeName,
    },
};

const ZFS: &str = "/sbin/zfs";
/// Long only when a pool is in trouble.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whose a dataset is, as a *local* property: children inherit it and prove nothing.
pub const NODE: &str = "helios-ci:node";
/// For which attempt it was made.
pub const ATTEMPT: &str = "helios-ci:attempt";
/// `quarantined`, when it could not be destroyed.
pub const STATE: &str = "helios-ci:state";

/// The most specific words first: a busy snapshot says more than one thing.
const WORDS: &[(&str, Failure)] = &[
    ("dataset does not exist", Failure::Absent),
    ("could not find any snapshots to destroy", Failure::Absent),
    ("no such tag on this dataset", Failure::Absent),
    ("dataset already exists", Failure::Exists),
    ("tag already exists on this dataset", Failure::Exists),
    ("dataset is busy", Failure::Busy),
    ("it's being held", Failure::Busy),
    ("has dependent clones", Failure::Busy),
    ("has children", Failure::Busy),
    ("snapshot is cloned", Failure::Busy),
    ("pool I/O is currently suspended", Failure::Busy),
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

/// `zfs create` of a zone's own filesystem, before `zoneadm install` would make one without our marks.
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
pub fn destroy(dataset: &DatasetName) -> Cmd {
    zfs("destroy").arg(dataset)
}

/// `zfs destroy -r` of a zone's own filesystem: never of anything else.
#[must_use]
pub fn destroy_zonepath(dataset: &DatasetName) -> Cmd {
    zfs("destroy").arg("-r").arg(dataset)
}

/// `zfs set helios-ci:state=quarantined`: what could not be destroyed is nobody's any more.
#[must_use]
pub fn quarantine(dataset: &DatasetName) -> Cmd {
    zfs("set").arg(format!("{STATE}=quarantined")).arg(dataset)
}

/// What of a dataset is asked for by [`look`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: DatasetName,
    /// Its *local* mark of a node.
    pub node: Option<String>,
    /// Its *local* mark of an attempt.
    pub attempt: Option<String>,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
    /// Size of a volume, in bytes.
    pub volsize: Option<u64>,
    /// Whether a filesystem is mounted.
    pub mounted: bool,
}

/// `zfs get` of all that proves what a dataset is; user properties count where they are local.
#[must_use]
pub fn look(dataset: &DatasetName) -> Cmd {
    zfs("get")
        .args(["-Hp", "-o", "property,value,source"])
        .arg(format!("{NODE},{ATTEMPT},origin,volsize,mounted"))
        .arg(dataset)
}

/// Reads what [`look`] printed. `None` when there is no such dataset.
///
/// # Errors
/// When the command failed otherwise.
pub fn seen(dataset: &DatasetName, output: &Output) -> Result<Option<Seen>, CommandError> {
    let text = match judge(output, WORDS) {
        Ok(text) => text,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut seen = Seen {
        name: dataset.clone(),
        node: None,
        attempt: None,
        origin: None,
        volsize: None,
        mounted: false,
    };
    for line in text.lines() {
        let mut parts = line.split('\t');
        let (Some(property), Some(value), Some(source)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let set = (value != "-").then(|| value.to_owned());
        match property {
            NODE if source == "local" => seen.node = set,
            ATTEMPT if source == "local" => seen.attempt = set,
            "origin" => seen.origin = set,
            "volsize" => seen.volsize = value.parse().ok(),
            "mounted" => seen.mounted = value == "yes",
            _ => {}
        }
    }
    Ok(Some(seen))
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
        assert_eq!(destroy(&dataset("p/v")).to_string(), "/sbin/zfs destroy p/v");
        assert_eq!(
            destroy_zonepath(&dataset("p/z")).to_string(),
            "/sbin/zfs destroy -r p/z"
        );
        assert_eq!(
            quarantine(&dataset("p/v")).to_string(),
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
            ("cannot create 'p/v': out of space", Failure::Full),
            ("cannot open 'p/v': the moon is full", Failure::Unknown),
        ] {
            let error = done(&failed(said)).unwrap_err();
            assert_eq!(error.failure, failure, "{said}");
            assert!(error.to_string().contains("cannot"), "{error}");
        }
    }

    #[test]
    fn only_local_marks_prove_anything() {
        let mut output = failed("");
        output.code = Some(0);
        output.stdout = b"helios-ci:node\tn1\tlocal\nhelios-ci:attempt\tx\tinherited from p\norigin\tp/i@gold\t-\n\
            volsize\t1024\tlocal\nmounted\t-\t-\n"
            .to_vec();
        let seen = seen(&dataset("p/v"), &output).unwrap().unwrap();
        assert_eq!(
            (seen.node.as_deref(), seen.attempt, seen.volsize),
            (Some("n1"), None, Some(1024))
        );
        assert_eq!((seen.origin.as_deref(), seen.mounted), (Some("p/i@gold"), false));
        let absent = failed("cannot open 'p/v': dataset does not exist");
        assert!(super::seen(&dataset("p/v"), &absent).unwrap().is_none());
    }
}
