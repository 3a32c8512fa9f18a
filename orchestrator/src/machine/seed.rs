//! What a machine reads at its first boot: a NoCloud `cidata` volume with the agent on it, or, for
//! machines without a disk, a directory with the same `helios.json`. Every text is written by a
//! serialiser, so no value can become syntax.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Write},
    net::Ipv4Addr,
    path::Path,
};

use serde::Serialize;

use super::MachineSpec;
use crate::{files, model::illumos::network::MacAddress};

/// The largest agent that is put on a seed disk; the image is made in memory.
const AGENT_LIMIT: u64 = 512 << 20;

/// The job's own directory in a guest; the agent makes it.
pub const GUEST_HOME: &str = "/helios";
/// Where a guest's agent keeps what it must not lose.
pub const GUEST_STATE: &str = "/var/lib/helios-agent";

/// How the machine reaches its node, as seen from inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The agent's: `tcp:10.0.2.100:9417` or `unix:/path/agent.sock`.
    pub agent: String,
    /// Git's host and port.
    pub git: String,
    /// Where the agent keeps what it must not lose.
    pub state_dir: String,
    /// Whether the agent powers the machine off when it is told to end.
    pub power_off: bool,
    /// The machine's own address, where nobody gives it one: there is no DHCP on a stub.
    pub network: Option<StaticNetwork>,
}

/// A machine's one link, in a network of two addresses without a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticNetwork {
    /// By which the link is known.
    pub mac: MacAddress,
    /// Its address in a `/30`.
    pub address: Ipv4Addr,
}

/// cloud-init's network-config, version 2.
#[derive(Serialize)]
struct NetworkConfig {
    version: u32,
    ethernets: BTreeMap<&'static str, Ethernet>,
}

#[derive(Serialize)]
struct Ethernet {
    #[serde(rename = "match")]
    link: Match,
    dhcp4: bool,
    dhcp6: bool,
    #[serde(rename = "link-local")]
    link_local: Vec<String>,
    mtu: u32,
    addresses: Vec<String>,
}

#[derive(Serialize)]
struct Match {
    macaddress: String,
}

/// `helios.json`: all that the agent reads before it dials.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    attempt: String,
    agent: &'a str,
    git: &'a str,
    fingerprint: &'a str,
    token: &'a str,
    time_ms: i64,
    state_dir: &'a str,
    power_off: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData<'a> {
    instance_id: &'a str,
    local_hostname: &'a str,
}

/// What cloud-init does in a stock image: start the agent from the mounted seed, as a unit of its
/// own so that it outlives cloud-init.
#[derive(Serialize)]
struct UserData {
    ssh_pwauth: bool,
    runcmd: Vec<Vec<&'static str>>,
}

fn document(spec: &MachineSpec, addresses: &Addresses) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Document {
        version: 1,
        attempt: spec.name.attempt().to_string(),
        agent: &addresses.agent,
        git: &addresses.git,
        fingerprint: &spec.seed.fingerprint,
        token: spec.seed.token.expose(),
        time_ms: spec.seed.time_ms,
        state_dir: &addresses.state_dir,
        power_off: addresses.power_off,
    })?)
}

fn meta_data(spec: &MachineSpec) -> io::Result<String> {
    let name = spec.name.as_str();
    serde_yaml_ng::to_string(&MetaData {
        instance_id: name,
        local_hostname: name,
    })
    .map_err(io::Error::other)
}

fn network_config(network: &StaticNetwork) -> io::Result<String> {
    let ethernet = Ethernet {
        link: Match {
            macaddress: network.mac.to_string(),
        },
        dhcp4: false,
        dhcp6: false,
        link_local: Vec::new(),
        mtu: 1500,
        addresses: vec![format!("{}/30", network.address)],
    };
    let config = NetworkConfig {
        version: 2,
        ethernets: BTreeMap::from([("job", ethernet)]),
    };
    serde_yaml_ng::to_string(&config).map_err(io::Error::other)
}

/// Every text of the seed but `helios.json`, which holds the join token; that one with the token left out.
///
/// # Errors
/// When a text cannot be written, which no value of ours brings about.
pub fn texts(spec: &MachineSpec, addresses: &Addresses) -> io::Result<Vec<(&'static str, String)>> {
    let mut shown: serde_json::Value = serde_json::from_slice(&document(spec, addresses)?)?;
    shown["token"] = "[secret]".into();
    let mut texts = vec![
        ("meta-data", meta_data(spec)?),
        ("user-data", user_data()?),
        ("helios.json", serde_json::to_string_pretty(&shown)?),
    ];
    if let Some(network) = &addresses.network {
        texts.push(("network-config", network_config(network)?));
    }
    Ok(texts)
}

fn user_data() -> io::Result<String> {
    const MOUNT: &str = "/run/helios-seed";
    // Not below /run, which Debian mounts noexec.
    const AGENT: &str = "/usr/local/sbin/helios-agent";
    let runcmd = vec![
        vec!["mkdir", "-p", "-m", "0700", MOUNT],
        vec![
            "mount",
            "-t",
            "vfat",
            "-o",
            "ro,umask=0077",
            "/dev/disk/by-label/cidata",
            MOUNT,
        ],
        vec!["install", "-D", "-m", "0755", "/run/helios-seed/agent", AGENT],
        vec![
            "systemd-run",
            "--unit=helios-agent",
            "--property=Delegate=yes",
            "--property=SuccessAction=poweroff-force",
            "--property=FailureAction=poweroff-force",
            AGENT,
            "--seed",
            MOUNT,
        ],
    ];
    let data = UserData {
        ssh_pwauth: false,
        runcmd,
    };
    Ok(format!(
        "#cloud-config\n{}",
        serde_yaml_ng::to_string(&data).map_err(io::Error::other)?
    ))
}

/// Writes `helios.json` into a directory, for an agent on this host.
///
/// # Errors
/// As the file system's.
pub fn write_directory(dir: &Path, spec: &MachineSpec, addresses: &Addresses) -> io::Result<()> {
    files::private_dir(dir)?;
    files::write_volatile(&dir.join("helios.json"), &document(spec, addresses)?)
}

/// Writes the seed disk: a FAT image with the label `cidata`, readable by its owner only.
///
/// # Errors
/// When the agent cannot be read or is larger than 512 MiB, and as the file system's.
pub fn write_image(path: &Path, spec: &MachineSpec, addresses: &Addresses, agent: &Path) -> io::Result<()> {
    files::write_volatile(path, &image_bytes(spec, addresses, agent)?)
}

/// The bytes of the seed disk.
///
/// # Errors
/// When the agent cannot be read or is larger than 512 MiB.
pub fn image_bytes(spec: &MachineSpec, addresses: &Addresses, agent: &Path) -> io::Result<Vec<u8>> {
    let agent = files::read_bounded(agent, AGENT_LIMIT)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no agent at {}", agent.display())))?;
    let (meta, user, document) = (meta_data(spec)?, user_data()?, document(spec, addresses)?);
    let network = addresses.network.as_ref().map(network_config).transpose()?;
    let mut contents: Vec<(&str, &[u8])> = vec![
        ("meta-data", meta.as_bytes()),
        ("user-data", user.as_bytes()),
        ("helios.json", &document),
        ("agent", &agent),
    ];
    contents.extend(network.as_ref().map(|text| ("network-config", text.as_bytes())));
    image(&contents)
}

/// A disk with these files.
pub(crate) fn image(contents: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    const MIB: usize = 1 << 20;
    let total: usize = contents.iter().map(|(_, bytes)| bytes.len()).sum();
    // Tables take under 2 %, and each file wastes part of one cluster.
    let size = (total + total / 32 + 2 * MIB).next_multiple_of(MIB);
    let mut disk = Cursor::new(vec![0; size]);
    let options = fatfs::FormatVolumeOptions::new()
        .volume_label(*b"cidata     ")
        .volume_id(0x4849_4349);
    fatfs::format_volume(&mut disk, options)?;
    let volume = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new())?;
    for (name, bytes) in contents {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(bytes)?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::PermissionsExt};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        machine::Seed,
        model::{ids::AttemptId, names::MachineName},
        secret::Secret,
    };

    fn spec(token: &str) -> MachineSpec {
        MachineSpec {
            name: MachineName::of(AttemptId::new()),
            node: "n1".parse().unwrap(),
            image: "tiny".parse().unwrap(),
            cpus: 1,
            memory_mib: 512,
            disk_gib: None,
            seed: Seed {
                fingerprint: "ab".repeat(32),
                token: Secret::new(token),
                time_ms: 7,
            },
        }
    }

    fn addresses() -> Addresses {
        Addresses {
            agent: "tcp:10.0.2.100:9417".into(),
            git: "10.0.2.100:9418".into(),
            state_dir: "/var/lib/helios-agent".into(),
            power_off: true,
            network: None,
        }
    }

    fn read(image: &Path, name: &str) -> Vec<u8> {
        let volume = fatfs::FileSystem::new(
            std::fs::File::options().read(true).write(true).open(image).unwrap(),
            fatfs::FsOptions::new(),
        )
        .unwrap();
        assert_eq!(volume.volume_label(), "cidata");
        assert_eq!(
            volume.read_volume_label_from_root_dir().unwrap().as_deref(),
            Some("cidata")
        );
        let mut bytes = Vec::new();
        volume
            .root_dir()
            .open_file(name)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn the_texts_are_what_their_readers_parse() {
        let dir = tempfile::tempdir().unwrap();
        let (image, agent) = (dir.path().join("seed.img"), dir.path().join("bin"));
        std::fs::write(&agent, b"\x7fELF").unwrap();
        let spec = spec("t: [\"\n#");
        write_image(&image, &spec, &addresses(), &agent).unwrap();
        assert_eq!(std::fs::metadata(&image).unwrap().permissions().mode() & 0o777, 0o600);
        let json: serde_json::Value = serde_json::from_slice(&read(&image, "helios.json")).unwrap();
        assert_eq!(json["token"], "t: [\"\n#");
        assert_eq!(json["attempt"], spec.name.attempt().to_string());
        assert_eq!(json["power_off"], true);
        let meta: serde_yaml_ng::Value = serde_yaml_ng::from_slice(&read(&image, "meta-data")).unwrap();
        assert_eq!(meta["local-hostname"], spec.name.as_str());
        let user = String::from_utf8(read(&image, "user-data")).unwrap();
        assert!(user.starts_with("#cloud-config\n"), "{user}");
        let user: serde_yaml_ng::Value = serde_yaml_ng::from_str(&user).unwrap();
        assert!(
            user["runcmd"]
                .as_sequence()
                .unwrap()
                .iter()
                .all(serde_yaml_ng::Value::is_sequence)
        );
        write_directory(&dir.path().join("seed"), &spec, &addresses()).unwrap();
        assert_eq!(
            std::fs::read(dir.path().join("seed/helios.json")).unwrap(),
            read(&image, "helios.json")
        );
    }

    #[test]
    fn a_static_address_is_told_by_the_padded_mac() {
        let dir = tempfile::tempdir().unwrap();
        let (image, agent) = (dir.path().join("seed.img"), dir.path().join("bin"));
        std::fs::write(&agent, b"x").unwrap();
        let network = StaticNetwork {
            mac: MacAddress::parse("2:8:20:0:2a:2").unwrap(),
            address: "10.77.0.2".parse().unwrap(),
        };
        let addresses = Addresses {
            network: Some(network),
            ..addresses()
        };
        write_image(&image, &spec("secret-token"), &addresses, &agent).unwrap();
        let text = String::from_utf8(read(&image, "network-config")).unwrap();
        let config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
        let job = &config["ethernets"]["job"];
        assert_eq!(config["version"], 2);
        assert_eq!(job["match"]["macaddress"], "02:08:20:00:2a:02");
        assert_eq!(job["addresses"][0], "10.77.0.2/30");
        assert!(job["gateway4"].is_null() && job["dhcp4"] == false);
        let texts = texts(&spec("secret-token"), &addresses).unwrap();
        assert_eq!(texts.len(), 4);
        assert!(!format!("{texts:?}").contains("secret-token"));
    }

    #[test]
    fn a_missing_agent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no-agent");
        let error = write_image(&dir.path().join("s"), &spec("t"), &addresses(), &missing).unwrap_err();
        assert!(error.to_string().contains("no-agent"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_goes_in_is_read_back(size in 0usize..6_000_000, byte in 1u8.., token in "\\PC{0,60}") {
            let dir = tempfile::tempdir().unwrap();
            let (image, agent) = (dir.path().join("seed.img"), dir.path().join("agent"));
            std::fs::write(&agent, vec![byte; size]).unwrap();
            write_image(&image, &spec(&token), &addresses(), &agent).unwrap();
            prop_assert_eq!(read(&image, "agent"), vec![byte; size]);
            let json: serde_json::Value = serde_json::from_slice(&read(&image, "helios.json")).unwrap();
            prop_assert_eq!(json["token"].as_str().unwrap(), token);
        }
    }
}
