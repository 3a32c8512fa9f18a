//! What looks like ours and is not, laid out before the others begin.

use helios_ci::model::{ids::AttemptId, names::MachineName};

use super::bed::run;

fn zone(name: &str, path: &str, attrs: &[(&str, &str)]) {
    let mut text = format!("create -b\nset brand=bhyve\nset zonepath={path}\nset ip-type=exclusive\n");
    for (name, value) in attrs {
        text += &format!("add attr\nset name={name}\nset type=string\nset value=\"{value}\"\nend\n");
    }
    let file = format!("/run/{name}.cfg");
    std::fs::write(&file, text + "verify\ncommit\n").expect("a file");
    run("zonecfg", &["-z", name, "-f", &file]);
    std::fs::remove_file(file).expect("the file");
}

/// Zones, datasets, links, addresses and files with names like ours: without a mark, with another node's, with one that is
/// only inherited, and plain neighbours.
pub fn settle() {
    let name = || MachineName::of(AttemptId::new()).to_string();
    // Zones: a name of ours elsewhere; another node's marks; an installed neighbour.
    zone(&name(), "/mnt/elsewhere/a", &[]);
    let theirs = name();
    let attempt = theirs.trim_start_matches("hci-");
    zone(
        &theirs,
        "/mnt/elsewhere/b",
        &[("hci-node", "n2"), ("hci-attempt", attempt)],
    );
    run("zfs", &["create", "-o", "mountpoint=/mnt/web", "rpool/web"]);
    zone("web1", "/mnt/web/web1", &[("hci-node", "n1")]);
    run("zoneadm", &["-z", "web1", "install"]);
    std::fs::write("/mnt/web/web1/root/etc/passwd", "web").expect("a file");
    // Datasets in our own tree: no mark, another's mark, an inherited mark.
    run(
        "zfs",
        &["create", "-s", "-V", "64m", &format!("rpool/hci/machines/{}", name())],
    );
    let other = format!("rpool/hci/zones/{}", name());
    run("zfs", &["create", "-o", "helios-ci:node=n2", &other]);
    run(
        "zfs",
        &[
            "create",
            "-o",
            "helios-ci:attempt=x",
            &format!("rpool/hci/zones/{}", name()),
        ],
    );
    std::fs::write(
        format!("/mnt/hci/{}/notes", other.trim_start_matches("rpool/hci/zones/")),
        "theirs",
    )
    .expect("a file");
    run("zfs", &["snapshot", &format!("{other}@before")]);
    // Links of our names in slots that nobody has been given, one with the address that would be ours.
    run("dladm", &["create-etherstub", "-t", "hcis900"]);
    run(
        "dladm",
        &["create-vnic", "-t", "-l", "hcis900", "-m", "2:8:20:1:2:3", "hciv900"],
    );
    run("dladm", &["create-vnic", "-t", "-l", "hcis900", "hcih900"]);
    run(
        "ipadm",
        &[
            "create-addr",
            "-t",
            "-T",
            "static",
            "-a",
            "10.77.14.17/30",
            "hcih900/v4",
        ],
    );
    run("dladm", &["create-vnic", "-l", "ixgbe0", "web0"]);
    run(
        "ipadm",
        &["create-addr", "-T", "static", "-a", "192.168.7.2/24", "web0/v4"],
    );
    // Files beside ours.
    std::fs::create_dir_all("/run/helios-ci/machines").expect("a folder");
    std::fs::write("/run/helios-ci/machines/notes.txt", "mine").expect("a file");
}
