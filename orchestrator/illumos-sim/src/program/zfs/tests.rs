use std::os::unix::fs::FileExt;

use super::*;
use crate::program::testing::Bed;

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
fn golden(bed: &Bed) {
    bed.ok("zfs create rpool/hci");
    bed.ok("zfs create -o mountpoint=none rpool/hci/images");
    bed.ok("zfs create rpool/hci/machines");
    bed.ok("zfs create -s -V 1m -b 16k rpool/hci/images/v1");
    bed.ok("zfs snapshot rpool/hci/images/v1@gold");
    bed.ok("zfs hold helios-ci rpool/hci/images/v1@gold");
}

#[test]
fn a_clone_has_its_own_properties_and_the_bytes_of_its_origin() {
    let bed = Bed::new();
    bed.ok("zfs create rpool/hci");
    bed.ok("zfs create rpool/hci/machines");
    bed.ok("zfs create -s -V 1m rpool/hci/v1");
    let node = bed.sim.root().join("dev/zvol/rdsk/rpool/hci/v1");
    let file = std::fs::OpenOptions::new().write(true).open(&node).unwrap();
    file.write_all_at(b"golden", 4096).unwrap();
    drop(file);
    bed.ok("zfs snapshot rpool/hci/v1@gold");
    bed.ok("zfs clone -o helios-ci:node=n1 -o sync=disabled rpool/hci/v1@gold rpool/hci/machines/z");
    let bytes = std::fs::read(bed.sim.root().join("dev/zvol/rdsk/rpool/hci/machines/z")).unwrap();
    assert_eq!((bytes.len(), &bytes[4096..4102]), (1 << 20, b"golden".as_slice()));
    assert_eq!(
        std::fs::read(bed.sim.root().join("dev/zvol/dsk/rpool/hci/machines/z")).unwrap(),
        bytes
    );
    assert_eq!(
        bed.ok("zfs get -Hp -o property,value,source origin,helios-ci:node,sync,volsize,quota,none:such rpool/hci/machines/z"),
        "origin\trpool/hci/v1@gold\t-\nhelios-ci:node\tn1\tlocal\nsync\tdisabled\tlocal\nvolsize\t1048576\tlocal\nquota\t-\t-\nnone:such\t-\t-\n"
    );
    assert_eq!(
        bed.no("zfs destroy rpool/hci/v1", 1),
        "cannot destroy 'rpool/hci/v1': volume has children\nuse '-r' to destroy the following datasets:\nrpool/hci/v1@gold\n"
    );
    assert_eq!(
        bed.no("zfs destroy -r rpool/hci/v1", 1),
        "cannot destroy 'rpool/hci/v1': volume has dependent clones\nuse '-R' to destroy the following datasets:\nrpool/hci/machines/z\n"
    );
    assert_eq!(
        bed.no("zfs destroy rpool/hci/v1@gold", 1),
        "cannot destroy snapshot rpool/hci/v1@gold: snapshot is cloned\n"
    );
    bed.ok("zfs destroy rpool/hci/machines/z");
    bed.ok("zfs destroy -r rpool/hci/v1");
    assert_eq!(
        bed.no("zfs list rpool/hci/v1", 1),
        "cannot open 'rpool/hci/v1': dataset does not exist\n"
    );
}

#[test]
fn a_held_snapshot_stays() {
    let bed = Bed::new();
    golden(&bed);
    let gold = "rpool/hci/images/v1@gold";
    assert_eq!(
        bed.no(&format!("zfs destroy {gold}"), 1),
        format!("cannot destroy '{gold}': dataset is busy\n")
    );
    assert!(
        bed.no(&format!("zfs hold helios-ci {gold}"), 1)
            .contains("tag already exists on this dataset")
    );
    assert!(
        bed.no(&format!("zfs release other {gold}"), 1)
            .contains("no such tag on this dataset")
    );
    assert!(
        bed.ok(&format!("zfs holds -H {gold}"))
            .starts_with(&format!("{gold}\thelios-ci\t"))
    );
    bed.ok(&format!("zfs destroy -d {gold}"));
    assert!(bed.ok("zfs list -H -t snapshot -o name").contains(gold));
    bed.ok(&format!("zfs release helios-ci {gold}"));
    assert_eq!(bed.ok("zfs list -H -t snapshot -o name"), "");
    assert_eq!(
        bed.no(&format!("zfs destroy {gold}"), 1),
        "could not find any snapshots to destroy; check snapshot names.\n"
    );
}

#[test]
fn creating_is_refused_in_zfs_words() {
    let bed = Bed::new();
    golden(&bed);
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
        let said = bed.no(command, 1);
        assert!(said.contains(text), "{command}: {said}");
    }
    bed.no("zfs create -x rpool/x", 2);
    bed.no("zfs frobnicate", 2);
    bed.no("zfs list -o nonsense", 2);
    bed.no("zfs version", 2);
}

#[test]
fn lists_choose_by_kind_and_depth() {
    let bed = Bed::new();
    golden(&bed);
    assert_eq!(
        bed.ok("zfs list -Hp -r -t volume,snapshot -o name,type,helios-ci:node rpool/hci"),
        "rpool/hci/images/v1\tvolume\t-\nrpool/hci/images/v1@gold\tsnapshot\t-\n"
    );
    assert_eq!(
        bed.ok("zfs list -H -d 1 -o name,mounted,mountpoint rpool/hci"),
        "rpool/hci\tyes\t/rpool/hci\nrpool/hci/images\tno\tnone\nrpool/hci/machines\tyes\t/rpool/hci/machines\n"
    );
    bed.ok("zfs set helios-ci:node=n1 rpool/hci");
    assert_eq!(
        bed.ok("zfs get -H -o value,source -s local,inherited helios-ci:node rpool/hci/images/v1@gold"),
        "n1\tinherited from rpool/hci\n"
    );
    let said = bed.said("zfs list -H -o name rpool/none rpool/hci");
    assert_eq!((said.code, said.stdout.as_str()), (1, "rpool/hci\n"));
}

#[test]
fn a_volume_is_busy_while_open_and_shortly_after() {
    let bed = Bed::new();
    golden(&bed);
    bed.ok("zfs clone rpool/hci/images/v1@gold rpool/hci/machines/z");
    let open = std::fs::File::open(bed.sim.root().join("dev/zvol/rdsk/rpool/hci/machines/z")).unwrap();
    assert_eq!(
        bed.no("zfs destroy rpool/hci/machines/z", 1),
        "cannot destroy 'rpool/hci/machines/z': dataset is busy\n"
    );
    drop(open);
    bed.sim
        .mutate(|host| host.state.datasets.get_mut("rpool/hci/machines/z").unwrap().busy = 1)
        .unwrap();
    bed.no("zfs destroy rpool/hci/machines/z", 1);
    bed.ok("zfs destroy rpool/hci/machines/z");
}

#[test]
fn mounts_carry_their_contents() {
    let bed = Bed::new();
    bed.ok("zfs create -o mountpoint=/zones rpool/zones");
    bed.ok("zfs create rpool/zones/z");
    let file = bed.sim.root().join("zones/z/hello");
    std::fs::write(&file, "there").unwrap();
    bed.ok("zfs unmount rpool/zones");
    assert!(!file.exists());
    assert_eq!(bed.ok("zfs get -H -o value mounted rpool/zones/z"), "no\n");
    bed.ok("zfs mount rpool/zones");
    bed.ok("zfs mount rpool/zones/z");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "there");
    bed.ok("zfs rename rpool/zones/z rpool/zones/y");
    assert_eq!(
        std::fs::read_to_string(bed.sim.root().join("zones/y/hello")).unwrap(),
        "there"
    );
    bed.ok("zfs set mountpoint=/elsewhere rpool/zones");
    assert_eq!(
        std::fs::read_to_string(bed.sim.root().join("elsewhere/y/hello")).unwrap(),
        "there"
    );
    bed.ok("zfs unmount rpool/zones/y");
    std::fs::write(bed.sim.root().join("elsewhere/y/in-the-way"), "").unwrap();
    assert_eq!(
        bed.no("zfs mount rpool/zones/y", 1),
        "cannot mount '/elsewhere/y': directory is not empty\n"
    );
    bed.ok("zfs destroy -r rpool/zones");
}

#[test]
fn a_clone_takes_what_is_written_to_it() {
    use std::os::unix::fs::FileExt;
    let bed = Bed::new();
    let number = |property: &str, name: &str| -> u64 {
        let said = bed.ok(&format!("zfs get -Hp -o value {property} {name}"));
        said.trim().parse().unwrap()
    };
    let write = |name: &str, at: u64| {
        let node = bed.sim.root().join("dev/zvol/rdsk").join(name);
        let node = std::fs::OpenOptions::new().write(true).open(node).unwrap();
        node.write_all_at(&[1; 4 << 20], at).unwrap();
        node.sync_all().unwrap();
    };
    for command in [
        "zfs create -s -V 16m rpool/gold",
        "zfs create -o quota=3m rpool/machines",
    ] {
        bed.ok(command);
    }
    write("rpool/gold", 0);
    bed.ok("zfs snapshot rpool/gold@v1");
    bed.ok("zfs clone rpool/gold@v1 rpool/machines/a");
    assert!(number("referenced", "rpool/machines/a") >= 4 << 20);
    assert!(number("used", "rpool/machines/a") < 1 << 20);
    assert!(number("available", "rpool/machines") > 2 << 20);
    bed.ok("zfs clone rpool/gold@v1 rpool/machines/b");
    write("rpool/machines/a", 8 << 20);
    assert!(number("used", "rpool/machines/a") >= 4 << 20);
    assert_eq!(number("available", "rpool/machines"), 0);
    assert_eq!(
        bed.no("zfs clone rpool/gold@v1 rpool/machines/c", 1),
        "cannot create 'rpool/machines/c': out of space\n"
    );
    bed.ok("zfs destroy rpool/machines/a");
    bed.ok("zfs clone rpool/gold@v1 rpool/machines/c");
}
