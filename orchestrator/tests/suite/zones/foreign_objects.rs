//! What looks like ours and is not, laid out before the others begin.

use helios_ci::model::{ids::AttemptId, names::MachineName};

use super::simulated_host::{self, host, machines, run, spec};

/// The names of what was laid out.
pub struct Strangers {
    /// A zone of a machine's name without owner tags, only configured.
    pub unmarked: String,
    /// A zone of a machine's name with another node's owner tags, which runs.
    pub theirs: String,
    /// Datasets in our tree: without an owner tag, with another's, with a part of ours; the last one's owner tag is inherited.
    pub datasets: [String; 4],
}

fn zone(name: &str, path: &str, attrs: &[(&str, &str)]) {
    let mut text = format!(
        "create -b\nset brand=bhyve\nset zonepath={path}\nset ip-type=exclusive\nadd attr\nset name=ram\n\
         set type=string\nset value=1G\nend\n"
    );
    for (name, value) in attrs {
        text += &format!("add attr\nset name={name}\nset type=string\nset value=\"{value}\"\nend\n");
    }
    let file = format!("/run/{name}.cfg");
    std::fs::write(&file, text + "verify\ncommit\n").expect("a file");
    run("zonecfg", &["-z", name, "-f", &file]);
    std::fs::remove_file(file).expect("the file");
}

/// Zones, datasets, links, addresses and files with names like ours: without an owner tag, with another node's, with one that is
/// only inherited, and plain neighbours.
pub fn settle() -> Strangers {
    let name = || MachineName::of(AttemptId::new()).to_string();
    // Zones: a name of ours elsewhere; another node's owner tags; a neighbour. The last two run.
    let (unmarked, theirs) = (name(), name());
    run("zfs", &["create", "-o", "mountpoint=/mnt/elsewhere", "rpool/elsewhere"]);
    zone(&unmarked, "/mnt/elsewhere/a", &[]);
    let attempt = theirs.trim_start_matches("hci-");
    zone(
        &theirs,
        "/mnt/elsewhere/b",
        &[("hci-node", "n2"), ("hci-attempt", attempt)],
    );
    run("zfs", &["create", "-o", "mountpoint=/mnt/web", "rpool/web"]);
    zone("web1", "/mnt/web/web1", &[("hci-node", "n1")]);
    for zone in [theirs.as_str(), "web1"] {
        for verb in ["install", "boot"] {
            run("zoneadm", &["-z", zone, verb]);
        }
        assert!(
            host().state().expect("a state").zones[zone].guest,
            "{zone} does not run"
        );
    }
    std::fs::write("/mnt/web/web1/root/etc/passwd", "web").expect("a file");
    // Datasets in our own tree: no owner tag, another node's owner tags, an attempt's alone, an inherited owner tag.
    let plain = format!("rpool/hci/machines/{}", name());
    run("zfs", &["create", "-s", "-V", "64m", &plain]);
    let attempt = |name: &str| format!("helios-ci:attempt={}", name.trim_start_matches("hci-"));
    let (other, half, inherited) = (name(), name(), name());
    let attempts = [&other, &half, &inherited].map(|name| attempt(name));
    let [other, half] = [other, half].map(|name| format!("rpool/hci/zones/{name}"));
    run(
        "zfs",
        &["create", "-o", "helios-ci:node=n2", "-o", &attempts[0], &other],
    );
    run("zfs", &["create", "-o", &attempts[1], &half]);
    let inherited = format!("rpool/hci/zones/{inherited}");
    run("zfs", &["create", &inherited]);
    run("zfs", &["set", "helios-ci:node=n1", "rpool/hci/zones"]);
    run("zfs", &["set", &attempts[2], "rpool/hci/zones"]);
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
    // A host that routes for others: what is ours must not.
    run("ipadm", &["set-prop", "-t", "-p", "forwarding=on", "ipv4"]);
    // Files beside ours.
    std::fs::create_dir_all("/run/helios-ci/machines").expect("a folder");
    std::fs::write("/run/helios-ci/machines/notes.txt", "mine").expect("a file");
    Strangers {
        unmarked,
        theirs,
        datasets: [plain, other, half, inherited],
    }
}

/// A person is told of each, and nothing is done to any: by looking, nor by asking for its removal, nor by a machine that
/// lives beside them.
#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn each_is_named_and_none_is_touched() {
    simulated_host::prepare();
    let strangers = settle();
    let (machines, before) = (machines(), simulated_host::picture());
    let findings = machines.findings().await.unwrap();
    let mut wanted = vec![
        vec![
            "zone",
            strangers.unmarked.as_str(),
            "owner tags of node n1",
            "left alone",
        ],
        vec!["zone", strangers.theirs.as_str(), "owner tags of node n1", "left alone"],
        vec!["VNIC hcih900", "left alone", "slot 900"],
        vec!["VNIC hciv900", "left alone", "slot 900"],
        vec!["stub hcis900", "left alone", "slot 900"],
    ];
    let datasets = strangers.datasets.iter();
    wanted.extend(datasets.map(|name| vec![name.as_str(), "owner tag of node n1", "left alone"]));
    for words in &wanted {
        let says = findings
            .iter()
            .filter(|said| words.iter().all(|word| said.contains(word)));
        assert_eq!(says.count(), 1, "{words:?} in {findings:#?}");
    }
    assert_eq!(findings.len(), wanted.len(), "{findings:#?}");

    assert!(machines.list().await.unwrap().is_empty());
    let names = strangers.datasets.iter().map(|name| name.rsplit('/').next().unwrap());
    for name in names.chain([strangers.unmarked.as_str(), strangers.theirs.as_str()]) {
        let name: MachineName = name.parse().unwrap();
        let error = machines.destroy(&name).await.unwrap_err();
        assert!(!error.retryable && error.reason.contains("left alone"), "{error}");
        machines.start(&name).await.unwrap_err();
        machines.keep(&name).await.unwrap_err();
    }
    let ours = spec();
    machines.prepare(&ours).await.unwrap();
    machines.start(&ours.name).await.unwrap();
    assert_eq!(machines.list().await.unwrap().len(), 1);
    assert_eq!(machines.findings().await.unwrap().len(), wanted.len());
    machines.destroy(&ours.name).await.unwrap();
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
}

/// Whoever has put a zone into a file system of ours finds it there again.
#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_zone_of_anothers_keeps_the_dataset_that_it_lies_in() {
    simulated_host::prepare();
    let (machines, ours) = (machines(), spec());
    let dataset = format!("rpool/hci/zones/{}", ours.name);
    let attempt = format!("helios-ci:attempt={}", ours.name.attempt());
    run("zfs", &["create", "-o", "helios-ci:node=n1", "-o", &attempt, &dataset]);
    zone("web2", &format!("/mnt/hci/{}", ours.name), &[]);
    let before = simulated_host::picture();
    let error = machines.destroy(&ours.name).await.unwrap_err();
    assert!(error.reason.contains("a zone still lies at"), "{error}");
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
    run("zonecfg", &["-z", "web2", "delete", "-F"]);
    machines.destroy(&ours.name).await.unwrap();
    assert!(!host().state().unwrap().datasets.contains_key(&dataset));
}
