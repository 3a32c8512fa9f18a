use std::{fs, os::unix::fs::FileExt, path::Path};

use helios_ci::machine::zone::{
    command::{Failure, zfs},
    golden::{GoldenError, ImportStep},
};
use sha2::{Digest, Sha256};

use super::{
    fixture::{self, Tree, done, label, noise, ours, property},
    links,
};

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn an_image_is_imported_sparse_held_and_verified() {
    let tree = Tree::new("import");
    // Data, nothing for two of our blocks, data; and no whole number of sectors or of ZFS's blocks.
    let mut content = noise(5, 300_000);
    content.resize(3 << 20, 0);
    content.extend(noise(6, 100_003));
    assert_eq!(tree.import(&content), 1);
    assert_eq!(tree.children(), ["v1", "v1@gold"]);
    let volume = tree.below("images/debian/v1");
    let digest = hex::encode(Sha256::digest(&content));
    for (name, value) in [
        ("type", "volume"),
        ("volblocksize", "16384"),
        ("compression", "lz4"),
        ("refreservation", "none"),
        ("reservation", "none"),
        ("helios-ci:node", "n1"),
        ("helios-ci:sha256", &digest),
        ("helios-ci:bytes", &content.len().to_string()),
        ("volsize", &content.len().next_multiple_of(16384).to_string()),
    ] {
        let found = property(&volume, name);
        // `-p` prints 0 where there is none.
        assert!(
            found == value || value == "none" && found == "0",
            "{name} is {found}, not {value}"
        );
    }
    let referenced: usize = property(&volume, "referenced").parse().unwrap();
    assert!(
        referenced < 5 << 20,
        "{referenced} bytes: the empty blocks were written"
    );
    let gold = volume.snapshot("gold").unwrap();
    let holds = fixture::zfs(&["holds", "-H", &gold.to_string()]);
    assert!(holds.starts_with(&format!("{gold}\thelios-ci\t")), "{holds}");
    assert_eq!(tree.golden().verify(&label()).unwrap().1, digest);

    // The tail after the disk's last byte, and a single flipped bit before it.
    let device = links::of(&volume);
    for at in [content.len() as u64, 1000] {
        let file = fs::OpenOptions::new().read(true).write(true).open(&device).unwrap();
        let mut sector = [0; 512];
        let start = at / 512 * 512;
        file.read_exact_at(&mut sector, start).unwrap();
        let place = usize::try_from(at - start).unwrap();
        sector[place] ^= 1;
        file.write_all_at(&sector, start).unwrap();
        file.sync_all().unwrap();
        let error = tree.golden().verify(&label()).unwrap_err();
        assert!(matches!(error, GoldenError::Damaged { .. }), "{error}");
        sector[place] ^= 1;
        file.write_all_at(&sector, start).unwrap();
        file.sync_all().unwrap();
    }
    tree.golden().verify(&label()).unwrap();
}

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn versions_come_go_back_and_go() {
    let tree = Tree::new("versions");
    let disks: Vec<Vec<u8>> = (10..14).map(|seed| noise(seed, 100_000)).collect();
    assert_eq!(tree.import(&disks[0]), 1);
    // The same disk again is the version that is there.
    assert_eq!(tree.import(&disks[0]), 1);
    assert_eq!((tree.import(&disks[1]), tree.import(&disks[2])), (2, 3));
    assert_eq!(tree.versions(), [2, 3], "one to go back to is kept");
    let gold = tree.below("images/debian/v3").snapshot("gold").unwrap();
    let error = done(zfs::destroy_snapshot(&ours(&gold))).unwrap_err();
    assert_eq!(error.failure, Failure::Busy, "{error}");

    assert_eq!(tree.golden().rollback(&label()).unwrap().number, 2);
    links::renew();
    assert_eq!(tree.versions(), [2]);
    assert_eq!(
        tree.children(),
        [".withdrawn-v3", ".withdrawn-v3@gold", "v2", "v2@gold"]
    );
    tree.golden().verify(&label()).unwrap();
    assert!(tree.golden().rollback(&label()).is_err());
    // Its number is not given away, and it goes now that there is a newer one.
    assert_eq!(tree.import(&disks[3]), 4);
    assert_eq!(tree.children(), ["v2", "v2@gold", "v4", "v4@gold"]);
    tree.golden().remove_version(&label(), 2).unwrap();
    assert_eq!(tree.versions(), [4]);
    let error = tree.golden().remove_version(&label(), 2).unwrap_err();
    assert!(matches!(error, GoldenError::Nothing(_)), "{error}");
    let other = "other".parse().unwrap();
    assert!(tree.golden().versions(&other).unwrap().is_empty());
}

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn packed_disks_are_unpacked_and_wrong_ones_change_nothing() {
    let tree = Tree::new("packed");
    let mut content = noise(20, 70_001);
    content.resize(1_200_000, 0);
    let packed = zstd::encode_all(content.as_slice(), 1).unwrap();
    let file = Path::new("/tmp/disk.zst");
    fs::write(file, &packed).unwrap();
    let digest = hex::encode(Sha256::digest(&content));
    // The digest is of the disk, not of the file.
    let error = tree
        .golden()
        .import(file, &label(), &hex::encode(Sha256::digest(&packed)))
        .unwrap_err();
    assert!(matches!(error, GoldenError::Digest { .. }), "{error}");
    fs::write(file, &packed[..packed.len() - 5]).unwrap();
    let error = tree.golden().import(file, &label(), &digest).unwrap_err();
    assert!(
        matches!(
            error,
            GoldenError::Io {
                step: ImportStep::Unpack,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        zfs::dataset(
            &tree.below("images/debian"),
            &fixture::ran(zfs::query(&tree.below("images/debian")))
        )
        .unwrap()
        .is_none()
    );
    fs::write(file, &packed).unwrap();
    let version = tree.golden().import(file, &label(), &digest.to_uppercase()).unwrap();
    links::renew();
    assert_eq!(property(&version.volume, "helios-ci:bytes"), "1200000");
    assert_eq!(tree.golden().verify(&label()).unwrap().1, digest);
}

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn a_full_pool_is_said_and_nothing_is_kept() {
    let tree = Tree::small();
    tree.import(&noise(30, 100_000));
    // Almost all of the pool is somebody else's.
    let room = || zfs::available(&fixture::ran(zfs::space(&tree.root))).unwrap().unwrap();
    let other = tree.below("other");
    fixture::zfs(&["create", "-o", "mountpoint=/other", &other.to_string()]);
    fixture::zfs(&[
        "set",
        &format!("refreservation={}", room() - (1 << 20)),
        &other.to_string(),
    ]);
    let before = room();
    assert!(before < 2 << 20, "{before}");
    let (file, digest) = fixture::disk(&noise(31, 2 << 20));
    let error = tree.golden().import(&file, &label(), &digest).unwrap_err();
    links::renew();
    assert!(matches!(error, GoldenError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("nothing of it was kept"), "{error}");
    assert_eq!(tree.children(), ["v1", "v1@gold"]);
    // The same disk goes in as soon as there is room.
    fixture::zfs(&["destroy", &other.to_string()]);
    let version = tree.golden().import(&file, &label(), &digest).unwrap();
    assert_eq!(version.number, 2);
}
