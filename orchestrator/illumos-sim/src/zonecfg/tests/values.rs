//! What properties and resources may be.

use super::{
    super::{
        privileges,
        value::{bytes, scaled},
    },
    *,
};

fn control(name: &str, limit: &str, action: &str) -> String {
    format!("add rctl\nset name=\"{name}\"\nadd value (priv=privileged,limit={limit},action={action})\nend\n")
}

#[test]
fn aliases_have_floors_and_controls_have_none() {
    for (set, made) in [
        ("max-lwps=100", control("zone.max-lwps", "100", "deny")),
        ("max-processes=\" +100\"", control("zone.max-processes", "100", "deny")),
        ("cpu-shares=\"\"", control("zone.cpu-shares", "0", "none")),
        ("cpu-shares=007", control("zone.cpu-shares", "7", "none")),
        ("zfs-io-priority=1", control("zone.zfs-io-priority", "1", "none")),
        (
            "max-sem-ids=18446744073709551615",
            control("zone.max-sem-ids", "18446744073709551615", "deny"),
        ),
        ("max-shm-memory=1.5K", control("zone.max-shm-memory", "1536", "deny")),
        (
            "max-shm-memory=\"2 t\"",
            control("zone.max-shm-memory", "2199023255552", "deny"),
        ),
    ] {
        assert_eq!(taken(&format!("set {set}\n")), made, "{set}");
    }
    for set in [
        "max-lwps=99",
        "max-lwps=\"\"",
        "max-processes=99",
        "zfs-io-priority=0",
        "cpu-shares=-1",
        "cpu-shares=1-",
        "cpu-shares=0x10",
        "cpu-shares=18446744073709551616",
        "max-shm-ids=1k",
    ] {
        let (name, _) = set.split_once('=').unwrap();
        assert!(
            refused(&format!("set {set}\n"), &format!("{name} property is out of range.")),
            "{set}"
        );
    }
    assert!(refused(
        "set max-shm-memory=1x\n",
        "A non-negative number with a required scale suffix"
    ));
    let low = control("zone.max-lwps", "0x10", "deny");
    assert_eq!(taken(&low), low);
    // The alias speaks for a control in its own form alone.
    let other = control("zone.max-lwps", "500", "none");
    let said = "max-lwps: An incompatible rctl already exists for this property";
    assert!(refused(&format!("{other}set max-lwps=200\n"), said));
    assert_eq!(
        taken(&format!("{low}set max-lwps=200\n")),
        control("zone.max-lwps", "200", "deny")
    );
    assert!(refused("clear max-lwps\n", "clear max-lwps: No such entry"));
    assert_eq!(taken(&format!("{low}clear max-lwps\n")), "");
}

#[test]
fn memory_is_read_and_shown_in_units() {
    for (text, is) in [
        ("512", Some(512)),
        ("", Some(0)),
        ("k", Some(0)),
        ("1e3", Some(1000)),
        (".5k", Some(512)),
        ("1.k", Some(1024)),
        ("9007199254740993", Some(9_007_199_254_740_993)),
        ("1b", None),
        ("-1k", None),
        ("1kk", None),
        (".k", None),
    ] {
        assert_eq!(bytes(text), is, "{text}");
    }
    for (bytes, is) in [
        (1023, "1023"),
        (1024, "1K"),
        (1536, "1.5K"),
        (52_428_800, "50M"),
        (10 << 30, "10G"),
    ] {
        assert_eq!(scaled(bytes), is);
    }
    let swap = |text: &str| format!("add capped-memory\nset swap={text}\nend\n");
    assert_eq!(taken(&swap("50m")), control("zone.max-swap", "52428800", "deny"));
    assert!(!refused(
        &swap("49m"),
        "swap value is too small.  It must be at least 50M."
    ));
    assert!(!refused(&swap("x"), "A positive number with a required scale suffix"));
    let both = "add capped-memory\nset physical=1g\nset locked=2g\nend\n";
    assert!(!refused(
        both,
        "The locked cap must be less than or equal to the physical cap."
    ));
    assert!(!refused(
        "add capped-memory\nend\n",
        "One of physical, swap or locked is required."
    ));
    let cleared = "add capped-memory\nset physical=1g\nset locked=1m\nend\nselect capped-memory\nclear physical\nend\n";
    assert_eq!(taken(cleared), control("zone.max-locked-memory", "1048576", "deny"));
    assert!(refused(
        "remove capped-memory\n",
        "remove capped-memory: No such resource type"
    ));
    assert_eq!(taken(&format!("{}remove capped-memory\n", swap("1g"))), "");
}

#[test]
fn processors_are_capped_or_dedicated() {
    let cap = |text: &str| format!("add capped-cpu\nset ncpus={text}\nend\n");
    for (text, limit) in [("0.01", "1"), ("2.345", "235"), ("64", "6400")] {
        assert_eq!(taken(&cap(text)), control("zone.cpu-cap", limit, "deny"), "{text}");
    }
    for text in ["0", "0.009", "-1", "x", "1x", "\"\""] {
        assert!(!refused(&cap(text), "ncpus property is out of range."), "{text}");
    }
    assert!(!refused("add capped-cpu\nend\n", "ncpus not specified"));
    let own = |text: &str| format!("add dedicated-cpu\nset ncpus={text}\nend\n");
    assert_eq!(taken(&own("1-4")), "add dedicated-cpu\nset ncpus=1-4\nend\n");
    assert_eq!(
        taken(&own("02\nset importance=9")),
        "add dedicated-cpu\nset ncpus=02\nset importance=9\nend\n"
    );
    for text in ["0", "0-1", "4-1", "1-", "-1", "1.5", "1-2-3"] {
        assert!(!refused(&own(text), "ncpus property is out of range."), "{text}");
    }
    // What is there already is said, and the script goes on.
    let said = "On line 9 of SCRIPT:\nThe capped-cpu resource already exists.\nOn line 10 of SCRIPT:\nCannot set";
    assert!(refused(&format!("{}{}", cap("1"), own("1")), said));
    let said = "rctl zone.cpu-shares and dedicated-cpu are incompatible.\nz: Incompatible settings";
    assert!(!refused(&format!("set cpu-shares=5\n{}verify\n", own("1")), said));
    assert!(refused(
        &format!("{}set pool=p\n", own("1")),
        "A persistent pool is incompatible\nwith"
    ));
    assert_eq!(
        taken(&format!("{}remove dedicated-cpu\nset pool=p\nclear pool\n", own("1"))),
        ""
    );
    let said = "WARNING: rctl zone.cpu-shares and scheduling-class=TS are incompatible";
    assert!(!refused("set cpu-shares=5\nset scheduling-class=TS\nverify\n", said));
}

#[test]
fn controls_have_a_name_and_valid_values() {
    let control = |value: &str| format!("add rctl\nset name=zone.cpu-cap\nadd value {value}\nend\n");
    for (value, said) in [
        ("(priv=basic,limit=5,action=deny)", "Invalid rctl value specification"),
        (
            "(priv=privileged,limit=-5,action=deny)",
            "Invalid rctl value specification",
        ),
        (
            "(priv=privileged,limit=5x,action=deny)",
            "Invalid rctl value specification",
        ),
        (
            "(priv=privileged,limit=5,action=signal)",
            "Invalid rctl value specification",
        ),
        ("(priv=privileged,priv=privileged)", "priv already specified"),
        ("(priv=privileged)", "limit not specified\naction not specified"),
        ("(name=x)", "value: No such property type"),
        ("x", "A complex or list value was expected here."),
    ] {
        assert!(!refused(&control(value), said), "{value}");
    }
    let two = "[(priv=privileged,limit=1,action=none),(priv=privileged,limit=2,action=deny)]";
    let made = "add value (priv=privileged,limit=1,action=none)\nadd value (priv=privileged,limit=2,action=deny)\n";
    assert!(taken(&control(two)).contains(made));
    for name in ["project.max-lwps", "zone.", "zone.max_lwps", "zone.a1"] {
        let text = format!("add rctl\nset name={name}\nadd value (priv=privileged,limit=1,action=deny)\nend\n");
        // That is said, and no error until `end`.
        let said =
            format!("On line 7 of SCRIPT:\n'{name}' is not a valid zone rctl name.\nOn line 9 of SCRIPT:\nname not");
        assert!(!refused(&text, &said));
    }
    assert!(taken(&control("(priv=privileged,limit=5,action=deny)").replace("cpu-cap", "no-such")).contains("no-such"));
}

#[test]
fn addresses_need_what_their_family_needs() {
    let net = |name: &str, text: &str| format!("add net\nset physical=a0\nset {name}={text}\nend\n");
    for text in [
        "10.0.0.1",
        "10.0.0.1/0",
        "10.0.0.300/24",
        "host-1.example",
        "::1/128",
        "10.0.0.1/x",
        "10.0.0.1/24,10.0.0.2/24",
    ] {
        let made = taken(&net("allowed-address", text));
        assert!(made.contains(&format!("set allowed-address=\"{text}\"\n")), "{made}");
    }
    for (text, said) in [
        (
            "10.0.0.1/33",
            "10.0.0.1/33: IPv4 address prefix lengths must be 0 - 32.",
        ),
        ("host/-1", "host/-1: IPv4 address prefix lengths must be 0 - 32."),
        ("::1", "::1: IPv6 addresses require /prefix-length suffix."),
        ("::1/129", "::1/129: IPv6 address prefix lengths must be 0 - 128."),
        ("_a", "_a: bogus host name or network address syntax\n\n<net-addr> :="),
        ("a_b/1", "a_b: bogus host name or network address syntax"),
        ("::g/1", "::g: bogus host name or network address syntax"),
    ] {
        assert!(
            !refused(&net("allowed-address", text), &format!("On line 8 of SCRIPT:\n{said}")),
            "{text}"
        );
    }
    let said = "net: defrouter for a0 cannot be specified without allowed-address for an exclusive IP type";
    assert!(!refused(&format!("{}verify\n", net("defrouter", "::1")), said));
    let said = "net: address cannot be specified for an exclusive IP type\nz: Invalid argument";
    assert!(!refused(&format!("{}verify\n", net("address", "10.0.0.1")), said));
    let shared = format!("set ip-type=shared\n{}verify\n", net("allowed-address", "10.0.0.1"));
    assert!(!refused(
        &shared,
        "net: allowed-address cannot be specified for a shared IP type"
    ));
    let long = "1".repeat(60);
    assert!(
        taken(&net("allowed-address", &long)).contains(&format!("\"{}\"\n", &long[..45])),
        "it is cut"
    );
}

#[test]
fn links_have_the_names_that_links_can_have() {
    let net = |name: &str| format!("add net\nset physical={name}\nend\n");
    for name in ["a0", "net0.1", "_0", &format!("{}0", "v".repeat(30))] {
        assert!(taken(&net(name)).contains(name));
    }
    for name in [
        "a",
        "0",
        "a01",
        "a-0",
        "\"a 0\"",
        "\"\"",
        &format!("{}0", "v".repeat(31)),
    ] {
        assert!(!refused(&net(name), ": invalid physical interface name"), "{name}");
    }
    assert!(!refused(
        &net("a0:1"),
        "a0:1: physical interface name required; logical interface name not allowed"
    ));
    let shared = format!("set ip-type=shared\n{}", net("a0:1"));
    assert!(!refused(&shared, "a0:1: LUNs not allowed in physical interface names"));
    let said = "A net resource with the physical 'a0', and allowed-address '' already exists.";
    assert!(!refused(&format!("{}{}", net("a0"), net("a0")), said));
}

#[test]
fn attributes_have_types() {
    let attr = |name: &str, kind: &str, value: &str| {
        format!("add attr\nset name={name}\nset type={kind}\nset value=\"{value}\"\nend\n")
    };
    let v255 = "v".repeat(255);
    for (kind, value) in [
        ("string", v255.as_str()),
        ("string", "a b; c=[d]"),
        ("boolean", "false"),
        ("int", "-9223372036854775808"),
        ("int", "+5"),
        ("uint", "18446744073709551615"),
        ("uint", " 7"),
    ] {
        assert!(taken(&attr("a", kind, value)).contains(&format!("set value=\"{value}\"\n")));
    }
    let v256 = "v".repeat(256);
    for (kind, value) in [
        ("string", v256.as_str()),
        ("boolean", "True"),
        ("int", "5x"),
        ("int", "9223372036854775808"),
        ("uint", "-5"),
        ("uint", "18446744073709551616"),
    ] {
        assert!(!refused(
            &attr("a", kind, value),
            &format!("invalid attr value for type={kind}")
        ));
    }
    assert!(!refused(&attr("a", "text", "x"), "invalid attr type 'text'"));
    assert!(!refused(
        &attr("-a", "string", "x"),
        "Invalid attr name -a: must start with an alpha-numeric character."
    ));
    assert!(!refused(
        &attr("a_b", "string", "x"),
        "Invalid attr name a_b: can only contain alpha-numeric"
    ));
    let twice = attr("a", "string", "x").repeat(2);
    assert!(!refused(&twice, "An attr resource with the name 'a' already exists."));
    assert!(!refused(
        "add attr\nend\n",
        "name not specified\ntype not specified\nvalue not specified\nInvalid attr"
    ));
    assert!(taken(&attr(&"n".repeat(300), "string", "x")).contains(&format!("\"{}\"\n", "n".repeat(255))));
}

#[test]
fn the_zones_own_properties_have_rules() {
    for (set, export) in [
        ("hostid=0xfffffffe", "set hostid=0xfffffffe\n"),
        ("hostid=1F", "set hostid=1F\n"),
        ("hostid=0x", "set hostid=0x\n"),
        ("fs-allowed=ufs,hs-fs", "set fs-allowed=ufs,hs-fs\n"),
        ("fs-allowed=\"\"", ""),
    ] {
        assert_eq!(taken(&format!("set {set}\n")), export);
    }
    for (set, said) in [
        ("hostid=ffffffff", "hostid: Specified property is invalid"),
        ("hostid=0x100000000", "hostid string is too large: 0x100000000"),
        ("hostid=100000000", "hostid: Specified property is invalid"),
        ("hostid=\"\"", "hostid: Specified property is invalid"),
        ("hostid=12g", "hostid: Specified property is invalid"),
        ("fs-allowed=ufs,", "z: Specified property is invalid"),
        ("fs-allowed=a_b", "z: Specified property is invalid"),
        ("autoboot=yes", "autoboot value must be 'true' or 'false'."),
        ("ip-type=both", "ip-type value must be 'shared' or 'exclusive'."),
        ("pool=SUNWx", "pool names starting with SUNW are reserved."),
        ("zonepath=x", "x is not an absolute path."),
        ("zonepath=//", "/ is not allowed as a zonepath."),
        (
            "dir=x",
            "Cannot set a resource-specific property from the global scope.",
        ),
        ("pool=[a]", "A simple value was expected here."),
        ("zonename=a_%", "a_%: Bogus zone name"),
    ] {
        assert!(
            refused(&format!("set {set}\n"), said),
            "{set}: what was set before is stored"
        );
    }
    for name in ["brand", "zonepath", "zonename"] {
        assert!(refused(
            &format!("clear {name}\n"),
            &format!("{name}: Clearing this property is not allowed")
        ));
    }
    let (_, stored) = script("set zonepath=//a///b//\nclear ip-type\nset bootargs=\"-m x\"\nset limitpriv=default\n");
    assert_eq!(
        stored.unwrap(),
        "create -b\nset zonepath=/a/b\nset autoboot=false\nset bootargs=-m x\n\
         set limitpriv=default\nset ip-type=shared\n"
    );
    let long = format!("set zonepath=/{}\nverify\n", "z".repeat(1023));
    assert!(!refused(&long, "zonepath not specified\nz: Required resource missing"));
}

#[test]
fn privileges_are_known_allowed_and_needed() {
    for (text, wrong) in [
        ("default", None),
        ("default,dtrace_proc,!file_owner", None),
        ("basic,sys_mount", None),
        ("basic,PRIV_SYS_MOUNT,sys_ip_config", None),
        ("def,dtrace_user", None),
        ("default,dtrace_kernel", Some("dtrace_kernel")),
        ("default,!sys_mount", Some("sys_mount")),
        ("basic", Some("sys_mount")),
        ("sys_mount", Some("proc_exec")),
        ("all", Some("virt_manage")),
        ("zone", Some("zone")),
        ("basic,default", Some("default")),
        ("default,foo,bar", Some("foo")),
    ] {
        assert_eq!(privileges::check(text, true).err().as_deref(), wrong, "{text}");
    }
    assert_eq!(
        privileges::check("default,sys_ip_config", false),
        Err("sys_ip_config".to_owned())
    );
    // It is printed at each verify, and nothing is stored.
    let said = "On line 7 of SCRIPT:\nz: invalid privilege: foo\nOn line 8 of SCRIPT:\nz: invalid privilege: foo\n\
                z: invalid privilege: foo\nConfiguration not saved.\n";
    assert!(!refused("set limitpriv=default,foo\nverify\ncommit\n", said));
}

#[test]
fn other_resources_have_rules() {
    let fs = |more: &str| format!("add fs\nset dir=/a\nset special=/b\nset type=lofs\n{more}end\n");
    assert!(taken(&fs("add options [ro,nodevices]\nremove options ro\n")).ends_with("add options nodevices\nend\n"));
    assert!(taken(&fs("set options=ro\nset options=\"size=5\"\n")).ends_with("add options \"size=5\"\nend\n"));
    for (text, said) in [
        (fs("remove options ro\n"), "options: No such property with that id"),
        (fs("set raw=b\n"), "raw b is not an absolute path."),
        (fs("set type=a/b\n"), "\"a/b\" is not a valid type."),
        (fs("set match=b\n"), "match: No such property type"),
        (fs("add dir b\n"), "dir: No such property type"),
        (fs("clear dir\n"), "dir: Clearing this property is not allowed"),
        (
            fs("set options=(name=a)\n"),
            "A simple or list value was expected here.",
        ),
        (
            "add fs\nset dir=a\nend\n".into(),
            "dir a is not an absolute path.\nspecial not specified\ntype not",
        ),
        ("add device\nend\n".into(), "match not specified"),
        (
            "add dataset\nset name=a//b\nend\nverify\n".into(),
            "dataset: name invalid\nz: Bad document property",
        ),
        (
            "add dataset\nset name=a@b\nend\nverify\n".into(),
            "dataset: name invalid",
        ),
        (
            "add admin\nset user=nobodyhere\nset auths=manage\nend\n".into(),
            "user nobodyhere is not a valid username",
        ),
        (
            "add admin\nset user=root\nset auths=a\nend\n".into(),
            "'a' is not a valid authorization",
        ),
        (
            "add security-flags\nset default=foo\nend\n".into(),
            "default security flags 'foo' are invalid",
        ),
        (
            "add security-flags\nset lower=aslr\nend\n".into(),
            "default secflags must be above the lower limit",
        ),
    ] {
        assert!(!refused(&text, said), "{text}");
    }
    let flags = "add security-flags\nset lower=aslr\nset default=aslr,noexecstack\nset upper=all\nend\n";
    assert!(taken(flags).starts_with("add security-flags\nset default=\"aslr,noexecstack\"\nset lower=\"aslr\"\n"));
    assert!(taken("add admin\nset user=root\nset auths=login,manage\nend\n").contains("set auths=\"login,manage\"\n"));
    let property = "add net\nset physical=a0\nadd property (value=\"x y\",name=n)\nend\n";
    assert!(taken(property).ends_with("add property (name=n,value=\"x y\")\nend\n"));
}

#[test]
fn resources_are_selected_and_removed_by_what_they_have() {
    let attr = |name: &str| format!("add attr\nset name={name}\nset type=string\nset value=x\nend\n");
    let two = attr("a") + &attr("b");
    assert_eq!(
        taken(&format!("{two}select attr name=a\nset value=y\nend\n")),
        "add attr\nset name=\"b\"\nset type=\"string\"\nset value=\"x\"\nend\n\
         add attr\nset name=\"a\"\nset type=\"string\"\nset value=\"y\"\nend\n"
    );
    assert!(!taken(&format!("{two}remove attr name=a\n")).contains("\"a\""));
    assert_eq!(taken(&format!("{two}remove -F attr\n")), "");
    assert!(taken(&format!("{two}select attr name=a\nset value=y\ncancel\n")).contains("value=\"x\""));
    for (command, said) in [
        ("remove attr", "There are multiple instances of this resource."),
        ("remove attr type=string", "remove attr: Insufficient specification"),
        ("remove attr name=c", "remove attr: No such resource with that id"),
        (
            "remove attr dir=c",
            "dir: No such property type\nremove attr: Insufficient specification",
        ),
        ("remove -F net", "remove net: No such entry"),
        (
            "select attr name=[a]",
            "A simple value was expected here.\nselect attr: Insufficient specification",
        ),
        ("select capped-cpu", "select capped-cpu: No such entry"),
        ("select net vlan-id=5", "select net: Insufficient specification"),
    ] {
        assert!(refused(&format!("{two}{command}\n"), said), "{command}");
    }
}
