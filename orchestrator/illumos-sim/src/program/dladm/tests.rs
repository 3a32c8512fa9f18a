use super::*;
use crate::program::testing::TestHost;

fn slot(fixture: &TestHost) {
    fixture.ok("dladm create-etherstub -t hcis7");
    fixture.ok("dladm create-vnic -t -l hcis7 -m 02:08:20:00:2a:01 hcih7");
    fixture.ok("dladm create-vnic -t -l hcis7 -m 2:8:20:0:2a:2 hciv7");
}

#[test]
fn names_end_in_a_number() {
    for good in ["x0", "hciv12", "a_b.c10"] {
        assert!(is_link_name(good), "{good}");
    }
    for bad in ["x", "x01", "0x1", "x-1", "x1a", &format!("x{}", "1".repeat(31))] {
        assert!(!is_link_name(bad), "{bad}");
    }
    assert_eq!(parse_mac("2:8:20:0:2a:1").as_deref(), Some("02:08:20:00:2a:01"));
    assert_eq!(parse_mac("1:8:20:0:2a:1"), None);
    assert_eq!(parse_mac("2:8:20:0:2a"), None);
}

#[test]
fn listings_escape_by_the_number_of_fields() {
    let fixture = TestHost::new();
    slot(&fixture);
    assert_eq!(
        fixture.ok("dladm show-vnic -p -o link,over,macaddress,vid hciv7"),
        "hciv7:hcis7:2\\:8\\:20\\:0\\:2a\\:2:0\n"
    );
    assert_eq!(fixture.ok("dladm show-vnic -p -o macaddress hciv7"), "2:8:20:0:2a:2\n");
    assert_eq!(fixture.ok("dladm show-etherstub -p -o link"), "hcis7\n");
    assert_eq!(
        fixture.ok("dladm show-link -p -o link,class,mtu,state,over"),
        "hcih7:vnic:9000:up:hcis7\nhcis7:etherstub:9000:unknown:--\nhciv7:vnic:9000:up:hcis7\nixgbe0:phys:1500:up:--\n"
    );
    assert!(fixture.no("dladm show-link -p", 1).contains("-o"));
    assert!(
        fixture
            .no("dladm show-link -p -o nothing", 1)
            .contains("unknown output field")
    );
}

#[test]
fn creating_and_deleting_are_refused_in_dladms_words() {
    let fixture = TestHost::new();
    slot(&fixture);
    for (command, text) in [
        (
            "dladm create-etherstub -t hcis7",
            "dladm: etherstub creation failed: object already exists\n",
        ),
        (
            "dladm create-vnic -t -l hcis7 hciv7",
            "dladm: vnic creation over hcis7 failed: object already exists\n",
        ),
        (
            "dladm create-vnic -t -l hcis8 hciv8",
            "dladm: invalid link name 'hcis8'\n",
        ),
        ("dladm create-vnic -t -l hcis7 x-1", "dladm: invalid link name 'x-1'\n"),
        (
            "dladm create-vnic -l hcis7 hciv8",
            "dladm: vnic creation over hcis7 failed: can't create persistent object on top of temporary object\n",
        ),
        (
            "dladm show-vnic none0",
            "dladm: invalid vnic name 'none0': object not found\n",
        ),
        (
            "dladm show-link none0",
            "dladm: link none0 is not valid: object not found\n",
        ),
        ("dladm delete-vnic none0", "dladm: invalid link name 'none0'\n"),
        ("dladm delete-vnic hcis7", "dladm: 'hcis7' is not a vnic\n"),
        ("dladm delete-etherstub hciv7", "dladm: 'hciv7' is not an etherstub\n"),
        (
            "dladm delete-etherstub hcis7",
            "dladm: etherstub deletion failed: link busy\n",
        ),
    ] {
        assert_eq!(fixture.no(command, 1), text, "{command}");
    }
    let long = "x".repeat(32) + "1";
    assert_eq!(
        fixture.no(&format!("dladm create-etherstub {long}"), 1),
        format!("dladm: link name too long '{long}'\n")
    );
    fixture.ok("ipadm create-addr -t -T static -a 10.77.0.29/30 hcih7/v4");
    assert_eq!(
        fixture.no("dladm delete-vnic hcih7", 1),
        "dladm: vnic deletion failed: link busy\n"
    );
    fixture.ok("ipadm delete-if hcih7");
    for command in ["delete-vnic -t hcih7", "delete-vnic hciv7", "delete-etherstub hcis7"] {
        fixture.ok(&format!("dladm {command}"));
    }
}

#[test]
fn properties_may_be_set_in_part() {
    let fixture = TestHost::new();
    slot(&fixture);
    fixture.ok("dladm set-linkprop -t -p mtu=1500 -p maxbw=500M -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof -p allowed-ips=10.77.0.30/32 hciv7");
    assert_eq!(
        fixture.ok("dladm show-linkprop -c -o property,value -p protection,allowed-ips,mtu hciv7"),
        "protection:mac-nospoof,restricted,ip-nospoof,dhcp-nospoof\nallowed-ips:10.77.0.30/32\nmtu:1500\n"
    );
    let said = fixture.no(
        "dladm set-linkprop -t -p mtu=1400,nonsense=1,protection=wrong,maxbw=9,allowed-ips=10.0.0.7/24 hciv7",
        1,
    );
    assert!(
        said.contains("dladm: warning: invalid link property 'nonsense'\n"),
        "{said}"
    );
    assert!(
        said.contains("link property 'protection' must be one of: mac-nospoof,restricted,ip-nospoof,dhcp-nospoof\n")
    );
    assert!(
        said.contains("cannot set link property 'allowed-ips' on 'hciv7': "),
        "{said}"
    );
    assert_eq!(
        fixture.ok("dladm show-linkprop -c -o value -p mtu,maxbw,allowed-ips hciv7"),
        "1400\n    9\n10.77.0.30/32\n"
    );
    fixture.ok("dladm reset-linkprop -t -p protection,allowed-ips hciv7");
    assert_eq!(
        fixture.ok("dladm show-linkprop -c -o value -p protection hciv7"),
        "--\n"
    );
    assert_eq!(
        fixture.no("dladm set-linkprop -t -p mtu=1500 none0", 1),
        "dladm: link none0 is not valid: object not found\n"
    );
}

#[test]
fn the_last_property_alone_decides_how_setting_several_ends() {
    let fixture = TestHost::new();
    slot(&fixture);
    let read = |property: &str| fixture.ok(&format!("dladm show-linkprop -c -o value -p {property} hciv7"));
    let low = "dladm: warning: cannot set link property 'maxbw' on 'hciv7': minimum value for maxbw is 1200K\n";
    for properties in ["-p maxbw=1199K -p mtu=1500", "-p maxbw=1,mtu=1500"] {
        let said = fixture.said(&format!("dladm set-linkprop -t {properties} hciv7"));
        assert_eq!((said.code, said.stderr.as_str()), (0, low));
        assert_eq!((read("maxbw").as_str(), read("mtu").as_str()), ("--\n", "1500\n"));
        fixture.ok("dladm reset-linkprop -t hciv7");
    }
    assert_eq!(
        fixture.no("dladm set-linkprop -t -p mtu=1500 -p maxbw=1M hciv7", 1),
        low
    );
    assert_eq!(read("mtu"), "1500\n");
    for (given, shown) in [
        ("1200k", "    1.200\n"),
        ("500", "  500\n"),
        ("2g", " 2000\n"),
        ("123456M", "123456\n"),
    ] {
        fixture.ok(&format!("dladm set-linkprop -t -p maxbw={given} hciv7"));
        assert_eq!(read("maxbw"), shown);
    }
    for (given, why) in [
        ("2MB", "invalid argument"),
        ("2x", "invalid value"),
        ("1%", "operation not supported"),
    ] {
        let said = fixture.no(&format!("dladm set-linkprop -t -p maxbw={given} hciv7"), 1);
        assert!(said.ends_with(&format!(": {why}\n")), "{said}");
    }
    // One that cannot be read at all: nothing is set.
    fixture.no("dladm set-linkprop -t -p maxbw=9 -p =x hciv7", 1);
    assert_eq!(read("maxbw"), "123456\n");
}

#[test]
fn an_mtu_at_creation_may_be_ignored() {
    let fixture = TestHost::new();
    slot(&fixture);
    let mtu = |name: &str| fixture.ok(&format!("dladm show-linkprop -c -o value -p mtu {name}"));
    fixture.ok("dladm create-vnic -t -l hcis7 -p mtu=1500 a1");
    assert_eq!(mtu("a1"), "1500\n");
    fixture
        .sim
        .mutate(|host| host.faults.create_vnic_ignores_mtu = true)
        .unwrap();
    fixture.ok("dladm create-vnic -t -l hcis7 -p mtu=1500 a2");
    assert_eq!(mtu("a2"), "9000\n");
    fixture.ok("dladm set-linkprop -t -p mtu=1500 a2");
    assert_eq!(mtu("a2"), "1500\n");
}
