//! What stays after an error, and what other commands leave.

use super::*;

#[test]
fn an_error_outside_a_resource_leaves_what_was_set_and_one_inside_leaves_nothing() {
    let net = "add net\nset physical=a0\n";
    assert!(refused(
        "set autoboot=maybe\nset autoboot=true\n",
        "autoboot value must be"
    ));
    assert!(refused(
        "foo\n",
        "syntax error on line 6 at 'f'\nCommands:\n\nadd <resource-type>"
    ));
    assert!(refused(
        &format!("{net}end\nset autoboot=maybe\n"),
        "autoboot value must be"
    ));
    let (out, stored) = script(&format!("{net}set allowed-address=1/99\nend\ncommit\n"));
    assert!(stored.is_none());
    assert_eq!(
        (out.code, out.stderr.as_str()),
        (
            1,
            "On line 8 of SCRIPT:\n1/99: IPv4 address prefix lengths must be 0 - 32.\n\
             resource specification incomplete\n\
             Zone z failed to verify\nz: Insufficient specification\nConfiguration not saved.\n"
        )
    );
    // What was committed before stays as it was.
    assert!(refused(
        &format!("commit\n{net}add device\n"),
        "usage:\nadd <resource-type>"
    ));
    assert!(!refused(net, "On line 7 of SCRIPT:\nResource incomplete.\n"));
    assert!(!refused(
        &format!("{net}verify\n"),
        "resource specification incomplete\nz: Insufficient specification"
    ));
    assert!(!refused(
        &format!("{net}exit\n"),
        "exit command ignored, but exiting anyway."
    ));
    assert!(!refused(
        &format!("{net}exit -F\n"),
        "resource specification incomplete"
    ));
    assert!(!refused(
        &format!("{net}revert -F\n"),
        "You can only use revert in the global scope."
    ));
    assert!(!refused(
        &format!("{net}select net physical=a0\n"),
        "select command only makes sense in the global"
    ));
    assert!(refused(
        "end\n",
        "The end command only makes sense in the resource scope."
    ));
    assert!(refused(
        "cancel\n",
        "The cancel command only makes sense in the resource scope."
    ));
    assert!(refused("add options ro\n", "usage:\nadd <resource-type>"));
    assert!(!refused("revert -F\n", "z: no such saved zone to revert to."));
    assert!(refused(
        "commit\ndelete\n",
        "Input not from terminal and -F not specified:\ndelete command ignored"
    ));
}

#[test]
fn a_fault_keeps_nothing_of_a_file_that_errs() {
    let fixture = TestHost::new();
    fixture
        .sim
        .mutate(|host| host.faults.zonecfg_commits_nothing_on_error = true)
        .unwrap();
    fixture.no("zonecfg -z x create -b ; set zonepath=/zones/x ; nonsense", 1);
    assert!(fixture.sim.mutate(|host| load(host, "x")).unwrap().unwrap().is_none());
    fixture
        .sim
        .mutate(|host| host.faults.zonecfg_lacks = Some("max-lwps".into()))
        .unwrap();
    assert!(
        fixture
            .no("zonecfg -z x set max-lwps=100", 1)
            .starts_with("syntax error at '='\n")
    );
}

#[test]
fn an_error_does_not_stop_words() {
    let fixture = TestHost::new();
    let said = fixture.no(
        "zonecfg -z y create -b ; set zonepath=/zones/y ; set nonsense=1 ; exit ; set autoboot=true",
        1,
    );
    assert!(said.starts_with("syntax error at '='\nCommands:\n"), "{said}");
    let config = fixture.sim.mutate(|host| load(host, "y")).unwrap().unwrap().unwrap();
    assert!(config.autoboot, "nor does `exit`");
    // A resource that is left open takes the rest with it.
    fixture.no("zonecfg -z y set autoboot=false ; add device", 1);
    let config = fixture.sim.mutate(|host| load(host, "y")).unwrap().unwrap().unwrap();
    assert!(config.autoboot);
    // What a careless caller would send for a value of `x; delete -F`.
    fixture.no(
        "zonecfg -z y add attr ; set name=a ; set value=x; cancel ; delete -F ; end",
        1,
    );
    assert!(fixture.sim.mutate(|host| load(host, "y")).unwrap().unwrap().is_none());
}

#[test]
fn a_zone_needs_a_path_and_a_brand_that_is_there() {
    let fixture = TestHost::new();
    let said = fixture.no("zonecfg -z w create -b ; verify", 1);
    assert!(
        said.starts_with("zonepath cannot be empty.\nw: Required resource missing\n"),
        "{said}"
    );
    let said = fixture.no(
        "zonecfg -z w create -b ; set zonepath=/w ; set brand=none ; set ip-type=exclusive",
        1,
    );
    assert!(said.starts_with("w: unknown brand.\n\n"), "{said}");
    assert!(
        said.ends_with("w: unknown brand.\n\nw: Invalid document\nConfiguration not saved.\n"),
        "{said}"
    );
    let said = fixture.no("zonecfg -z none set autoboot=true", 1);
    assert_eq!(said, "none: No such zone configured\n");
    fixture.ok("zonecfg -z w create -b ; set zonepath=/w ; set brand=bhyve");
    std::fs::remove_file(fixture.sim.root().join("usr/lib/brand/bhyve/config.xml")).unwrap();
    let said = fixture.no("zonecfg -z w set autoboot=true", 1);
    assert_eq!(said, "Zone w uses non-existent brand \"bhyve\".  Unable to continue\n");
}

#[test]
fn names_are_checked_and_changed() {
    let fixture = TestHost::new();
    let said = fixture.no("zonecfg -z -bad create -b", 2);
    assert!(
        said.starts_with("-bad: Bogus zone name\n\n<zone> := [A-Za-z0-9]"),
        "{said}"
    );
    fixture.no("zonecfg -x", 2);
    let said = fixture.no("zonecfg -z SUNWa create -b", 1);
    assert_eq!(said, "SUNWa: zones beginning with SUNW are read-only.\n");
    assert_eq!(
        fixture.no("zonecfg -z SUNWa export", 1),
        "SUNWa: No such zone configured\n"
    );
    let said = fixture.no("zonecfg -z global set brand=bhyve", 1);
    assert!(
        said.starts_with("brand is not a valid property for the global zone.\n"),
        "{said}"
    );
    assert!(
        fixture
            .no("zonecfg -z global add net", 1)
            .starts_with("Cannot add a net resource to the global zone.\n")
    );
    fixture.ok("zonecfg -z a create -b ; set zonepath=/zones/a ; set brand=bhyve");
    fixture.ok("zonecfg -z b create -b ; set zonepath=/zones/b ; set zonename=c");
    assert!(
        fixture
            .no("zonecfg -z a set zonename=c", 1)
            .starts_with("c: Zone name already in use\n")
    );
    fixture.ok("zonecfg -z a set zonename=d");
    let index = std::fs::read_to_string(fixture.sim.root().join("etc/zones/index")).unwrap();
    assert_eq!(
        index,
        "global:installed:/\nc:configured:/zones/b:\nd:configured:/zones/a:\n"
    );
    assert!(fixture.ok("zonecfg -z d export").contains("set brand=bhyve\n"));
    assert!(!fixture.sim.root().join("etc/zones/a.xml").exists());
}

#[test]
fn a_zone_that_is_installed_refuses_without_an_error() {
    let fixture = TestHost::new();
    fixture.ok("zonecfg -z z create -b ; set zonepath=/zones/z ; set brand=bhyve");
    fixture
        .sim
        .mutate(|host| {
            let mut entry = index::find(host, "z").unwrap().unwrap();
            entry.state = crate::state::ZoneState::Installed;
            index::put(host, entry).unwrap();
        })
        .unwrap();
    for (command, verb) in [
        ("create -F", "create"),
        ("set zonepath=/zones/y", "set zonepath"),
        ("set brand=lipkg", "set brand"),
    ] {
        let out = fixture.said(&format!("zonecfg -z z {command}"));
        let said = format!("Zone z already installed; {verb} not allowed.\n");
        assert_eq!((out.code, out.stderr), (0, said));
    }
    fixture.ok("zonecfg -z z delete -F");
}

#[test]
fn half_a_zone_is_removed_with_a_complaint() {
    let fixture = TestHost::new();
    fixture.ok("zonecfg -z z create -b ; set zonepath=/zones/z ; set brand=bhyve");
    std::fs::remove_file(fixture.sim.root().join("etc/zones/z.xml")).unwrap();
    assert_eq!(fixture.no("zonecfg -z z delete -F", 1), "z: No such zone configured\n");
    assert_eq!(
        fixture.sim.mutate(|host| index::find(host, "z")).unwrap().unwrap(),
        None
    );
    fixture.ok("zonecfg -z z create -b ; set zonepath=/zones/z ; set brand=bhyve");
    std::fs::write(fixture.sim.root().join("etc/zones/z.xml"), "<zone").unwrap();
    assert_eq!(fixture.no("zonecfg -z z delete -F", 1), "z: Invalid document\n");
    assert!(!fixture.sim.root().join("etc/zones/z.xml").exists());
    assert_eq!(
        fixture.ok("zonecfg -z z create -b ; set zonepath=/z ; set brand=bhyve ; commit ; create -F ; set zonepath=/y"),
        "Zone z already exists; overwriting.\n"
    );
}
