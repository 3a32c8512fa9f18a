//! dladm(8): etherstubs, VNICs and their properties, all temporary (`-t`): gone after a reboot of the host.

use std::{collections::BTreeSet, time::Duration};

use super::{CommandError, Failure, FieldError, fields, judge};
use crate::{
    exec::{Cmd, Output},
    machine::zone::owned::Owned,
    model::illumos::{
        names::{Bandwidth, LinkName},
        network::{MacAddress, SlotNetwork},
    },
};

const DLADM: &str = "/sbin/dladm";
const DEADLINE: Duration = Duration::from_secs(30);
/// What an etherstub's 9000 bytes would be without being told.
const MTU: &str = "mtu=1500";
/// No foreign MAC, no foreign address, no frames but IP and ARP, no foreign DHCP.
const PROTECTION: &str = "mac-nospoof,restricted,ip-nospoof,dhcp-nospoof";

const WORDS: &[(&str, Failure)] = &[
    ("object already exists", Failure::Exists),
    ("object not found", Failure::Absent),
    ("invalid link name", Failure::Absent),
    ("link busy", Failure::Busy),
];

fn dladm(verb: &str) -> Cmd {
    Cmd::new(DLADM).arg(verb).deadline(DEADLINE)
}

/// `dladm create-etherstub -t`.
#[must_use]
pub fn create_stub(stub: &LinkName) -> Cmd {
    dladm("create-etherstub").arg("-t").arg(stub)
}

/// `dladm create-vnic -t -l STUB -m MAC`.
#[must_use]
pub fn create_vnic(stub: &LinkName, mac: MacAddress, vnic: &LinkName) -> Cmd {
    dladm("create-vnic")
        .args(["-t", "-l"])
        .arg(stub)
        .arg("-m")
        .arg(mac.to_string())
        .arg(vnic)
}

/// The host's VNIC: an ordinary MTU.
#[must_use]
pub fn set_host(network: &SlotNetwork) -> Cmd {
    dladm("set-linkprop").args(["-t", "-p", MTU]).arg(&network.host)
}

/// The guest's VNIC: what it may send. zoneadmd clears this at every halt, so it is set and read back before
/// every boot. dladm goes on after a property that it refuses, with a warning, and exits with the status of the last:
/// only the reading proves any of them.
#[must_use]
pub fn protect(network: &SlotNetwork, bandwidth: &Bandwidth) -> Cmd {
    let properties = [
        MTU.to_owned(),
        format!("maxbw={bandwidth}"),
        format!("protection={PROTECTION}"),
        format!("allowed-ips={}/32", network.guest_address),
    ];
    let options = properties.iter().flat_map(|property| ["-p", property.as_str()]);
    dladm("set-linkprop").arg("-t").args(options).arg(&network.guest)
}

/// `dladm show-linkprop` of what [`protect`] set.
#[must_use]
pub fn show_protection(vnic: &LinkName) -> Cmd {
    dladm("show-linkprop")
        .args(["-c", "-o", "property,value", "-p", "protection,allowed-ips,mtu,maxbw"])
        .arg(vnic)
}

/// Thousands of bits a second in what dladm prints of a rate: Mbit/s, perhaps with three decimals, padded with blanks
/// (`dladm_bw2str` in illumos's libdladm): `  500`, `    1.200`, `0.431`.
fn kilobits(printed: &str) -> Option<u64> {
    let (whole, part) = printed.trim().split_once('.').unwrap_or((printed.trim(), "000"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits(whole) && digits(part) && part.len() == 3;
    let (whole, part) = (whole.parse::<u64>().ok()?, part.parse::<u64>().ok()?);
    plain.then(|| whole.checked_mul(1000)?.checked_add(part))?
}

/// Whether what [`show_protection`] printed is exactly what [`protect`] meant; lists in any order. The rate is compared
/// where one is given: that of a machine that runs may be of an earlier configuration.
///
/// # Errors
/// When the command failed, or a line has another shape.
pub fn is_protected(network: &SlotNetwork, bandwidth: Option<&Bandwidth>, output: &Output) -> Result<bool, ShowError> {
    let text = judge(output, WORDS)?;
    let mut found = [false, false, false, bandwidth.is_none()];
    for line in text.lines().filter(|line| !line.is_empty()) {
        let parts = fields(line, 2)?;
        let set = |value: &str| {
            let mut words: Vec<String> = value.split(',').map(str::to_owned).collect();
            words.sort();
            words
        };
        let (index, wanted) = match parts[0].as_str() {
            "protection" => (0, PROTECTION.to_owned()),
            "allowed-ips" => (1, format!("{}/32", network.guest_address)),
            "mtu" => (2, "1500".to_owned()),
            "maxbw" => {
                found[3] |= kilobits(&parts[1]) == bandwidth.map(Bandwidth::kilobits);
                continue;
            }
            _ => continue,
        };
        found[index] = set(&parts[1]) == set(&wanted);
    }
    Ok(found == [true; 4])
}

/// `dladm show-linkprop` of what [`set_host`] set.
#[must_use]
pub fn show_mtu(vnic: &LinkName) -> Cmd {
    dladm("show-linkprop")
        .args(["-c", "-o", "property,value", "-p", "mtu"])
        .arg(vnic)
}

/// Whether what [`show_mtu`] printed is what [`set_host`] meant.
///
/// # Errors
/// When the command failed, or a line has another shape.
pub fn is_ordinary(output: &Output) -> Result<bool, ShowError> {
    let text = judge(output, WORDS)?;
    let line = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
    Ok(fields(line, 2)?.join("=") == MTU)
}

/// Output that could not be had or read.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It printed something else.
    #[error(transparent)]
    Fields(#[from] FieldError),
}

/// A VNIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vnic {
    /// Its name.
    pub link: String,
    /// What it is on.
    pub over: String,
    /// Its address; none when dladm prints something else.
    pub mac: Option<MacAddress>,
}

/// `dladm show-link` of all.
#[must_use]
pub fn show_links() -> Cmd {
    dladm("show-link").args(["-p", "-o", "link"])
}

/// Names of links of every class, as [`show_links`] printed them.
///
/// # Errors
/// When the command failed.
pub fn links(output: &Output) -> Result<BTreeSet<String>, CommandError> {
    let text = judge(output, WORDS)?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// `dladm show-vnic` of all.
#[must_use]
pub fn show_vnics() -> Cmd {
    dladm("show-vnic").args(["-p", "-o", "link,over,macaddress"])
}

/// Reads what [`show_vnics`] printed.
///
/// # Errors
/// When the command failed, or a line has another shape.
pub fn vnics(output: &Output) -> Result<Vec<Vnic>, ShowError> {
    let text = judge(output, WORDS)?;
    let lines = text.lines().filter(|line| !line.is_empty());
    let mut vnics = Vec::new();
    for line in lines {
        let mut parts = fields(line, 3)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        vnics.push(Vnic {
            link: next(),
            over: next(),
            mac: MacAddress::parse(&next()),
        });
    }
    Ok(vnics)
}

/// `dladm delete-vnic -t`.
#[must_use]
pub fn delete_vnic(vnic: &Owned<LinkName>) -> Cmd {
    dladm("delete-vnic").arg("-t").arg(&**vnic)
}

/// `dladm delete-etherstub -t`.
#[must_use]
pub fn delete_stub(stub: &Owned<LinkName>) -> Cmd {
    dladm("delete-etherstub").arg("-t").arg(&**stub)
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
    use crate::{
        machine::zone::command::failed,
        model::illumos::network::{Range, Slot},
    };

    fn network() -> SlotNetwork {
        SlotNetwork::of(&"n1".parse().unwrap(), Range::default(), Slot::new(7).unwrap())
            .unwrap()
            .unwrap()
    }

    fn printed(text: &str) -> Output {
        Output {
            code: Some(0),
            stdout: text.as_bytes().to_vec(),
            ..failed("")
        }
    }

    #[test]
    fn the_commands_are_what_the_plan_says() {
        let network = network();
        assert_eq!(
            create_stub(&network.stub).to_string(),
            "/sbin/dladm create-etherstub -t hcis7"
        );
        assert_eq!(show_links().to_string(), "/sbin/dladm show-link -p -o link");
        let vnic = create_vnic(&network.stub, network.guest_mac, &network.guest).to_string();
        assert_eq!(
            vnic,
            format!("/sbin/dladm create-vnic -t -l hcis7 -m {} hciv7", network.guest_mac)
        );
        assert_eq!(
            set_host(&network).to_string(),
            "/sbin/dladm set-linkprop -t -p mtu=1500 hcih7"
        );
        assert_eq!(
            protect(&network, &"500M".parse().unwrap()).to_string(),
            "/sbin/dladm set-linkprop -t -p mtu=1500 -p maxbw=500M \
             -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof -p allowed-ips=10.77.0.30/32 hciv7"
        );
    }

    #[test]
    fn protection_is_what_is_read_back() {
        let network = network();
        let good = "protection:dhcp-nospoof,ip-nospoof,mac-nospoof,restricted\nallowed-ips:10.77.0.30/32\nmtu:1500\nmaxbw:  500\n";
        let is_protected = |text: &Output| is_protected(&network, Some(&"500M".parse().unwrap()), text);
        assert!(is_protected(&printed(good)).unwrap());
        for bad in [
            "",
            "protection:--\nallowed-ips:--\nmtu:1500\nmaxbw:--\n",
            // What a refused rate leaves behind an exit status of 0.
            &good.replace("maxbw:  500", "maxbw:--"),
            &good.replace("maxbw:  500\n", ""),
            &good.replace("500\n", "500.001\n"),
            &good.replace("mtu:1500", "mtu:9000"),
            &good.replace(",restricted", ""),
            &good.replace("10.77.0.30/32", "10.77.0.30/32,10.0.0.1/32"),
        ] {
            assert!(!is_protected(&printed(bad)).unwrap(), "{bad}");
        }
        let unlimited = good.replace("maxbw:  500", "maxbw:--");
        assert!(super::is_protected(&network, None, &printed(&unlimited)).unwrap());
        assert!(is_protected(&printed("protection")).is_err());
        assert!(is_protected(&failed("dladm: link x is not valid: object not found")).is_err());
    }

    #[test]
    fn a_rate_is_read_as_it_is_printed() {
        for (printed, wanted) in [
            ("  500", Some(500_000)),
            ("    1.200", Some(1200)),
            ("0.431", Some(431)),
            ("10000", Some(10_000_000)),
            ("    0", Some(0)),
            ("--", None),
            ("", None),
            ("1.2", None),
            ("+1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(kilobits(printed), wanted, "{printed}");
        }
    }

    #[test]
    fn vnics_are_read_with_their_unpadded_addresses() {
        let found = vnics(&printed("hciv7:hcis7:2\\:8\\:20\\:0\\:2a\\:2\nnet0:ixgbe0:\n")).unwrap();
        assert_eq!(found[0].mac.unwrap().to_string(), "02:08:20:00:2a:02");
        assert_eq!((found[1].link.as_str(), found[1].mac), ("net0", None));
    }

    #[test]
    fn words_become_meanings() {
        for (said, failure) in [
            (
                "dladm: etherstub creation failed: object already exists",
                Failure::Exists,
            ),
            ("dladm: invalid link name 'hcis7'", Failure::Absent),
            ("dladm: invalid vnic name 'x': object not found", Failure::Absent),
            ("dladm: vnic deletion failed: link busy", Failure::Busy),
            ("dladm: 'x' is not a vnic", Failure::Unknown),
        ] {
            assert_eq!(done(&failed(said)).unwrap_err().failure, failure, "{said}");
        }
    }
}
