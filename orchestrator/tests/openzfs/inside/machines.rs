use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use helios_ci::machine::{
    MachineSpec,
    zone::command::{Failure, zfs},
};

use super::{
    fixture::{self, Tree, done, host, label, node, noise, ours, property, ran},
    links,
};

/// What the system says of a device that takes no more.
const EIO: i32 = 5;
/// So long somebody has a disk open that is to go.
const WAITED: Duration = Duration::from_secs(2);

#[tokio::test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
async fn a_disk_is_cloned_grown_and_destroyed() {
    let tree = Tree::new("disks");
    let content = noise(1, 300_000);
    tree.import(&content);
    let (spec, origin) = (
        fixture::spec(Some(2)),
        tree.below("images/debian/v1").snapshot("gold").unwrap(),
    );
    let disk = tree.below(&format!("machines/{}", spec.name));
    let make = || async {
        host()
            .make_disk(&spec, &origin, &disk)
            .await
            .map_err(|trouble| trouble.reason)
    };
    make().await.unwrap();
    let seen = zfs::dataset(&disk, &ran(zfs::query(&disk))).unwrap().unwrap();
    assert_eq!(
        (seen.node.as_deref(), seen.attempt, seen.origin),
        (
            Some("n1"),
            Some(spec.name.attempt().to_string()),
            Some(origin.to_string())
        )
    );
    assert_eq!(seen.volsize, Some(2 << 30));
    assert_eq!(
        (property(&disk, "sync"), property(&disk, "refreservation")),
        ("disabled".into(), "0".into())
    );
    assert_eq!(property(&origin, "clones"), disk.to_string());
    // The image's own properties are not the clone's.
    assert!(
        !zfs::noted(&ran(zfs::get(&disk, &["helios-ci:sha256"])))
            .unwrap()
            .contains_key("helios-ci:sha256")
    );
    let device = links::of(&disk);
    let read = |count| {
        let mut bytes = vec![0; count];
        io::Read::read_exact(&mut std::fs::File::open(&device).unwrap(), &mut bytes).unwrap();
        bytes
    };
    assert!(read(content.len()) == content, "a clone has what the golden disk has");
    // Again: it exists, is ours, and is as it should be.
    make().await.unwrap();
    let another = fixture::spec(None);
    let trouble = host().make_disk(&another, &origin, &disk).await.unwrap_err();
    assert!(trouble.reason.contains("it is left alone"), "{}", trouble.reason);
    let trouble = host().remove_disk(&another.name, &disk).await.unwrap_err();
    assert!(trouble.reason.contains("it is left alone"), "{}", trouble.reason);

    // A version that a machine is a clone of stays whole, whoever removes it.
    let error = tree.golden().remove_version(&label(), 1).unwrap_err();
    // illumos: `cannot destroy snapshot …: snapshot is cloned`.
    assert!(error.to_string().contains("snapshot has dependent clones"), "{error}");
    assert_eq!(
        fixture::zfs(&["holds", "-H", &origin.to_string()]).split('\t').nth(1),
        Some("helios-ci")
    );
    assert_eq!(tree.versions(), [1]);
    host()
        .remove_disk(&spec.name, &disk)
        .await
        .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    host()
        .remove_disk(&spec.name, &disk)
        .await
        .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    tree.golden().remove_version(&label(), 1).unwrap();
    assert!(tree.children().is_empty(), "{:?}", tree.children());
}

#[tokio::test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
async fn a_busy_disk_is_waited_for_and_then_quarantined() {
    let tree = Tree::new("busy");
    tree.import(&noise(2, 100_000));
    let (spec, origin) = (
        fixture::spec(None),
        tree.below("images/debian/v1").snapshot("gold").unwrap(),
    );
    let machines = tree.below("machines");
    let disk = machines.child(spec.name.as_str()).unwrap();
    host()
        .make_disk(&spec, &origin, &disk)
        .await
        .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    let open = || std::fs::File::open(links::of(&disk)).unwrap();
    let guest = open();
    let error = done(zfs::destroy(&ours(&disk))).unwrap_err();
    assert_eq!(error.failure, Failure::Busy, "{error}");
    assert_eq!(error.said, format!("cannot destroy '{disk}': dataset is busy"));
    // Whoever has it open lets go after a while: it is gone.
    let began = Instant::now();
    let letting_go = async {
        tokio::time::sleep(WAITED).await;
        drop(guest);
    };
    let a_host = host();
    let (removed, ()) = tokio::join!(a_host.remove_disk(&spec.name, &disk), letting_go);
    removed.unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    assert!(began.elapsed() >= WAITED);
    assert!(zfs::dataset(&disk, &ran(zfs::query(&disk))).unwrap().is_none());

    host()
        .make_disk(&spec, &origin, &disk)
        .await
        .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    let guest = open();
    host()
        .remove_disk(&spec.name, &disk)
        .await
        .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    assert_eq!(property(&disk, zfs::STATE), "quarantined");
    let children = zfs::children_by_owner(&machines, &node(), &ran(zfs::list(&machines))).unwrap();
    assert!(
        children.ours.is_empty() && children.quarantined == [spec.name.to_string()],
        "{children:?}"
    );
    drop(guest);
    done(zfs::destroy(&ours(&disk))).unwrap();
}

/// Writes to a device as a guest would, a megabyte at a time, until it is told that it cannot.
fn fill(device: &std::path::Path, megabytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(device)?;
    let block = noise(3, 1 << 20);
    for number in 0..megabytes {
        file.write_all_at(&block, number << 20)?;
        file.sync_all()?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
async fn a_quota_on_all_machines_bounds_them_together() {
    let tree = Tree::new("quota");
    tree.import(&noise(4, 100_000));
    let machines = tree.below("machines");
    fixture::zfs(&["set", "quota=4m", &machines.to_string()]);
    let origin = tree.below("images/debian/v1").snapshot("gold").unwrap();
    let (first, second) = (fixture::spec(Some(1)), fixture::spec(Some(1)));
    let disk = |spec: &MachineSpec| machines.child(spec.name.as_str()).unwrap();
    let make = async |spec: &MachineSpec| {
        let made = host().make_disk(spec, &origin, &disk(spec)).await;
        made.unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    };
    make(&first).await;
    let failed = |spec| fill(&links::of(&disk(spec)), 8).unwrap_err().raw_os_error();
    // Linux says EIO, not ENOSPC. So may illumos: a guest cannot tell a full pool from a broken disk.
    assert_eq!(failed(&first), Some(EIO));
    let used: u64 = property(&machines, "used").parse().unwrap();
    assert!(used <= 5 << 20, "{used}");
    // A quota bounds what is written, not how many clones there are; only what sets room aside is refused.
    make(&second).await;
    let (made, said) = fixture::tool("/sbin/zfs", &["create", "-V", "16m", &format!("{machines}/thick")]);
    assert!(!made && said.contains("': out of space"), "{said}");
    let error = done(zfs::set(&disk(&second), "refreservation", "8m")).unwrap_err();
    // Other words than for a creation; nothing of ours is given a reservation afterwards.
    assert!(error.said.contains("size is greater than available space"), "{error}");
    // A full quota hinders no removal, and then there is room again.
    for spec in [&first, &second] {
        host()
            .remove_disk(&spec.name, &disk(spec))
            .await
            .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    }
    let third = fixture::spec(Some(1));
    make(&third).await;
    fill(&links::of(&disk(&third)), 1).unwrap();
}
