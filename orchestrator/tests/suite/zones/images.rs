#![allow(clippy::disallowed_methods, reason = "an import is killed as only a process can be")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use helios_ci::{failpoint::Point, machine::zone::golden::GoldenError};
use illumos_sim::faults::{Action, Fault};
use sha2::{Digest, Sha256};

use super::{
    admin::configure,
    deadline,
    simulated_host::{self, golden, host, import},
};

const IMAGE: &str = "rpool/hci/images/debian/";

/// More than three of the blocks that are written at a time.
const BLOCKS: usize = 3_200_001;

/// A disk that holds something at its begin and its end; its digest.
fn disk(file: &Path, seed: u32, size: usize) -> String {
    let mut content = vec![0; size];
    content[..4].copy_from_slice(&seed.to_be_bytes());
    content[size - 1] = 1;
    fs::write(file, &content).unwrap();
    hex::encode(Sha256::digest(&content))
}

/// `helios-ci image import`, as an administrator types it.
fn command(file: &Path, digest: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_helios-ci"));
    command
        .args(["--config", "/run/config.yaml", "image", "import"])
        .arg(file);
    command.args(["debian", "--sha256", digest]).stdin(Stdio::null());
    command
}

/// Nothing is there but the version that is used, the one before it, and their held snapshots.
fn only_two_versions(newest: u32, when: &str) {
    let state = host().state().unwrap();
    let below = |name: &&String| name.starts_with(IMAGE);
    let names: Vec<&str> = state
        .datasets
        .keys()
        .filter(below)
        .map(|name| &name[IMAGE.len()..])
        .collect();
    let mut wanted: Vec<String> = [newest - 1, newest]
        .iter()
        .flat_map(|n| [format!("v{n}"), format!("v{n}@gold")])
        .collect();
    wanted.sort();
    assert_eq!(names, wanted, "{when}");
    for (name, dataset) in &state.datasets {
        let gold = name.starts_with(IMAGE) && name.ends_with("@gold");
        assert!(
            !gold || dataset.holds.contains_key("helios-ci"),
            "{when}: {name} is not held"
        );
    }
}

fn fault(args: &[&str], nth: u32, action: Action) {
    let args = args.iter().map(|word| (*word).to_owned()).collect();
    let fault = Fault {
        program: "zfs".to_owned(),
        args,
        nth,
        times: 1,
        action,
        seen: 0,
    };
    host().mutate(|host| host.faults.calls = vec![fault]).unwrap();
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn an_import_that_is_killed_anywhere_is_made_good_by_the_next() {
    simulated_host::prepare();
    configure();
    let (file, mut newest) = (Path::new("/run/disk.raw"), 1);
    for (seed, point) in (0..).zip(Point::IMPORT) {
        let digest = disk(file, seed, BLOCKS);
        let killed = command(file, &digest)
            .env("HELIOS_CI_FAILPOINT", format!("{point:?}"))
            .output()
            .unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{point:?}: {killed:?}");
        // What was in use still is, whole; or all of the new one is.
        let used = golden().verify(&"debian".parse().unwrap()).unwrap().0.number;
        assert_eq!(
            used,
            if *point == Point::ImageNamed {
                newest + 1
            } else {
                newest
            },
            "{point:?}"
        );
        let again = command(file, &digest).output().unwrap();
        assert!(again.status.success(), "{point:?}: {again:?}");
        newest += 1;
        assert_eq!(
            golden().verify(&"debian".parse().unwrap()).unwrap().1,
            digest,
            "{point:?}"
        );
        only_two_versions(newest, &format!("{point:?}"));
    }
    // Half a disk of a version that will never be: its number was given back by a rollback.
    let digest = disk(file, 100, BLOCKS);
    command(file, &digest)
        .env("HELIOS_CI_FAILPOINT", "ImageSnapped")
        .output()
        .unwrap();
    golden().rollback(&"debian".parse().unwrap()).unwrap();
    import(b"another");
    only_two_versions_after_rollback(newest);
}

/// The one that was rolled back is gone with the next import, and its number is not used again.
fn only_two_versions_after_rollback(rolled_back: u32) {
    let state = host().state().unwrap();
    let names: Vec<&String> = state.datasets.keys().filter(|name| name.starts_with(IMAGE)).collect();
    let (old, new) = (rolled_back - 1, rolled_back + 1);
    let mut wanted: Vec<String> = [old, new]
        .iter()
        .flat_map(|n| [format!("{IMAGE}v{n}"), format!("{IMAGE}v{n}@gold")])
        .collect();
    wanted.sort();
    assert_eq!(names, wanted.iter().collect::<Vec<_>>());
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn an_import_in_which_any_command_goes_wrong_is_made_good_by_the_next() {
    simulated_host::prepare();
    let (file, label) = (Path::new("/run/disk.raw"), "debian".parse().unwrap());
    let (mut newest, mut seed) = (1, 0);
    let (code, stderr) = (1, "the moon is full\n".to_owned());
    let fail = Action::Fail {
        code,
        stderr: stderr.clone(),
    };
    let fail_after = Action::FailAfter { code, stderr };
    for action in [fail, fail_after, Action::Kill, Action::KillAfter] {
        for nth in 1.. {
            assert!(nth < 80, "zfs is called without end");
            let when = format!("{action:?} at call {nth}");
            let digest = disk(file, seed, 10_001);
            seed += 1;
            fault(&[], nth, action.clone());
            let first = golden().import(file, &label, &digest);
            let untouched = host().faults().unwrap().calls[0].seen < nth;
            host().mutate(|host| host.faults.calls.clear()).unwrap();
            let used = golden().verify(&label).unwrap();
            assert!(used.0.number == newest || used.1 == digest, "{when}: {used:?}");
            let again = golden()
                .import(file, &label, &digest)
                .unwrap_or_else(|error| panic!("{when}: {error}"));
            newest += 1;
            assert_eq!(again.number, newest, "{when}: {first:?}");
            only_two_versions(newest, &when);
            if untouched {
                assert!(nth > 15, "an import consists of more than {nth} commands");
                break;
            }
        }
    }
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn one_import_at_a_time_and_never_beside_the_last_command_of_another() {
    simulated_host::prepare();
    configure();
    let file = Path::new("/run/disk.raw");
    let digest = disk(file, 7, 10_001);
    fault(&["snapshot"], 1, Action::HangAfter);
    let mut hanging = command(file, &digest).spawn().unwrap();
    let until = Instant::now() + deadline::PROMPT;
    let children = format!("/proc/{0}/task", hanging.id());
    let zfs = loop {
        assert!(Instant::now() < until, "it never comes to its snapshot");
        let tasks = fs::read_dir(&children).unwrap().flatten();
        let pids: String = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .collect();
        let seen = host().faults().unwrap().calls[0].seen == 1;
        if let (true, Ok(pid)) = (seen, pids.trim().parse::<i32>()) {
            break nix::unistd::Pid::from_raw(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    host().mutate(|host| host.faults.calls.clear()).unwrap();
    let refused = || {
        let output = command(file, &digest).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains("is held by another"),
            "{text}"
        );
    };
    refused();
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    // Its command is still at it.
    refused();
    nix::sys::signal::kill(zfs, nix::sys::signal::Signal::SIGKILL).unwrap();
    let output = command(file, &digest).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    only_two_versions(2, "after all");
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn no_room_for_an_image_is_said_and_nothing_is_kept() {
    simulated_host::prepare();
    let (file, label) = (Path::new("/run/disk.raw"), "debian".parse().unwrap());
    let digest = disk(file, 8, 10_001);
    let before = host().state().unwrap().datasets.into_keys().collect::<Vec<_>>();
    for command in ["create", "set", "snapshot"] {
        let stderr = format!("cannot {command} 'x': out of space\n");
        fault(
            &[command, "rpool/hci/images/debian/.new*"],
            1,
            Action::Fail { code: 1, stderr },
        );
        let error = golden().import(file, &label, &digest).unwrap_err();
        assert!(matches!(error, GoldenError::Full { .. }), "{command}: {error:?}");
        assert_eq!(
            host().state().unwrap().datasets.into_keys().collect::<Vec<_>>(),
            before,
            "{command}"
        );
    }
    assert_eq!(golden().import(file, &label, &digest).unwrap().number, 2);
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn a_golden_disk_is_imported_verified_and_rolled_back() {
    simulated_host::prepare();
    let label = "debian".parse().unwrap();
    let numbers = || {
        golden()
            .versions(&label)
            .unwrap()
            .iter()
            .map(|v| v.number)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(), [1]);
    golden().verify(&label).unwrap();
    assert_eq!((import(b"two"), import(&[7; 3_000_000])), (2, 3));
    assert_eq!(numbers(), [2, 3], "one to go back to is kept");
    golden().verify(&label).unwrap();
    assert_eq!(golden().rollback(&label).unwrap().number, 2);
    assert_eq!(numbers(), [2]);
    assert!(golden().rollback(&label).is_err());
    let file = std::path::Path::new("/run/disk.raw");
    let before = host().state().unwrap();
    let error = golden().import(file, &label, &"0".repeat(64)).unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(host().state().unwrap(), before);
    let volume = host().root().join("dev/zvol/rdsk/rpool/hci/images/debian/v2");
    std::fs::write(volume, b"xwo").unwrap();
    assert!(golden().verify(&label).unwrap_err().to_string().contains("read back"));
    // All that setup does is there: the second time there is nothing to do.
    let missing = helios_ci::machine::zone::setup::missing(&"n1".parse().unwrap(), &simulated_host::zone()).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What the host's raw volumes are to this program: without this, no test here would notice a read past their end.
#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn a_raw_volume_has_no_end_of_file_and_whole_sectors_only() {
    simulated_host::prepare();
    let device = Path::new("/dev/zvol/rdsk/rpool/hci/images/debian/v1");
    let mut volume = File::options().read(true).write(true).open(device).unwrap();
    let size = volume.metadata().unwrap().len();
    let mut whole = vec![0; usize::try_from(size).unwrap()];
    volume.read_exact(&mut whole).unwrap();
    let errno = |result: std::io::Result<usize>| result.unwrap_err().raw_os_error();
    assert_eq!(errno(volume.read(&mut [0; 512])), Some(nix::libc::EIO));
    assert_eq!(errno(volume.read_at(&mut [0; 512], size)), Some(nix::libc::EIO));
    assert_eq!(errno(volume.write_at(&[0; 512], size)), Some(nix::libc::EIO));
    assert_eq!(errno(volume.read_at(&mut [0; 100], 0)), Some(nix::libc::EINVAL));
    assert_eq!(errno(volume.write_at(&[0; 512], 100)), Some(nix::libc::EINVAL));
    // The last read before the end is a short one, and not refused.
    assert_eq!(volume.read_at(&mut [0; 1024], size - 512).unwrap(), 512);
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn a_disk_that_cannot_be_read_is_said_to_be_that_and_no_other_thing() {
    simulated_host::prepare();
    let label = "debian".parse().unwrap();
    // The host's disk answers with an error before the volume ends.
    let device = "/dev/zvol/rdsk/rpool/hci/images/debian/v1";
    let volume = File::options().write(true).open(device).unwrap();
    volume.set_len(8192).unwrap();
    let error = golden().verify(&label).unwrap_err();
    assert!(matches!(error, GoldenError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains(device), "{error}");
    let newest = golden().versions(&label).unwrap().pop().unwrap();
    newest.is_readable().unwrap();
    volume.set_len(0).unwrap();
    let error = newest.is_readable().unwrap_err();
    assert!(error.to_string().contains("cannot be read back"), "{error}");
    // It is imported anew, as the next version.
    assert_eq!(import(b"a golden disk"), 2);
}

/// The address of a server that gives this file to whoever asks, once in a connection.
fn served(content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, mut head) = (socket.unwrap(), Vec::new());
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            }
            let length = content.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _closed = socket
                .write_all(head.as_bytes())
                .and_then(|()| socket.write_all(&content));
        }
    });
    format!("http://{address}/disk.raw.zst")
}

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn a_golden_disk_is_fetched_from_an_address_and_no_download_stays() {
    simulated_host::prepare();
    configure();
    let downloads = Path::new("/run/data/downloads");
    fs::create_dir("/run/data").unwrap();
    let left = || fs::read_dir(downloads).unwrap().count();
    let file = Path::new("/run/disk.raw");
    let digest = disk(file, 9, BLOCKS);
    let packed = zstd::encode_all(fs::read(file).unwrap().as_slice(), 1).unwrap();
    let url = served(packed.clone());
    let imported = command(Path::new(&url), &digest).output().unwrap();
    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(golden().verify(&"debian".parse().unwrap()).unwrap().1, digest);
    only_two_versions(2, "fetched");
    assert_eq!(left(), 0);
    // Another file, and one that is damaged: gone, and nothing was changed.
    let before = host().state().unwrap();
    let cut = served(packed[..packed.len() - 1].to_vec());
    for (url, digest, word) in [
        (&url, "0".repeat(64), "digest"),
        (&cut, digest.clone(), "cannot be unpacked"),
    ] {
        let refused = command(Path::new(url), &digest).output().unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && text.contains(word), "{text}");
        assert!(text.contains("did not give the expected file"), "{text}");
        assert_eq!((left(), host().state().unwrap()), (0, before.clone()), "{text}");
    }
    // This host's trouble is not the file's: it stays for the next time.
    let other = disk(file, 10, BLOCKS);
    let url = served(zstd::encode_all(fs::read(file).unwrap().as_slice(), 1).unwrap());
    let stderr = "cannot create 'x': out of space\n".to_owned();
    fault(
        &["create", "rpool/hci/images/debian/.new*"],
        1,
        Action::Fail { code: 1, stderr },
    );
    let full = command(Path::new(&url), &other).output().unwrap();
    let text = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(text.contains("no room") && text.contains("is kept"), "{text}");
    assert_eq!(left(), 1);
    let again = command(Path::new(&url), &other).output().unwrap();
    assert!(again.status.success(), "{again:?}");
    assert_eq!(left(), 0);
}
