use super::*;
use crate::{Out, program::testing::TestHost};

mod commits;
mod language;
mod values;

/// What every script here begins with: five lines.
const HEAD: &str = "create -b\nset brand=bhyve\nset zonepath=/zones/z\nset autoboot=false\nset ip-type=exclusive\n";

/// What one script does on a fresh host: how it ends, and what is stored of the zone.
fn script(text: &str) -> (Out, Option<String>) {
    let fixture = TestHost::new();
    let file = fixture.file("script", &format!("{HEAD}{text}"));
    let mut out = fixture.said(&format!("zonecfg -z z -f {file}"));
    out.stderr = out.stderr.replace(&file, "SCRIPT");
    let stored = fixture.sim.mutate(|host| load(host, "z")).unwrap().unwrap();
    (out, stored.map(|config| config.export(None)))
}

/// A script that is taken; what `export` has of it after the global properties.
fn taken(text: &str) -> String {
    let (out, stored) = script(text);
    assert_eq!((out.code, out.stderr.as_str()), (0, ""), "{text}");
    let stored = stored.unwrap();
    let (_, rest) = stored.split_once("set ip-type=exclusive\n").unwrap();
    rest.to_owned()
}

/// A script that is refused with these words somewhere; whether the zone is stored all the same.
fn refused(text: &str, with: &str) -> bool {
    let (out, stored) = script(text);
    assert_eq!(out.code, 1, "{text}: {out:?}");
    assert!(out.stderr.contains(with), "{text}: {}", out.stderr);
    stored.is_some()
}

const FILE: &str = r#"create -b
set brand=bhyve
set zonepath="/zones/hci/z1"
set autoboot=false
set ip-type=exclusive
set cpu-shares=100
set max-lwps=100
add net
set physical="hciv7"
end
add device
set match="/dev/zvol/rdsk/rpool/hci/machines/z1"
end
add attr
set name=disk1
set type=string
set value="/seed.img,ro"
end
add attr
set name=hci-note
set type=string
set value="a b; c=[d] <&>"
end
verify
commit
"#;

#[test]
fn a_file_makes_a_zone() {
    let fixture = TestHost::new();
    let file = fixture.file("z1", FILE);
    fixture.ok(&format!("zonecfg -z z1 -f {file}"));
    let xml = std::fs::read_to_string(fixture.sim.root().join("etc/zones/z1.xml")).unwrap();
    for line in [
        "<zone name=\"z1\" zonepath=\"/zones/hci/z1\" autoboot=\"false\" brand=\"bhyve\" ip-type=\"exclusive\">",
        "  <rctl name=\"zone.cpu-shares\">",
        "    <rctl-value priv=\"privileged\" limit=\"100\" action=\"none\"/>",
        "  <network physical=\"hciv7\"/>",
        "  <attr name=\"hci-note\" type=\"string\" value=\"a b; c=[d] &lt;&amp;&gt;\"/>",
    ] {
        assert!(xml.contains(line), "{line}\n{xml}");
    }
    let config = xml::read(&xml).unwrap();
    assert_eq!(xml::write(&config), xml);
    assert_eq!(config.attr("hci-note"), Some("a b; c=[d] <&>"));
    assert_eq!(config.limit("zone.max-lwps"), Some(100));
    let index = std::fs::read_to_string(fixture.sim.root().join("etc/zones/index")).unwrap();
    assert_eq!(index, "global:installed:/\nz1:configured:/zones/hci/z1:\n");
    // What export prints makes the same zone again.
    let again = fixture.file("z2", &fixture.ok("zonecfg -z z1 export").replace("/z1\n", "/z2\n"));
    fixture.ok(&format!("zonecfg -z z2 -f {again}"));
    let second = fixture.ok("zonecfg -z z2 export");
    assert_eq!(second.replace("/z2\n", "/z1\n"), fixture.ok("zonecfg -z z1 export"));
    assert!(
        fixture
            .no(&format!("zonecfg -z z1 -f {file}"), 1)
            .contains("Zone exists, input not from terminal")
    );
    fixture.no("zonecfg -z z1 create -b ; set autoboot=true", 1);
    assert!(
        fixture.ok("zonecfg -z z1 export").contains("set autoboot=false\n"),
        "the run ended at the create"
    );
    fixture.ok("zonecfg -z z1 delete -F");
    let absent = "z1: No such zone configured\n";
    assert_eq!(fixture.no("zonecfg -z z1 delete -F", 1), absent.repeat(2));
}

#[test]
fn what_the_model_reads_is_what_was_set() {
    let (out, _) =
        script("add net\nset physical=a0\nset vlan-id=7\nset address=10.0.0.1\nclear vlan-id\ninfo\ncancel\n");
    assert_eq!(
        out.stdout,
        "net:\n\taddress: 10.0.0.1\n\tallowed-address not specified\n\tdefrouter not specified\n\
         \tglobal-nic not specified\n\tmac-addr not specified\n\tphysical: a0\n\tvlan-id not specified\n"
    );
    let (out, _) = script(
        "set max-shm-memory=1536k\nadd capped-memory\nset swap=64m\nend\nadd capped-cpu\nset ncpus=2.5\nend\n\
         add fs\nset dir=/a\nset special=\"/b c\"\nset type=lofs\nset options=[ro,\"x=y\"]\nend\ninfo\n",
    );
    for part in [
        "zonename: z\nzonepath: /zones/z\nbrand: bhyve\nautoboot: false\nbootargs: \npool: \nlimitpriv: \n\
         scheduling-class: \nip-type: exclusive\nhostid: \nfs-allowed: \n[max-shm-memory: 1.5M]\nfs:\n",
        "\tspecial: \"/b c\"\n\traw not specified\n\ttype: lofs\n\toptions: [ro,\"x=y\"]\n",
        "capped-cpu:\n\t[ncpus: 2.50]\ncapped-memory:\n\t[swap: 64M]\n",
        "rctl:\n\tname: zone.max-swap\n\tvalue: (priv=privileged,limit=67108864,action=deny)\n",
    ] {
        assert!(out.stdout.contains(part), "{part}\n{}", out.stdout);
    }
}
