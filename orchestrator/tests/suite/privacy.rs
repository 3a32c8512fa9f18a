//! What other users of a node could see: no secret in any command line or environment of the daemon
//! and what it starts, and no file that is not private.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::support::{self, Machines, World, hold, pause, prerequisites};

/// A `git` that notes its arguments and environment and then is git.
fn noting_git(world: &World) -> String {
    let path = std::env::var("PATH").expect("a PATH");
    let real = path
        .split(':')
        .map(|dir| Path::new(dir).join("git"))
        .find(|git| git.is_file())
        .expect("git is installed");
    let dir = world.dir.path().join("bin");
    fs::create_dir(&dir).expect("a directory");
    let notes = world.dir.path().join("git-saw").display().to_string();
    let script = format!(
        "#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> {notes}\necho >> {notes}\nexec {} \"$@\"\n",
        real.display()
    );
    support::write_program(&dir.join("git"), &script);
    format!("{}:{path}", dir.display())
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Arguments and environments of the daemon, its descendants, and whatever works in its directory.
fn look(daemon: i32, data: &str) -> String {
    let mut seen = String::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let read = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let (cmdline, environ) = (read("cmdline"), read("environ"));
        let descends = std::iter::successors(Some(pid), |pid| parent(*pid)).any(|pid| pid == daemon);
        if descends || cmdline.contains(data) || environ.contains(data) {
            seen += &format!("{cmdline}\n{environ}\n");
        }
    }
    seen
}

/// Files, directories and sockets that others may use in any way.
fn open_to_others(data: &Path) -> Vec<String> {
    let mut open = Vec::new();
    let mut judge = |path: &Path| {
        if let Ok(meta) = fs::symlink_metadata(path)
            && !meta.is_symlink()
            && meta.permissions().mode() & 0o077 != 0
        {
            open.push(format!("{:o} {}", meta.permissions().mode(), path.display()));
        }
    };
    judge(data);
    hold::walk(data, &mut |path, _| judge(path));
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_arguments_or_environments_and_every_file_is_private() {
    let machines = if support::guest().is_some() {
        Machines::Qemu
    } else {
        prerequisites::skip_unless_full("without the tiny guest (`make guest`) machines are processes");
        Machines::Process
    };
    let mut world = World::stopped(machines, "").await;
    let path = noting_git(&world);
    world.up_with(&[("PATH", &path)]);
    let read = |name: &str| fs::read_to_string(world.dir.path().join(name)).expect("a secret");
    let mut secrets = vec![read("hook"), read("forgejo-token"), world.token().to_owned()];
    // Any line of the key but its first and last; join tokens and headers by what they begin with.
    secrets.extend(
        read("app.pem")
            .lines()
            .filter(|l| !l.contains("---"))
            .map(str::to_owned),
    );
    secrets.extend(["hjt_", "uthorization:", "ghs_"].map(str::to_owned));
    secrets.retain(|secret| !secret.trim().is_empty());

    let (daemon, data) = (world.pid(), world.data());
    let over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (over, data) = (Arc::clone(&over), data.clone());
        std::thread::spawn(move || {
            let (mut seen, mut open, mut looks) = (std::collections::BTreeSet::new(), Vec::new(), 0);
            while !over.load(Ordering::Relaxed) {
                let now = look(daemon, &data.display().to_string());
                seen.extend(now.lines().map(str::to_owned));
                open.extend(open_to_others(&data));
                looks += 1;
                pause();
            }
            (seen, open, looks)
        })
    };
    let workflow =
        "name: ci\non: push\njobs:\n  job:\n    steps:\n      - uses: actions/checkout@v4\n      - run: echo done\n";
    let shas = [
        world.push_to(world.github, ".github/workflows/ci.yml", workflow).await,
        world.push(workflow).await,
    ];
    for sha in &shas {
        world.wait(sha, "success").await;
    }
    over.store(true, Ordering::Relaxed);
    let (mut seen, mut open, looks) = watcher.join().expect("the watcher");
    let noted = fs::read(world.dir.path().join("git-saw")).expect("git was used");
    seen.extend(
        String::from_utf8_lossy(&noted)
            .replace('\0', " ")
            .lines()
            .map(str::to_owned),
    );
    let all: Vec<&str> = seen.iter().map(String::as_str).collect();
    for word in ["serve", " fetch ", "upload-pack"] {
        assert!(
            all.iter().any(|line| line.contains(word)),
            "{word} was never seen in {looks} looks"
        );
    }
    for secret in &secrets {
        let leaks: Vec<_> = all.iter().filter(|line| line.contains(secret.as_str())).collect();
        assert!(leaks.is_empty(), "a secret of {} bytes in {leaks:#?}", secret.len());
    }
    open.extend(open_to_others(&data));
    open.sort();
    open.dedup();
    if machines == Machines::Process {
        // There a job's files lie among ours, and what it makes is its own affair.
        open.retain(|line| !line.contains("/home/"));
    }
    assert!(open.is_empty(), "{open:#?}");
    // One lies there while a repository is compared.
    world.until("no credential among the mirrors", || {
        let mirrors = fs::read_dir(data.join("mirrors")).into_iter().flatten().flatten();
        let mut names = mirrors.map(|e| e.file_name());
        (!names.any(|name| name.to_string_lossy().starts_with('.'))).then_some(())
    });
    world.nothing_left();
}
