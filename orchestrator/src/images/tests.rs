use super::*;
use crate::model::size::Size;

struct World {
    dir: tempfile::TempDir,
    label: Label,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            label: "tiny".parse().unwrap(),
        }
    }

    fn library(&self, disk: Option<(&Path, Option<&str>)>) -> Library {
        let size = Size {
            cpus: 1,
            memory_mib: 1,
            disk_gib: None,
        };
        let image = disk.map(|(disk, sha256)| Image {
            disk: Some(disk.to_owned()),
            kind: crate::config::GuestKind::LinuxUefi,
            attributes: std::collections::BTreeMap::new(),
            sha256: sha256.map(str::to_owned),
            kernel: None,
            initrd: None,
            cmdline: None,
            size,
            boot_timeout_s: 1,
        });
        Library::new(
            self.dir.path(),
            image.map(|image| (self.label.clone(), image)).into_iter().collect(),
        )
    }

    fn file(&self, bytes: &[u8]) -> (PathBuf, String) {
        let path = self.dir.path().join("source");
        std::fs::write(&path, bytes).unwrap();
        (path, hex::encode(Sha256::digest(bytes)))
    }

    fn qcow2(&self, args: &[&str]) -> (PathBuf, String) {
        let path = self.dir.path().join("made.qcow2");
        let made = Cmd::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .args(args)
            .arg(&path)
            .arg("2M");
        made.run_blocking().unwrap().ok().unwrap();
        self.file(&std::fs::read(path).unwrap())
    }

    /// The names in the label's directory, without the lock.
    fn stored(&self) -> Vec<String> {
        let mut names = names(&self.dir.path().join("images/tiny")).unwrap();
        names.retain(|name| name != ".lock");
        names
    }
}

#[test]
fn an_imported_image_is_listed_verified_and_read_only() {
    let world = World::new();
    let (file, sha256) = world.qcow2(&[]);
    let (disk, meta) = world
        .library(None)
        .import(&file, &sha256.to_uppercase(), &world.label, Format::Qcow2)
        .unwrap();
    assert_eq!(world.stored(), [format!("{sha256}.json"), format!("{sha256}.qcow2")]);
    assert_eq!((meta.virtual_size, meta.source_name.as_str()), (2 << 20, "source"));
    assert_eq!(std::fs::metadata(&disk).unwrap().permissions().mode() & 0o777, 0o444);
    let entries = world.library(None).list().unwrap();
    assert_eq!(
        (entries.len(), entries[0].configured, entries[0].state.clone()),
        (1, false, Ok(meta.bytes))
    );
    // Configured without a digest, the import's record counts.
    let library = world.library(Some((&disk, None)));
    assert_eq!(library.verify(&world.label).unwrap().sha256, sha256);
    assert_eq!(library.list().unwrap().len(), 1);
    // Again is fine.
    world
        .library(None)
        .import(&file, &sha256, &world.label, Format::Qcow2)
        .unwrap();
}

#[test]
fn a_damaged_image_is_seen_and_repaired_by_importing_it_again() {
    let world = World::new();
    let (file, sha256) = world.qcow2(&[]);
    let (disk, _) = world
        .library(None)
        .import(&file, &sha256, &world.label, Format::Qcow2)
        .unwrap();
    let mut bytes = std::fs::read(&disk).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&disk).unwrap();
    std::fs::write(&disk, bytes).unwrap();
    for configured in [None, Some(sha256.as_str())] {
        let error = world
            .library(Some((&disk, configured)))
            .verify(&world.label)
            .unwrap_err();
        assert!(matches!(error, ImageError::Mismatch { .. }), "{error}");
    }
    world
        .library(None)
        .import(&file, &sha256, &world.label, Format::Qcow2)
        .unwrap();
    world.library(Some((&disk, None))).verify(&world.label).unwrap();
}

#[test]
fn wrong_truncated_and_foreign_files_leave_nothing() {
    let world = World::new();
    let library = world.library(None);
    let import = |file: &Path, sha256: &str| library.import(file, sha256, &world.label, Format::Qcow2).unwrap_err();
    let (file, sha256) = world.qcow2(&[]);
    assert!(matches!(import(&file, &"0".repeat(64)), ImageError::Mismatch { .. }));
    assert!(matches!(import(&file, "abc"), ImageError::BadDigest(_)));
    // Truncated on its way: the digest tells.
    let bytes = std::fs::read(&file).unwrap();
    world.file(&bytes[..bytes.len() - 1]);
    assert!(matches!(import(&file, &sha256), ImageError::Mismatch { .. }));
    // Whole by its digest, but the header is not.
    let (file, sha256) = world.file(&bytes[..50]);
    assert!(matches!(import(&file, &sha256), ImageError::Format { .. }));
    let (file, sha256) = world.file(b"#!/bin/sh\n");
    let error = import(&file, &sha256).to_string();
    assert!(error.contains("not a qcow2 image"), "{error}");
    let (file, sha256) = world.qcow2(&["-u", "-F", "raw", "-b", "/etc/hostname"]);
    let error = import(&file, &sha256).to_string();
    assert!(error.contains("a backing file"), "{error}");
    assert!(matches!(
        import(Path::new("/nonexistent"), &sha256),
        ImageError::Io { .. }
    ));
    assert_eq!(world.stored(), [""; 0]);
    assert!(library.list().unwrap().is_empty());
}

#[test]
fn a_raw_image_is_taken_only_when_it_is_called_so() {
    let world = World::new();
    let (file, sha256) = world.file(&[7; 1 << 20]);
    let (disk, meta) = world
        .library(None)
        .import(&file, &sha256, &world.label, Format::Raw)
        .unwrap();
    assert_eq!(
        (meta.source_sha256.as_str(), meta.virtual_size),
        (sha256.as_str(), 1 << 20)
    );
    assert_ne!(meta.sha256, sha256);
    world.library(Some((&disk, None))).verify(&world.label).unwrap();
    assert_eq!(world.stored().len(), 2);
}

#[test]
fn an_import_that_was_killed_leaves_nothing_that_is_trusted_and_does_not_stop_the_next() {
    let world = World::new();
    let (file, sha256) = world.qcow2(&[]);
    let dir = world.dir.path().join("images/tiny");
    std::fs::create_dir_all(&dir).unwrap();
    // Killed while copying, while converting, and between the two renames.
    std::fs::write(dir.join(".incoming"), b"half").unwrap();
    std::fs::write(dir.join(".converted"), b"half").unwrap();
    std::fs::copy(&file, dir.join(format!("{sha256}.qcow2"))).unwrap();
    assert!(world.library(None).list().unwrap().is_empty());
    let disk = dir.join(format!("{sha256}.qcow2"));
    let error = world.library(Some((&disk, None))).verify(&world.label).unwrap_err();
    assert!(matches!(error, ImageError::Unrecorded { .. }), "{error}");
    world
        .library(None)
        .import(&file, &sha256, &world.label, Format::Qcow2)
        .unwrap();
    assert_eq!(world.stored().len(), 2);
}

#[test]
fn concurrent_imports_of_one_label_take_turns() {
    let world = World::new();
    let (file, sha256) = world.qcow2(&[]);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                world
                    .library(None)
                    .import(&file, &sha256, &world.label, Format::Qcow2)
                    .unwrap()
            });
        }
    });
    assert_eq!(world.stored().len(), 2);
    let disk = world.library(None).disk(&world.label, &sha256);
    world.library(Some((&disk, None))).verify(&world.label).unwrap();
}

#[test]
fn what_nobody_recorded_is_told_with_its_digest() {
    let world = World::new();
    let (file, sha256) = world.qcow2(&[]);
    let error = world
        .library(Some((&file, None)))
        .verify(&world.label)
        .unwrap_err()
        .to_string();
    assert!(error.contains(&sha256), "{error}");
    world
        .library(Some((&file, Some(&sha256))))
        .verify(&world.label)
        .unwrap();
    let other = "other".parse().unwrap();
    assert!(matches!(
        world.library(None).verify(&other),
        Err(ImageError::Unknown(_))
    ));
    let missing = Path::new("/nonexistent/disk.qcow2");
    let entries = world.library(Some((missing, None))).list().unwrap();
    assert!(entries[0].state.as_ref().unwrap_err().contains("cannot be read"));
}
