//! What the node may ask for, over the real protocol.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use helios_proto::v1::{
    self, Files, command,
    event::{self, Event},
    exited,
    output::Stream,
    signal::Kind,
};

use crate::common::{self, Node};

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

async fn failure(node: &Node, exec_id: u64) -> String {
    match node.end(exec_id).await {
        event::Event::Failed(failed) => failed.message,
        other => panic!("command {exec_id} ended with {other:?}"),
    }
}

async fn done(node: &Node, exec_id: u64) -> u64 {
    match node.end(exec_id).await {
        event::Event::Done(done) => done.bytes,
        other => panic!("command {exec_id} ended with {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_arrive_whole_with_their_mode_or_not_at_all() {
    let node = Node::start().await;
    let _agent = node.agent();
    let bytes = common::noise(3 << 20);
    node.lock().downloads.insert("tool".into(), bytes.clone());
    let at = node.dir.path().join("deep/er/tool");
    let write = |transfer: &str, sha256: Vec<u8>, path: String| {
        command::Command::WriteFile(v1::WriteFile {
            path,
            mode: 0o750,
            transfer: transfer.into(),
            sha256,
        })
    };
    node.command(1, write("tool", sha256(&bytes), at.display().to_string()));
    assert_eq!(done(&node, 1).await, bytes.len() as u64);
    assert!(fs::read(&at).unwrap() == bytes);
    assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o750);

    node.command(2, write("tool", sha256(b"other"), at.display().to_string() + "2"));
    assert!(failure(&node, 2).await.contains("damaged"));
    node.command(3, write("nothing", sha256(b""), at.display().to_string() + "3"));
    assert!(failure(&node, 3).await.contains("there is no such transfer"));
    node.command(4, write("tool", sha256(&bytes), "tool".into()));
    assert!(failure(&node, 4).await.contains("not an absolute path"));
    let left: Vec<_> = fs::read_dir(at.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["tool"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regular_files_are_read_within_the_limit() {
    let node = Node::start().await;
    let _agent = node.agent();
    let bytes = common::noise(3 << 20);
    let path = |name: &str| node.dir.path().join(name).display().to_string();
    fs::write(path("file"), &bytes).unwrap();
    std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
    let read = |name: &str, max_bytes| {
        command::Command::ReadFile(v1::ReadFile {
            path: path(name),
            transfer: name.into(),
            max_bytes,
        })
    };
    node.command(1, read("file", bytes.len() as u64));
    assert_eq!(done(&node, 1).await, bytes.len() as u64);
    assert!(node.lock().uploads["file"] == bytes);
    node.command(2, read("file", bytes.len() as u64 - 1));
    assert!(failure(&node, 2).await.contains("more than"));
    node.command(3, read("link", 1 << 30));
    assert!(failure(&node, 3).await.contains("not a regular file"));
    node.command(4, read("missing", 1 << 30));
    assert!(failure(&node, 4).await.contains("missing"));
    node.command(
        5,
        command::Command::ReadFile(v1::ReadFile {
            path: "/dev/zero".into(),
            ..v1::ReadFile::default()
        }),
    );
    assert!(failure(&node, 5).await.contains("not a regular file"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_found_and_hashed() {
    let node = Node::start().await;
    let _agent = node.agent();
    let root = node.dir.path().join("tree");
    for name in ["b.lock", "a/c.lock", "a/d.txt", "skip/e.lock"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), name).unwrap();
    }
    let (root, patterns) = (
        root.display().to_string(),
        vec!["**/*.lock".to_owned(), "!skip/**".to_owned()],
    );
    let walk = v1::Walk {
        root: root.clone(),
        patterns: patterns.clone(),
        max_files: 9,
    };
    node.command(1, command::Command::Walk(walk));
    node.command(
        2,
        command::Command::HashFiles(v1::HashFiles {
            root: root.clone(),
            patterns,
            max_files: 9,
        }),
    );
    let walk = v1::Walk {
        root,
        patterns: vec!["**".into()],
        max_files: 2,
    };
    node.command(3, command::Command::Walk(walk));
    let files = |event| match event {
        Event::Files(Files { files, truncated }) => {
            let files: Vec<_> = files
                .into_iter()
                .map(|file| (String::from_utf8(file.path).unwrap(), file.size, file.sha256))
                .collect();
            (files, truncated)
        }
        other => panic!("{other:?}"),
    };
    let wanted = |name: &str, hashed: bool| {
        (
            name.to_owned(),
            name.len() as u64,
            if hashed { sha256(name.as_bytes()) } else { vec![] },
        )
    };
    let found = files(node.end(1).await);
    assert_eq!(found, (vec![wanted("a/c.lock", false), wanted("b.lock", false)], false));
    let found = files(node.end(2).await);
    assert_eq!(found, (vec![wanted("a/c.lock", true), wanted("b.lock", true)], false));
    let found = files(node.end(3).await);
    assert_eq!((found.0.len(), found.1), (2, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_cap_output_is_counted_and_its_end_sent() {
    let node = Node::start().await;
    let _agent = node.agent();
    let bytes = common::noise(3 << 20);
    fs::write(node.dir.path().join("noise"), &bytes).unwrap();
    node.sh(1, "until [ -e ../go ]; do sleep 0.01; done; cat ../noise");
    node.sh(2, "until [ -e ../go ]; do sleep 0.01; done; echo heard");
    node.until("both", |state| (state.events.len() >= 2).then_some(()))
        .await;
    node.command(
        3,
        command::Command::QuietOutput(v1::QuietOutput {
            target: 1,
            tail_bytes: 100_000,
        }),
    );
    assert_eq!(done(&node, 3).await, 0);
    fs::write(node.dir.path().join("go"), "").unwrap();
    assert_eq!((node.code(1).await, node.code(2).await), (0, 0));
    assert!(node.output(1, Stream::Stdout) == bytes[bytes.len() - 100_000..]);
    assert_eq!(node.output(2, Stream::Stdout), b"heard\n");
    let skipped = node.lock().events.iter().find_map(|event| match &event.event {
        Some(Event::OutputSkipped(skipped)) => Some((event.exec_id, skipped.bytes)),
        _ => None,
    });
    assert_eq!(skipped, Some((1, bytes.len() as u64 - 100_000)));

    // For all, execs to come included.
    node.command(
        4,
        command::Command::QuietOutput(v1::QuietOutput {
            target: 0,
            tail_bytes: 0,
        }),
    );
    done(&node, 4).await;
    node.sh(5, "echo unheard");
    assert_eq!(node.code(5).await, 0);
    assert_eq!(node.output(5, Stream::Stdout), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stubborn_step_is_cancelled_and_a_second_word_kills() {
    let node = Node::start().await;
    let _agent = node.agent();
    let stubborn = "trap '' INT TERM; echo ready; while :; do sleep 0.01; done";
    let signal = |target, kind: Kind, grace| {
        command::Command::Signal(v1::Signal {
            target,
            kind: kind.into(),
            interrupt_grace_ms: grace,
            terminate_grace_ms: grace,
        })
    };
    let ready = async |exec_id| {
        node.until("ready", |state| {
            let output = |event: &v1::Event| matches!(event.event, Some(Event::Output(_)));
            state
                .events
                .iter()
                .any(|event| event.exec_id == exec_id && output(event))
                .then_some(())
        })
        .await;
    };
    let killed = |event| match event {
        Event::Exited(exited) => assert_eq!(exited.how, Some(exited::How::Signal(9))),
        other => panic!("{other:?}"),
    };
    node.sh(1, stubborn);
    ready(1).await;
    node.command(2, signal(1, Kind::Cancel, 50));
    assert_eq!(done(&node, 2).await, 0);
    killed(node.end(1).await);

    // The graces would outlast the test's deadline: only the later words can have ended it.
    node.sh(3, stubborn);
    ready(3).await;
    node.command(4, signal(3, Kind::Cancel, 600_000));
    node.command(5, signal(3, Kind::Kill, 0));
    killed(node.end(3).await);

    node.command(6, signal(3, Kind::Kill, 0));
    assert_eq!(failure(&node, 6).await, "exec 3 does not run");
    node.command(7, signal(3, Kind::Unspecified, 0));
    assert!(failure(&node, 7).await.contains("no signal kind"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_killed_with_its_step_and_holds_nobody_up() {
    let node = Node::start().await;
    let _agent = node.agent();
    let script = "setsid sh -c 'echo $$ > ../daemon; exec sleep 600' </dev/null >/dev/null 2>&1 &
                  sleep 600 &
                  until [ -s ../daemon ]; do sleep 0.01; done; echo end";
    node.sh(1, script);
    match node.end(1).await {
        Event::Exited(v1::Exited {
            how: Some(exited::How::Code(0)),
            leftovers: 2,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    let pid = fs::read_to_string(node.dir.path().join("daemon")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

/// A server outlives its step, and is ended by name on request or with the agent, whatever it does about signals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lives_until_it_is_ended_or_its_agent_is() {
    let node = Node::start().await;
    let mut agent = node.agent();
    let serve = |exec_id, file: &str| {
        let script = format!(
            "setsid sh -c 'trap \"\" HUP INT TERM; echo $$ > ../{file}; exec sleep 600' &
             until [ -s ../{file} ]; do sleep 0.01; done"
        );
        let exec = v1::Exec {
            outlives: true,
            ..node.script(&script)
        };
        node.command(exec_id, command::Command::Exec(exec));
    };
    let lives = |file: &str| {
        let pid = fs::read_to_string(node.dir.path().join(file)).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        (pid.trim().to_owned(), !stat.is_empty() && !stat.contains(") Z "))
    };
    let survivors = |event| match event {
        Event::Exited(v1::Exited {
            how: Some(exited::How::Code(0)),
            leftovers: 0,
            survivors,
            ..
        }) => survivors,
        other => panic!("{other:?}"),
    };
    serve(1, "first");
    assert_eq!(survivors(node.end(1).await), 1);
    let (pid, alive) = lives("first");
    assert!(alive);
    node.command(2, command::Command::EndProcesses(v1::EndProcesses {}));
    match node.end(2).await {
        Event::ProcessesEnded(ended) => {
            assert_eq!((ended.count, ended.remaining), (1, 0), "{ended:?}");
            assert_eq!(
                (ended.processes[0].pid.to_string(), &*ended.processes[0].name),
                (pid, "sleep")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(!lives("first").1);

    serve(3, "second");
    assert_eq!(survivors(node.end(3).await), 1);
    assert!(lives("second").1);
    let pid = nix::unistd::Pid::from_raw(agent.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(agent.ended().await.code(), Some(143));
    assert!(!lives("second").1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_fails_in_words() {
    let node = Node::start().await;
    let _agent = node.agent();
    let exec = v1::Exec {
        argv: vec!["/no/such/program".into()],
        cwd: "/".into(),
        ..v1::Exec::default()
    };
    node.command(1, command::Command::Exec(exec));
    let message = failure(&node, 1).await;
    assert!(
        message.contains("cannot start `/no/such/program`") && message.contains("No such file"),
        "{message}"
    );
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the program is started as a person would")]
fn the_command_line_says_what_is_wrong() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_helios-agent"))
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = run(&["--version"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        text,
        format!("helios-agent {} (protocol 1 to 1)\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["--seed"]).0, Some(2));
    let (code, text) = run(&["--seed", "/nonexistent"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("/nonexistent/helios.json"), "{text}");
}
