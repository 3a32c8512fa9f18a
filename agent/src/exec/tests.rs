use std::path::Path;

use helios_proto::v1::{EnvVar, Event, output::Stream};
use tempfile::TempDir;

use super::*;
use crate::{
    deadline,
    spool::{Limits, Spool},
};

/// One exec after another in the same place.
struct Bench {
    dir: TempDir,
    place: Place,
    outbox: Arc<Outbox>,
    begun: std::time::Instant,
    /// Of the next exec; ids are unique within a machine's life.
    next: u64,
}

impl Bench {
    fn new(trees: Trees) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Arc::new(Outbox::new(Spool::new(dir.path().to_owned(), Limits::default())));
        Self {
            place: Place::new(trees, dir.path().to_owned(), outbox.clone()),
            dir,
            outbox,
            begun: std::time::Instant::now(),
            next: 7,
        }
    }

    async fn run(&mut self, exec: v1::Exec) -> Result<Vec<Event>, ExecError> {
        let (_sender, stops) = mpsc::unbounded_channel();
        let (_keep, quiet) = watch::channel(None);
        let before = self.outbox.last();
        self.begun = std::time::Instant::now();
        self.next += 1;
        run(self.next - 1, exec, &self.place, Control { stops, quiet }).await?;
        let mut events = Vec::new();
        for sequence in before..self.outbox.last() {
            events.push(self.outbox.next(sequence).await.unwrap());
        }
        Ok(events)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// Both ways to find a tree where this machine has both; the marker always.
fn benches() -> Vec<Bench> {
    let detected = Trees::detect(false, &crate::random::hex::<4>().unwrap());
    let mut benches = vec![Bench::new(Trees::Marked(crate::random::hex::<4>().unwrap()))];
    match detected {
        Trees::Cgroup(_) => benches.push(Bench::new(detected)),
        Trees::Marked(_) => println!("skipped: cgroup v2 cannot be used here"),
    }
    benches
}

fn sh(script: &str) -> v1::Exec {
    let path = EnvVar {
        name: "PATH".into(),
        value: b"/usr/local/bin:/usr/bin:/bin".to_vec(),
    };
    v1::Exec {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![path],
        cwd: "/".into(),
        ..v1::Exec::default()
    }
}

fn text(events: &[Event], stream: Stream) -> String {
    let data = events.iter().filter_map(|event| match &event.event {
        Some(event::Event::Output(output)) if output.stream() == stream => Some(output.data.to_vec()),
        _ => None,
    });
    String::from_utf8(data.flatten().collect()).unwrap()
}

fn exited(events: &[Event]) -> &v1::Exited {
    match events.last().map(|event| &event.event) {
        Some(Some(event::Event::Exited(exited))) => exited,
        other => panic!("the last event is {other:?}"),
    }
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn streams_codes_and_signals_are_told_apart() {
    for mut bench in benches() {
        let events = bench.run(sh("echo out; echo err >&2; exit 3")).await.unwrap();
        assert!(matches!(events[0].event, Some(event::Event::Started(v1::Started { pid })) if pid > 1));
        assert_eq!(
            (text(&events, Stream::Stdout), text(&events, Stream::Stderr)),
            ("out\n".into(), "err\n".into())
        );
        assert_eq!(exited(&events).how, Some(exited::How::Code(3)));
        assert_eq!(exited(&events).leftovers, 0);
        let events = bench.run(sh("kill -KILL $$")).await.unwrap();
        assert_eq!(exited(&events).how, Some(exited::How::Signal(9)));
    }
}

#[tokio::test]
async fn the_environment_is_the_given_one_and_stdin_is_empty() {
    for mut bench in benches() {
        let mut exec = sh("cat; env | sort | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^HELIOS_EXEC=; pwd");
        exec.env.push(EnvVar {
            name: "GREETING".into(),
            value: b"two\nlines \xc3\xa4".to_vec(),
        });
        exec.cwd = bench.path("made/for/it");
        let events = bench.run(exec).await.unwrap();
        let wanted = format!(
            "GREETING=two\nPATH=/usr/local/bin:/usr/bin:/bin\nlines ä\n{}\n",
            bench.path("made/for/it")
        );
        let mut lines: Vec<_> = text(&events, Stream::Stdout).lines().map(str::to_owned).collect();
        lines.sort();
        let mut wanted: Vec<_> = wanted.lines().map(str::to_owned).collect();
        wanted.sort();
        assert_eq!(lines, wanted);
    }
}

#[tokio::test]
async fn a_script_is_private_and_gone_afterwards() {
    let mut bench = benches().remove(0);
    let mut exec = sh("");
    exec.argv = vec!["sh".into(), "-eu".into(), "{0}".into(), "{0}x".into()];
    exec.script = "echo \"$0 $1\"\nls -ld \"$(dirname \"$0\")\"\n".into();
    let events = bench.run(exec).await.unwrap();
    let out = text(&events, Stream::Stdout);
    let (first, second) = out.split_once('\n').unwrap();
    let (script, argument) = first.split_once(' ').unwrap();
    assert!(script.starts_with(&bench.path("exec-7-")), "{out}");
    assert_eq!(argument, "{0}x");
    assert!(second.starts_with("drwx------"), "{out}");
    assert!(!Path::new(script).exists());
    assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut bench = benches().remove(0);
    let mut missing = sh("");
    missing.argv[0] = "no-such-program".into();
    let error = crate::agent::chain(&bench.run(missing).await.unwrap_err());
    assert!(error.contains("no-such-program") && error.contains("PATH"), "{error}");
    let mut nowhere = sh("");
    nowhere.env.clear();
    let error = crate::agent::chain(&bench.run(nowhere).await.unwrap_err());
    assert!(error.contains("the environment has no PATH"), "{error}");
    let mut not_executable = sh("");
    not_executable.argv[0] = "/etc/passwd".into();
    assert!(matches!(bench.run(not_executable).await, Err(ExecError::Start { .. })));
    let mut relative = sh("");
    relative.cwd = "work".into();
    assert!(matches!(bench.run(relative).await, Err(ExecError::Invalid(_))));
    let mut bad_env = sh("");
    bad_env.env.push(EnvVar {
        name: "A=B".into(),
        value: vec![],
    });
    assert!(matches!(bench.run(bad_env).await, Err(ExecError::Invalid(_))));
    let mut blocked = sh("");
    blocked.cwd = "/etc/passwd/below".into();
    assert!(matches!(bench.run(blocked).await, Err(ExecError::Directory { .. })));
    let mut nothing = sh("");
    nothing.argv.clear();
    assert!(matches!(bench.run(nothing).await, Err(ExecError::Invalid(_))));
}

/// A step's directories are made once; what is missing then is missing because somebody mistyped or removed it.
#[tokio::test]
async fn a_working_directory_that_is_missing_is_said_and_not_made() {
    for mut bench in benches() {
        let workspace = bench.path("deep/workspace");
        let within = |cwd: String| v1::Exec {
            cwd,
            directories: vec![workspace.clone()],
            ..sh("pwd")
        };
        let missing = format!("{workspace}/srcc");
        let error = bench.run(within(missing.clone())).await.unwrap_err().to_string();
        assert_eq!(error, format!("the working directory {missing} does not exist"));
        assert!(Path::new(&workspace).is_dir() && !Path::new(&missing).exists());
        let events = bench.run(within(workspace.clone())).await.unwrap();
        assert_eq!(text(&events, Stream::Stdout), format!("{workspace}\n"));
        fs::write(&missing, "").unwrap();
        let error = bench.run(within(missing.clone())).await.unwrap_err().to_string();
        assert!(error.ends_with("is not a directory"), "{error}");
        fs::remove_dir_all(&workspace).unwrap();
        let error = bench.run(within(workspace.clone())).await.unwrap_err().to_string();
        assert!(error.ends_with("does not exist"), "{error}");
    }
}

/// The first program that there is, and nothing between it and the agent: a shell would drop what is no name of its own.
#[tokio::test]
async fn the_first_choice_that_exists_runs_with_every_variable() {
    for mut bench in benches() {
        let choice = |words: &[&str]| v1::Arguments {
            words: words.iter().map(ToString::to_string).collect(),
        };
        let mut exec = sh("exit 9");
        exec.choices = vec![
            choice(&["no-such-shell", "{0}"]),
            choice(&["env"]),
            choice(&["sh", "{0}"]),
        ];
        for name in ["a-b", "a.b", "1st", "npm_config_//host/:_auth", "ümlaut"] {
            exec.env.push(EnvVar {
                name: name.into(),
                value: b"kept".to_vec(),
            });
        }
        let events = bench.run(exec.clone()).await.unwrap();
        assert_eq!(exited(&events).how, Some(exited::How::Code(0)));
        let shown = text(&events, Stream::Stdout);
        for variable in &exec.env[1..] {
            assert!(shown.contains(&format!("{}=kept\n", variable.name)), "{shown}");
        }
        exec.choices.retain(|choice| choice.words[0].starts_with("no"));
        let error = crate::agent::chain(&bench.run(exec).await.unwrap_err());
        assert!(error.contains("no-such-shell") && error.contains("PATH"), "{error}");
    }
}

/// A server and a daemon live on, can still write, hold nobody up, and are named when they are ended.
#[tokio::test]
async fn what_may_outlive_its_step_lives_until_it_is_ended() {
    for mut bench in benches() {
        let [server, daemon, asked, answered] = ["server", "daemon", "asked", "answered"].map(|name| bench.path(name));
        let mut exec = sh(&format!(
            "sh -c 'echo $$ > {server}; until [ -e {asked} ]; do sleep 0.01; done
                    echo heard && echo heard >&2 && echo > {answered}; exec sleep 600' &
             setsid sh -c 'echo $$ > {daemon}; exec sleep 600' </dev/null >/dev/null 2>&1 &
             while ! [ -s {server} ] || ! [ -s {daemon} ]; do sleep 0.01; done; echo end"
        ));
        exec.outlives = true;
        let events = bench.run(exec).await.unwrap();
        assert_eq!(text(&events, Stream::Stdout), "end\n");
        let exited = exited(&events);
        assert_eq!((exited.how, exited.leftovers), (Some(exited::How::Code(0)), 0));
        // Its `sleep 0.01` may be there too.
        assert!(
            (2..=3).contains(&exited.survivors),
            "{exited:?} {:?}",
            bench.place.trees
        );
        let pids = [server, daemon].map(|file| fs::read_to_string(file).unwrap());
        assert!(pids.iter().all(|pid| alive(pid)), "{pids:?}");
        // It may still write: somebody reads.
        fs::write(asked, "").unwrap();
        while !Path::new(&answered).exists() {
            assert!(bench.begun.elapsed() < deadline::PROMPT, "the server has died");
            sleep(LOOK).await;
        }
        let name = format!("/proc/{}/comm", pids[0].trim());
        while fs::read_to_string(&name).is_ok_and(|name| name.trim() != "sleep") {
            assert!(
                bench.begun.elapsed() < deadline::PROMPT,
                "the server does not go on to sleep"
            );
            sleep(LOOK).await;
        }
        // Nor does a step that ends after it take it along, or count it.
        let mut next = sh("true");
        next.outlives = true;
        assert_eq!(self::exited(&bench.run(next).await.unwrap()).survivors, 0);
        let ended = bench.place.survivors.end().await;
        assert_eq!((ended.count, ended.remaining), (2, 0), "{ended:?}");
        let mut named: Vec<_> = ended.processes.iter().map(|process| process.pid).collect();
        let mut wanted: Vec<u32> = pids.iter().map(|pid| pid.trim().parse().unwrap()).collect();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted);
        assert!(
            ended.processes.iter().all(|process| process.name == "sleep"),
            "{ended:?}"
        );
        assert!(!pids.iter().any(|pid| alive(pid)));
        assert_eq!(bench.place.survivors.end().await.count, 0);
    }
}

/// Whoever is stopped takes along what might have outlived it.
#[tokio::test]
async fn a_stop_ends_also_what_may_outlive_its_step() {
    for bench in benches() {
        let child = bench.path("child");
        let mut exec = sh(&format!(
            "setsid sh -c 'echo $$ > {child}; exec sleep 600' & echo ready; exec sleep 600"
        ));
        exec.outlives = true;
        let (sender, stops) = mpsc::unbounded_channel();
        let (_keep, quiet) = watch::channel(None);
        let running = run(7, exec, &bench.place, Control { stops, quiet });
        let kill = async {
            while !fs::read(&child).is_ok_and(|pid| !pid.is_empty()) {
                sleep(LOOK).await;
            }
            sender.send(Stop::Kill).unwrap();
        };
        tokio::join!(running, kill).0.unwrap();
        let last = bench.outbox.next(bench.outbox.last() - 1).await.unwrap();
        assert_eq!(exited(&[last]).survivors, 0);
        assert!(!alive(&fs::read_to_string(&child).unwrap()));
    }
}

/// Its end waits for those that the leader's end sets to work: nobody waits for them in the script.
#[tokio::test]
async fn the_last_words_behind_a_redirection_are_heard() {
    for mut bench in benches() {
        for round in 0..20 {
            let mut exec = sh("");
            exec.argv = vec![
                "bash".into(),
                "-c".into(),
                "exec > >(cat | tr a-z A-Z) 2>&1; echo out; echo err >&2".into(),
            ];
            exec.outlives = round % 2 == 0;
            // Only against a machine that is too busy to let them work: that they are idle ends the waiting at once.
            exec.drain_ms = 30_000;
            let events = bench.run(exec).await.unwrap();
            assert_eq!(text(&events, Stream::Stdout), "OUT\nERR\n", "round {round}");
        }
    }
}

/// A daemon in a session of its own, with its pipes closed, and one that holds the pipes: both are
/// killed and counted, and neither delays the end.
#[tokio::test]
async fn nothing_of_a_step_outlives_it() {
    for mut bench in benches() {
        let (daemon, holder) = (bench.path("daemon"), bench.path("holder"));
        let script = format!(
            "setsid sh -c 'echo $$ > {daemon}; exec sleep 600' </dev/null >/dev/null 2>&1 &
             sh -c 'echo $$ > {holder}; exec sleep 600' &
             while ! [ -s {daemon} ] || ! [ -s {holder} ]; do sleep 0.01; done; echo end"
        );
        let events = bench.run(sh(&script)).await.unwrap();
        assert!(bench.begun.elapsed() < deadline::PROMPT, "{:?}", bench.begun.elapsed());
        assert_eq!(text(&events, Stream::Stdout), "end\n");
        assert_eq!(exited(&events).how, Some(exited::How::Code(0)));
        assert_eq!(exited(&events).leftovers, 2, "{:?}", bench.place.trees);
        for file in [daemon, holder] {
            let pid = fs::read_to_string(&file).unwrap();
            assert!(!alive(&pid), "{file} {pid} is alive");
        }
    }
}

/// A child that writes without end cannot keep the step open, and its last words are whole.
#[tokio::test]
async fn a_babbling_child_is_cut_off() {
    for bench in benches() {
        let mut exec = sh("yes babble & exit 4");
        exec.drain_ms = 20;
        // Somebody takes the output away, as the session would.
        let outbox = bench.outbox.clone();
        let taker = tokio::spawn(async move {
            loop {
                outbox.next(outbox.last()).await.unwrap();
                outbox.acknowledge(outbox.last() - 1);
            }
        });
        let (_sender, stops) = mpsc::unbounded_channel();
        let (_keep, quiet) = watch::channel(Some(100));
        let control = Control { stops, quiet };
        run(7, exec, &bench.place, control).await.unwrap();
        taker.abort();
        let last = bench.outbox.next(bench.outbox.last() - 1).await.unwrap();
        assert_eq!(exited(&[last]).leftovers, 1);
    }
}

/// SIGINT and SIGTERM are ignored by the whole tree, so only SIGKILL ends it.
#[tokio::test]
async fn cancel_escalates_to_the_whole_tree() {
    for bench in benches() {
        let child = bench.path("child");
        let script = format!(
            "trap 'echo INT' INT; trap 'echo TERM' TERM
             setsid sh -c 'trap \"\" INT TERM; echo $$ > {child}; while :; do sleep 600; done' &
             echo ready; while :; do sleep 0.01; done"
        );
        let outbox = bench.outbox.clone();
        let (sender, stops) = mpsc::unbounded_channel();
        let (_keep, quiet) = watch::channel(None);
        let running = run(7, sh(&script), &bench.place, Control { stops, quiet });
        let cancel = async {
            // Started, then `ready`; the child must have set its traps too.
            outbox.next(1).await.unwrap();
            while !fs::read(&child).is_ok_and(|pid| !pid.is_empty()) {
                tokio::task::yield_now().await;
            }
            sender
                .send(Stop::Cancel(Duration::from_secs(3), Duration::from_secs(3)))
                .unwrap();
        };
        let (ran, ()) = tokio::join!(running, cancel);
        ran.unwrap();
        let mut events = Vec::new();
        for sequence in 0..outbox.last() {
            events.push(outbox.next(sequence).await.unwrap());
        }
        assert_eq!(text(&events, Stream::Stdout), "ready\nINT\nTERM\n");
        assert_eq!(exited(&events).how, Some(exited::How::Signal(9)));
        assert!(!alive(&fs::read_to_string(&child).unwrap()));
    }
}

#[tokio::test]
async fn a_gentle_end_is_taken() {
    for bench in benches() {
        let outbox = bench.outbox.clone();
        let (sender, stops) = mpsc::unbounded_channel();
        let (_keep, quiet) = watch::channel(None);
        let script = sh("trap 'echo bye; exit 5' INT; echo ready; while :; do sleep 0.01; done");
        let running = run(7, script, &bench.place, Control { stops, quiet });
        let cancel = async {
            outbox.next(1).await.unwrap();
            sender
                .send(Stop::Cancel(Duration::from_secs(60), Duration::from_secs(60)))
                .unwrap();
        };
        let (ran, ()) = tokio::join!(running, cancel);
        ran.unwrap();
        let last = outbox.next(outbox.last() - 1).await.unwrap();
        assert_eq!(exited(&[last]).how, Some(exited::How::Code(5)));
    }
}

#[tokio::test]
async fn processor_time_is_that_of_the_step() {
    let mut bench = benches().remove(0);
    let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let busy = bench.run(sh(burn)).await.unwrap();
    let idle = bench.run(sh("true")).await.unwrap();
    assert!(
        exited(&busy).user_ms > exited(&idle).user_ms,
        "{:?} {:?}",
        exited(&busy),
        exited(&idle)
    );
}
