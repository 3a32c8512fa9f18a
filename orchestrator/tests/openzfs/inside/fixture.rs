//! A tree of datasets for each test, and what tests ask of ZFS beyond our own vocabulary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use helios_ci::{
    config::Zone,
    exec::{Cmd, Output},
    machine::{
        MachineSpec, Seed,
        zone::{TimeoutScale, command::CommandError, golden::Golden, host::Host, owned::Owned, setup},
    },
    model::{
        ids::AttemptId,
        illumos::{names::DatasetName, network::Range},
        names::{Label, MachineName, NodeName},
    },
    secret::Secret,
};
use sha2::{Digest, Sha256};

use super::links;

/// Runs `zfs` or `zpool` as a person would; what it said on both outputs, and whether it succeeded.
pub fn tool(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// A `zfs` that must succeed.
pub fn zfs(args: &[&str]) -> String {
    let (done, said) = tool("/sbin/zfs", args);
    assert!(done, "zfs {args:?}: {said}");
    said.trim_end().to_owned()
}

/// One property as ZFS has it.
pub fn property(dataset: &impl std::fmt::Display, name: &str) -> String {
    zfs(&["get", "-Hp", "-o", "value", name, &dataset.to_string()])
}

/// Runs a command of ours.
pub fn ran(command: Cmd) -> Output {
    command.run_blocking().expect("a command")
}

/// Runs a command of ours that prints nothing.
pub fn done(command: Cmd) -> Result<(), CommandError> {
    helios_ci::machine::zone::command::zfs::done(&ran(command))
}

pub fn node() -> NodeName {
    "n1".parse().expect("a node")
}

pub fn label() -> Label {
    "debian".parse().expect("a label")
}

/// For commands whose words are asked for.
pub fn ours<T: Clone>(thing: &T) -> Owned<T> {
    Owned::assumed(thing.clone())
}

pub fn host() -> Host {
    Host {
        node: node().to_string(),
        timeout_scale: TimeoutScale::default(),
    }
}

pub fn zone(root: &str) -> Zone {
    Zone {
        dataset: root.parse().expect("a dataset"),
        path: format!("/zones/{}", root.replace('/', "-")).parse().expect("a path"),
        network: Range::default(),
        port: 9417,
        bandwidth: "1G".parse().expect("a bandwidth"),
        quota_gib: None,
        max_vcpus: 32,
    }
}

pub fn spec(disk_gib: Option<u64>) -> MachineSpec {
    MachineSpec {
        name: MachineName::of(AttemptId::new()),
        node: node(),
        image: label(),
        cpus: 1,
        memory_mib: 512,
        disk_gib,
        seed: Seed {
            fingerprint: "ab".repeat(32),
            token: Secret::new("t"),
            time_ms: 0,
        },
    }
}

/// A tree that setup made.
pub struct Tree {
    pub root: DatasetName,
}

/// The acts of setup that are ZFS's: there is neither ipadm nor ipfilter here.
pub fn zfs_acts(zone: &Zone) -> Vec<setup::Act> {
    setup::missing_datasets(&node(), zone).expect("a look")
}

impl Tree {
    /// Below the large pool.
    pub fn new(name: &str) -> Self {
        Self::at(&format!("rpool/{name}"), |_| true)
    }

    /// Below the small one, where there is no room for what setup sets aside.
    pub fn small() -> Self {
        Self::at("small/hci", |act| !act.ends_with("/state"))
    }

    fn at(root: &str, wanted: impl Fn(&str) -> bool) -> Self {
        static POOLS: Once = Once::new();
        POOLS.call_once(|| {
            for (pool, disk) in [("rpool", "/dev/vda1"), ("small", "/dev/vdb1")] {
                let made = ["create", "-o", "ashift=12", "-m", "none", pool, disk];
                let (done, said) = tool("/sbin/zpool", &made);
                assert!(done, "{said}");
            }
        });
        links::keep();
        for act in zfs_acts(&zone(root)) {
            if !wanted(&act.to_string()) {
                continue;
            }
            setup::perform(&act).unwrap_or_else(|error| panic!("{act}: {error}"));
        }
        Self {
            root: root.parse().expect("a dataset"),
        }
    }

    pub fn golden(&self) -> Golden {
        Golden {
            node: node(),
            root: self.root.clone(),
        }
    }

    pub fn below(&self, path: &str) -> DatasetName {
        format!("{}/{path}", self.root).parse().expect("a dataset")
    }

    /// Imports a disk that must be taken; its version.
    pub fn import(&self, content: &[u8]) -> u32 {
        let (file, sha256) = disk(content);
        let imported = self.golden().import(&file, &label(), &sha256);
        links::renew();
        imported.unwrap_or_else(|error| panic!("{error}: {error:?}")).number
    }

    /// The versions that are in use.
    pub fn versions(&self) -> Vec<u32> {
        let versions = self.golden().versions(&label()).expect("versions");
        versions.iter().map(|version| version.number).collect()
    }

    /// All that is below the image, in order.
    pub fn children(&self) -> Vec<String> {
        let image = self.below("images/debian").to_string();
        let names = zfs(&["list", "-H", "-r", "-t", "all", "-o", "name", &image]);
        let mut names: Vec<String> = names
            .lines()
            .filter_map(|n| Some(n.strip_prefix(&image)?.trim_start_matches('/').to_owned()))
            .collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names
    }
}

/// A file with these bytes, and their digest.
pub fn disk(content: &[u8]) -> (PathBuf, String) {
    let file = Path::new("/tmp/disk").to_owned();
    fs::write(&file, content).expect("a disk");
    (file, hex::encode(Sha256::digest(content)))
}

/// Bytes that do not compress, always the same for a seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let (mut state, mut noise) = (seed.wrapping_mul(2).wrapping_add(1), Vec::with_capacity(bytes + 8));
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
