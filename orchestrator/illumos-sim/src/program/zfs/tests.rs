use std::os::unix::fs::FileExt;

use super::*;
use crate::program::testing::TestHost;

#[test]
fn names_are_checked_in_zfs_words() {
    for (name, reason) in [
        ("rpool//a", "empty component in name"),
        ("/rpool", "leading slash in name"),
        ("rpool/", "trailing slash in name"),
        ("rpool/a$", "invalid character '$' in name"),
        ("1pool/a", "name must begin with a letter"),
    ] {
        assert_eq!(name::check(name).unwrap_err(), reason, "{name}");
    }
    assert_eq!(
        name::check(&format!("rpool/{}", "a".repeat(250))).unwrap_err(),
        "name is too long"
    );
    assert!(name::check("rpool/hci/x.y_z:1-2@gold").is_ok());
}

#[test]
fn numbers_are_printed_and_read() {
    assert_eq!(number(20 << 30, false), "20G");
    assert_eq!(number(1536, false), "1.50K");
    assert_eq!(number(1536, true), "1536");
    assert_eq!(parse_number("20G"), Some(20 << 30));
    assert_eq!(parse_number("16k"), Some(16 << 10));
    assert_eq!(parse_number("x"), None);
}

/// A golden image and a clone of it.
fn golden(fixture: &TestHost) {
    fixture.ok("zfs create rpool/hci");
    fixture.ok("zfs create -o mountpoint=none rpool/hci/images");
    fixture.ok("zfs create rpool/hci/machines");
    fixture.ok("zfs create -s -V 1m -b 16k rpool/hci/images/v1");
    fixture.ok("zfs snapshot rpool/hci/images/v1@gold");
    fixture.ok("zfs hold helios-ci rpool/hci/images/v1@gold");
}

#[test]
fn a_clone_has_its_own_properties_and_the_bytes_of_its_origin() {
    let fixture = TestHost::new();
    fixture.ok("zfs create rpool/hci");
    fixture.ok("zfs create rpool/hci/machines");
    fixture.ok("zfs create -s -V 1m rpool/hci/v1");
    let node = fixture.sim.root().join("dev/zvol/rdsk/rpool/hci/v1");
    let file = std::fs::OpenOptions::new().write(true).open(&node).unwrap();
    file.write_all_at(b"golden", 4096).unwrap();
    drop(file);
    fixture.ok("zfs snapshot rpool/hci/v1@gold");
    fixture.ok("zfs clone -o helios-ci:node=n1 -o sync=disabled rpool/hci/v1@gold rpool/hci/machines/z");
    let bytes = std::fs::read(fixture.sim.root().join("dev/zvol/rdsk/rpool/hci/machines/z")).unwrap();
    assert_eq!((bytes.len(), &bytes[4096..4102]), (1 << 20, b"golden".as_slice()));
    assert_eq!(
        std::fs::read(fixture.sim.root().join("dev/zvol/dsk/rpool/hci/machines/z")).unwrap(),
        bytes
    );
    assert_eq!(
        fixture.ok("zfs get -Hp -o property,value,source origin,helios-ci:node,sync,volsize,quota,none:such rpool/hci/machines/z"),
        "origin\trpool/hci/v1@gold\t-\nhelios-ci:node\tn1\tlocal\nsync\tdisabled\tlocal\nvolsize\t1048576\tlocal\nquota\t-\t-\nnone:such\t-\t-\n"
    );
    assert_eq!(
        fixture.no("zfs destroy rpool/hci/v1", 1),
        "cannot destroy 'rpool/hci/v1': volume has children\nuse '-r' to destroy the following datasets:\nrpool/hci/v1@gold\n"
    );
    assert_eq!(
        fixture.no("zfs destroy -r rpool/hci/v1", 1),
        "cannot destroy 'rpool/hci/v1': volume has dependent clones\nuse '-R' to destroy the following datasets:\nrpool/hci/machines/z\n"
    );
    assert_eq!(
        fixture.no("zfs destroy rpool/hci/v1@gold", 1),
        "cannot destroy snapshot rpool/hci/v1@gold: snapshot is cloned\n"
    );
    fixture.ok("zfs destroy rpool/hci/machines/z");
    fixture.ok("zfs destroy -r rpool/hci/v1");
    assert_eq!(
        fixture.no("zfs list rpool/hci/v1", 1),
        "cannot open 'rpool/hci/v1': dataset does not exist\n"
    );
}

#[test]
fn a_held_snapshot_stays() {
    let fixture = TestHost::new();
    golden(&fixture);
    let gold = "rpool/hci/images/v1@gold";
    assert_eq!(
        fixture.no(&format!("zfs destroy {gold}"), 1),
        format!("cannot destroy '{gold}': dataset is busy\n")
    );
    assert!(
        fixture
            .no(&format!("zfs hold helios-ci {gold}"), 1)
            .contains("tag already exists on this dataset")
    );
    assert!(
        fixture
            .no(&format!("zfs release other {gold}"), 1)
            .contains("no such tag on this dataset")
    );
    assert!(
        fixture
            .ok(&format!("zfs holds -H {gold}"))
            .starts_with(&format!("{gold}\thelios-ci\t"))
    );
    fixture.ok(&format!("zfs destroy -d {gold}"));
    assert!(fixture.ok("zfs list -H -t snapshot -o name").contains(gold));
    fixture.ok(&format!("zfs release helios-ci {gold}"));
    assert_eq!(fixture.ok("zfs list -H -t snapshot -o name"), "");
    assert_eq!(
        fixture.no(&format!("zfs destroy {gold}"), 1),
        "could not find any snapshots to destroy; check snapshot names.\n"
    );
}

#[test]
fn creating_is_refused_in_zfs_words() {
    let fixture = TestHost::new();
    golden(&fixture);
    for (command, text) in [
        (
            "zfs create rpool/hci",
            "cannot create 'rpool/hci': dataset already exists",
        ),
        (
            "zfs create rpool/no/such",
            "cannot create 'rpool/no/such': no such parent 'rpool/no'",
        ),
        (
            "zfs create rpool/hci/images/v1/x",
            "parent 'rpool/hci/images/v1' is not a filesystem",
        ),
        (
            "zfs create -V 1000 -s rpool/hci/v",
            "volume size must be a multiple of volume block size",
        ),
        (
            "zfs create -V 900G rpool/hci/v",
            "cannot create 'rpool/hci/v': out of space",
        ),
        (
            "zfs create -o nonsense=1 rpool/x",
            "cannot create 'rpool/x': invalid property 'nonsense'",
        ),
        (
            "zfs clone rpool/hci/images/v1@none rpool/x",
            "cannot open 'rpool/hci/images/v1@none': dataset does not exist",
        ),
        (
            "zfs clone rpool/hci/images/v1@gold tank/x",
            "source and target pools differ",
        ),
        (
            "zfs snapshot rpool/hci/images/v1@gold",
            "cannot create snapshot 'rpool/hci/images/v1@gold': dataset already exists",
        ),
        (
            "zfs set volsize=1000 rpool/hci/images/v1",
            "volume size must be a multiple of volume block size",
        ),
        (
            "zfs set used=1 rpool/hci",
            "cannot set property for 'rpool/hci': 'used' is readonly",
        ),
    ] {
        let said = fixture.no(command, 1);
        assert!(said.contains(text), "{command}: {said}");
    }
    fixture.no("zfs create -x rpool/x", 2);
    fixture.no("zfs frobnicate", 2);
    fixture.no("zfs list -o nonsense", 2);
    fixture.no("zfs version", 2);
}

#[test]
fn lists_choose_by_kind_and_depth() {
    let fixture = TestHost::new();
    golden(&fixture);
    assert_eq!(
        fixture.ok("zfs list -Hp -r -t volume,snapshot -o name,type,helios-ci:node rpool/hci"),
        "rpool/hci/images/v1\tvolume\t-\nrpool/hci/images/v1@gold\tsnapshot\t-\n"
    );
    assert_eq!(
        fixture.ok("zfs list -H -d 1 -o name,mounted,mountpoint rpool/hci"),
        "rpool/hci\tyes\t/rpool/hci\nrpool/hci/images\tno\tnone\nrpool/hci/machines\tyes\t/rpool/hci/machines\n"
    );
    fixture.ok("zfs set helios-ci:node=n1 rpool/hci");
    assert_eq!(
        fixture.ok("zfs get -H -o value,source -s local,inherited helios-ci:node rpool/hci/images/v1@gold"),
        "n1\tinherited from rpool/hci\n"
    );
    let said = fixture.said("zfs list -H -o name rpool/none rpool/hci");
    assert_eq!((said.code, said.stdout.as_str()), (1, "rpool/hci\n"));
}

#[test]
fn a_volume_is_busy_while_open_and_shortly_after() {
    let fixture = TestHost::new();
    golden(&fixture);
    fixture.ok("zfs clone rpool/hci/images/v1@gold rpool/hci/machines/z");
    let open = std::fs::File::open(fixture.sim.root().join("dev/zvol/rdsk/rpool/hci/machines/z")).unwrap();
    assert_eq!(
        fixture.no("zfs destroy rpool/hci/machines/z", 1),
        "cannot destroy 'rpool/hci/machines/z': dataset is busy\n"
    );
    drop(open);
    fixture
        .sim
        .mutate(|host| host.state.datasets.get_mut("rpool/hci/machines/z").unwrap().busy = 1)
        .unwrap();
    fixture.no("zfs destroy rpool/hci/machines/z", 1);
    fixture.ok("zfs destroy rpool/hci/machines/z");
}

#[test]
fn mounts_carry_their_contents() {
    let fixture = TestHost::new();
    fixture.ok("zfs create -o mountpoint=/zones rpool/zones");
    fixture.ok("zfs create rpool/zones/z");
    let file = fixture.sim.root().join("zones/z/hello");
    std::fs::write(&file, "there").unwrap();
    fixture.ok("zfs unmount rpool/zones");
    assert!(!file.exists());
    assert_eq!(fixture.ok("zfs get -H -o value mounted rpool/zones/z"), "no\n");
    fixture.ok("zfs mount rpool/zones");
    fixture.ok("zfs mount rpool/zones/z");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "there");
    fixture.ok("zfs rename rpool/zones/z rpool/zones/y");
    assert_eq!(
        std::fs::read_to_string(fixture.sim.root().join("zones/y/hello")).unwrap(),
        "there"
    );
    fixture.ok("zfs set mountpoint=/elsewhere rpool/zones");
    assert_eq!(
        std::fs::read_to_string(fixture.sim.root().join("elsewhere/y/hello")).unwrap(),
        "there"
    );
    fixture.ok("zfs unmount rpool/zones/y");
    std::fs::write(fixture.sim.root().join("elsewhere/y/in-the-way"), "").unwrap();
    assert_eq!(
        fixture.no("zfs mount rpool/zones/y", 1),
        "cannot mount '/elsewhere/y': directory is not empty\n"
    );
    fixture.ok("zfs destroy -r rpool/zones");
}

#[test]
fn a_clone_takes_what_is_written_to_it() {
    use std::os::unix::fs::FileExt;
    let fixture = TestHost::new();
    let number = |property: &str, name: &str| -> u64 {
        let said = fixture.ok(&format!("zfs get -Hp -o value {property} {name}"));
        said.trim().parse().unwrap()
    };
    let write = |name: &str, at: u64| {
        let node = fixture.sim.root().join("dev/zvol/rdsk").join(name);
        let node = std::fs::OpenOptions::new().write(true).open(node).unwrap();
        node.write_all_at(&[1; 4 << 20], at).unwrap();
        node.sync_all().unwrap();
    };
    for command in [
        "zfs create -s -V 16m rpool/gold",
        "zfs create -o quota=3m rpool/machines",
    ] {
        fixture.ok(command);
    }
    write("rpool/gold", 0);
    fixture.ok("zfs snapshot rpool/gold@v1");
    fixture.ok("zfs clone rpool/gold@v1 rpool/machines/a");
    assert!(number("referenced", "rpool/machines/a") >= 4 << 20);
    assert!(number("used", "rpool/machines/a") < 1 << 20);
    assert!(number("available", "rpool/machines") > 2 << 20);
    fixture.ok("zfs clone rpool/gold@v1 rpool/machines/b");
    write("rpool/machines/a", 8 << 20);
    assert!(number("used", "rpool/machines/a") >= 4 << 20);
    assert_eq!(number("available", "rpool/machines"), 0);
    assert_eq!(
        fixture.no("zfs clone rpool/gold@v1 rpool/machines/c", 1),
        "cannot create 'rpool/machines/c': out of space\n"
    );
    fixture.ok("zfs destroy rpool/machines/a");
    fixture.ok("zfs clone rpool/gold@v1 rpool/machines/c");
}
