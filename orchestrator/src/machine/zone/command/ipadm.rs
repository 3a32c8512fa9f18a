//! ipadm(8): the host's address on a slot's VNIC, temporary like its link.

use std::time::Duration;

use ipnet::Ipv4Net;

use super::{CommandError, Failure, FieldError, fields, judge};
use crate::{
    exec::{Cmd, Output},
    machine::zone::owned::Owned,
    model::illumos::{names::LinkName, network::SlotNetwork},
};

const IPADM: &str = "/sbin/ipadm";
const DEADLINE: Duration = Duration::from_secs(30);

const WORDS: &[(&str, Failure)] = &[
    ("Address object already exists", Failure::Exists),
    ("Address already in use", Failure::Exists),
    ("Interface already exists", Failure::Exists),
    ("Object not found", Failure::Absent),
    ("Interface does not exist", Failure::Absent),
];

fn ipadm(verb: &str) -> Cmd {
    Cmd::new(IPADM).arg(verb).deadline(DEADLINE)
}

fn object(link: &LinkName) -> String {
    format!("{link}/v4")
}

/// `ipadm create-addr -t -T static -a H/30 LINK/v4`, which also makes the interface.
#[must_use]
pub fn create_address(network: &SlotNetwork) -> Cmd {
    ipadm("create-addr")
        .args(["-t", "-T", "static", "-a"])
        .arg(format!("{}/30", network.host_address))
        .arg(object(&network.host))
}

/// The host routes nothing from or to a guest.
#[must_use]
pub fn forward_nothing(link: &LinkName) -> Cmd {
    ipadm("set-ifprop")
        .args(["-t", "-p", "forwarding=off", "-m", "ipv4"])
        .arg(link)
}

/// `ipadm show-ifprop` of what [`forward_nothing`] set.
#[must_use]
pub fn show_forwarding(link: &LinkName) -> Cmd {
    ipadm("show-ifprop")
        .args(["-c", "-o", "current", "-p", "forwarding", "-m", "ipv4"])
        .arg(link)
}

/// Whether what [`show_forwarding`] printed is anything but `off`.
///
/// # Errors
/// When the command failed.
pub fn forwards(output: &Output) -> Result<bool, CommandError> {
    Ok(judge(output, WORDS)?.trim() != "off")
}

/// `ipadm show-addr` of one.
#[must_use]
pub fn show_address(link: &LinkName) -> Cmd {
    ipadm("show-addr")
        .args(["-p", "-o", "addrobj,state,addr"])
        .arg(object(link))
}

/// `ipadm show-addr` of all.
#[must_use]
pub fn show_addresses() -> Cmd {
    ipadm("show-addr").args(["-p", "-o", "addrobj,addr"])
}

/// The IPv4 addresses that [`show_addresses`] printed, with their objects. One that is not known yet (`?`), of
/// another family or of a tunnel is passed over.
///
/// # Errors
/// When the command failed.
pub fn addresses(output: &Output) -> Result<Vec<(String, Ipv4Net)>, CommandError> {
    let text = judge(output, WORDS)?;
    let address = |line: &str| {
        let (object, address) = line.split_once(':')?;
        Some((object.to_owned(), address.parse().ok()?))
    };
    Ok(text.lines().filter_map(address).collect())
}

/// Whether what [`show_address`] printed is the slot's address, usable.
///
/// # Errors
/// When a line has another shape; an absent address is just not usable.
pub fn is_usable(network: &SlotNetwork, output: &Output) -> Result<bool, FieldError> {
    let Ok(text) = judge(output, WORDS) else {
        return Ok(false);
    };
    for line in text.lines().filter(|line| !line.is_empty()) {
        let parts = fields(line, 3)?;
        if parts
            == [
                object(&network.host),
                "ok".to_owned(),
                format!("{}/30", network.host_address),
            ]
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `ipadm delete-addr LINK/v4`.
#[must_use]
pub fn delete_address(link: &Owned<LinkName>) -> Cmd {
    ipadm("delete-addr").arg(object(link))
}

/// `ipadm delete-if LINK`.
#[must_use]
pub fn delete_interface(link: &Owned<LinkName>) -> Cmd {
    ipadm("delete-if").arg(&**link)
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

    #[test]
    fn an_address_is_made_seen_and_removed() {
        let network = SlotNetwork::of(&"n1".parse().unwrap(), Range::default(), Slot::new(0).unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(
            create_address(&network).to_string(),
            "/sbin/ipadm create-addr -t -T static -a 10.77.0.1/30 hcih0/v4"
        );
        assert_eq!(
            forward_nothing(&network.host).to_string(),
            "/sbin/ipadm set-ifprop -t -p forwarding=off -m ipv4 hcih0"
        );
        assert_eq!(
            show_forwarding(&network.host).to_string(),
            "/sbin/ipadm show-ifprop -c -o current -p forwarding -m ipv4 hcih0"
        );
        let says = |text: &str| {
            let mut output = failed("");
            (output.code, output.stdout) = (Some(0), text.into());
            forwards(&output).unwrap()
        };
        assert!(!says("off\n") && says("on\n") && says(""));
        assert_eq!(
            delete_address(&Owned::assumed(network.host.clone())).to_string(),
            "/sbin/ipadm delete-addr hcih0/v4"
        );
        assert_eq!(
            delete_interface(&Owned::assumed(network.host.clone())).to_string(),
            "/sbin/ipadm delete-if hcih0"
        );
        let mut all = failed("");
        let printed =
            "lo0/v4:127.0.0.1/8\nlo0/v6:\\:\\:1/128\nnet0/dhcp:192.168.1.5/24\nnet1/d:?\ntun/a:10.0.0.1->10.0.0.2\n";
        (all.code, all.stdout) = (Some(0), printed.into());
        let all = addresses(&all).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1], ("net0/dhcp".to_owned(), "192.168.1.5/24".parse().unwrap()));
        let mut output = failed("");
        (output.code, output.stdout) = (Some(0), b"hcih0/v4:ok:10.77.0.1/30\n".to_vec());
        assert!(is_usable(&network, &output).unwrap());
        output.stdout = b"hcih0/v4:tentative:10.77.0.1/30\n".to_vec();
        assert!(!is_usable(&network, &output).unwrap());
        assert!(!is_usable(&network, &failed("ipadm: cannot get address: Object not found")).unwrap());
        let gone = done(&failed("ipadm: could not delete address: Object not found")).unwrap_err();
        assert!(gone.is_absent());
    }
}
