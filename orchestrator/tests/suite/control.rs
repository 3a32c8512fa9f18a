//! What people ask of running jobs, and what happens when a machine fails under one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Stdio,
};

use serde_json::Value;

use crate::support::{self, Machines, World};

const LONG: &str = "\
name: ci
on: push
jobs:
  long:
    steps:
      - run: |
          trap 'echo interrupted in order; exit 3' INT
          echo begun
          while true; do sleep 0.05; done
  later:
    needs: long
    steps:
      - run: echo never
";

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// Waits until a job's log holds a line.
fn wait_log(world: &World, job: &str, line: &str) {
    world.until(&format!("`{line}` in the log of {job}"), || {
        world.log_now(job).contains(line).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_stops_in_order_and_the_forge_hears_it() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(LONG).await;
    let job = world.wait_job(&sha, "long", "active");
    wait_log(&world, id(&job), "begun");
    let run = world.get(&format!("/api/v1/jobs/{}", id(&job)))["run"]
        .as_str()
        .expect("a run")
        .to_owned();
    assert!(world.cli(&["cancel", &run]).status.success());
    let job = world.wait_job(&sha, "long", "cancelled");
    assert!(
        world.log(id(&job)).contains("interrupted in order"),
        "the trap ran: {}",
        world.log(id(&job))
    );
    world.wait_job(&sha, "later", "cancelled");
    world.until("the forge hears it", || {
        let state = world.forge.state();
        let word = state.latest(&sha, "helios-ci")?.word().to_owned();
        (word == "error" || word == "failure").then_some(())
    });
    // What has ended stays as it is.
    world.cli(&["cancel", &run]);
    world.wait_job(&sha, "long", "cancelled");
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_revokes_its_own_token_however_it_ends() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(LONG).await;
    let job = world.wait_job(&sha, "long", "active");
    let without_token = |args: &[&str]| {
        let mut command = world.command(args);
        command.env_remove("HELIOS_CI_TOKEN");
        command
    };
    let tokens = |revoked: bool| {
        let list = world.cli(&["token", "list", "--json"]);
        let list: Vec<Value> = serde_json::from_slice(&list.stdout).unwrap();
        let own = |token: &&Value| token["name"] == "command line" && token["revoked"] == revoked;
        list.iter().filter(own).count()
    };
    let unknown = without_token(&["show", "00000000000000000000000000"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(5));
    assert!(without_token(&["why", id(&job)]).status().unwrap().success());
    let before = tokens(true);
    assert!(before >= 2 && tokens(false) == 0, "{before}");
    let mut follower = without_token(&["logs", "-f", id(&job)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(follower.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert_eq!(tokens(false), 1, "it is at work: {line}");
    let pid = i32::try_from(follower.id()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(follower.wait().unwrap().code(), Some(130));
    assert_eq!((tokens(false), tokens(true)), (0, before + 1));
    let run = world.get(&format!("/api/v1/jobs/{}", id(&job)))["run"]
        .as_str()
        .expect("a run")
        .to_owned();
    assert!(world.cli(&["cancel", &run]).status.success());
    world.wait_job(&sha, "long", "cancelled");
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_skips_what_needs_it_and_a_rerun_of_the_failed_carries_the_rest_over() {
    let world = World::start(Machines::Process).await;
    let flag = world.dir.path().join("repaired");
    let workflow = format!(
        "\
name: ci
on: push
jobs:
  good:
    steps:
      - run: echo once
  bad:
    needs: good
    steps:
      - name: Tolerated
        continue-on-error: true
        run: exit 9
      - run: test -e {}
  behind:
    needs: bad
    steps:
      - run: echo at last
",
        flag.display()
    );
    let sha = world.push_to(world.github, ".github/workflows/ci.yml", &workflow).await;
    world.wait(&sha, "failure").await;
    let good = world.wait_job(&sha, "good", "success");
    world.wait_job(&sha, "bad", "failure");
    world.wait_job(&sha, "behind", "skipped");
    let run = world.get(&format!("/api/v1/jobs/{}", id(&good)))["run"]
        .as_str()
        .expect("a run")
        .to_owned();
    fs::write(&flag, "").expect("the repair");
    let again = world.cli(&["rerun", &run, "--failed"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    world.wait(&sha, "success").await;
    let jobs = world.jobs(&sha);
    let of = |key: &str| jobs.iter().find(|job| job["key"] == key).expect("a job");
    assert_eq!(of("good")["carried_from"], good["id"], "not run again: {jobs:#?}");
    assert_eq!(of("behind")["state"], "success");
    let first = world
        .forge
        .history(&sha)
        .into_iter()
        .filter(|r| r.context == "helios-ci / ci / bad")
        .map(|r| r.id)
        .collect::<Vec<_>>();
    assert!(
        first.iter().any(|id| *id != first[0]),
        "a re-run supersedes the check run: {first:?}"
    );
}

/// The machine's agent.
fn agent_of(world: &World) -> Option<i32> {
    let data = world.data().display().to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let cmdline = fs::read(process.path().join("cmdline")).ok()?;
        let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
        (cmdline.contains("helios-agent") && cmdline.contains(&data))
            .then(|| process.file_name().to_string_lossy().parse().ok())?
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_is_replaced_and_the_cause_is_shown() {
    let world = World::start(Machines::Process).await;
    let flag: PathBuf = world.dir.path().join("second");
    let workflow = format!(
        "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: |\n          echo begun\n          until test -e {}; do sleep 0.05; done\n",
        flag.display()
    );
    let sha = world.push(&workflow).await;
    let job = world.wait_job(&sha, "job", "active");
    wait_log(&world, id(&job), "begun");
    let pid = world.until("the agent's process", || agent_of(&world));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("a kill");
    fs::write(&flag, "").expect("the second try ends at once");
    let job = world.wait_job(&sha, "job", "success");
    let detail = world.get(&format!("/api/v1/jobs/{}", id(&job)));
    let attempts = detail["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 2, "{detail:#}");
    let cause = attempts.iter().find_map(|a| a["cause"].as_str()).unwrap_or_default();
    assert!(cause.contains("machine stopped"), "{detail:#}");
    // A killed process says nothing, so nobody knows why; and nothing tells where the data lies.
    assert!(cause.ends_with("no reason is known"), "{detail:#}");
    let data = world.data().display().to_string();
    for shown in world.shown(id(&job)) {
        assert!(shown.contains(cause) && !shown.contains(&data), "{shown}");
    }
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_machines_than_configured_and_why_says_so() {
    let world = World::with(Machines::Process, "capacity: {machines: 2}\n").await;
    let flag = world.dir.path().join("go");
    let mut workflow = "name: ci\non: push\njobs:\n".to_owned();
    for number in 0..6 {
        workflow += &format!(
            "  job{number}:\n    steps:\n      - run: until test -e {}; do sleep 0.05; done\n",
            flag.display()
        );
    }
    let sha = world.push(&workflow).await;
    let active = |world: &World| world.jobs(&sha).iter().filter(|job| job["state"] == "active").count();
    world.until("two jobs run", || (active(&world) == 2).then_some(()));
    let queued = world
        .jobs(&sha)
        .into_iter()
        .find(|job| job["state"] == "queued")
        .expect("a queued job");
    let why = world.cli(&["why", id(&queued)]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(
        why.contains("queued") && why.contains("2 of its kind are running"),
        "{why}"
    );
    assert_eq!(active(&world), 2);
    fs::write(&flag, "").expect("all may end");
    let most = std::cell::Cell::new(0);
    world.until("all jobs end", || {
        let jobs = world.jobs(&sha);
        most.set(
            most.get()
                .max(jobs.iter().filter(|job| job["state"] == "active").count()),
        );
        jobs.iter().all(|job| job["state"] == "success").then_some(())
    });
    assert!(most.get() <= 2, "{} at once", most.get());
    world.wait(&sha, "success").await;
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_left_its_session_ends_with_its_job() {
    let world = World::start(Machines::Process).await;
    let pidfile = world.dir.path().join("child");
    let workflow = format!(
        "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: |\n          setsid sh -c 'echo $$ > {0}; sleep 600' &\n          until test -s {0}; do sleep 0.02; done\n          echo parent done\n",
        pidfile.display()
    );
    let sha = world.push(&workflow).await;
    let job = world.wait_job(&sha, "job", "success");
    let log = world.log(id(&job));
    let pid = fs::read_to_string(&pidfile).expect("the child's pid");
    let ended = log
        .lines()
        .find(|line| line.contains("Still running, and ended with the job: "));
    let named = format!(" ({})", pid.trim());
    assert!(
        ended.is_some_and(|line| line.contains(&named)),
        "{named} is not in\n{log}"
    );
    let alive = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(!alive, "process {pid} is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_listed_and_its_console_read_while_it_runs() {
    if support::needs_guest().is_none() {
        return;
    }
    let world = World::start(Machines::Qemu).await;
    let sha = world
        .push("name: ci\non: push\njobs:\n  wait:\n    steps:\n      - run: echo up; sleep 600\n")
        .await;
    let job = world.wait_job(&sha, "wait", "active");
    let job = job["id"].as_str().unwrap();
    world.until("the step's first line", || {
        world.log_now(job).contains("up").then_some(())
    });
    let output = world.cli(&["machine", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["state"]),
        (1, &"running".into()),
        "{listed}"
    );
    let name = listed[0]["name"].as_str().unwrap();
    let console = world.cli(&["console", "--direct", "--once", name]);
    let text = String::from_utf8_lossy(&console.stdout).into_owned();
    assert!(
        text.contains("starting the agent") && !text.contains('\u{1b}'),
        "{text}"
    );
    let run = world.get(&format!("/api/v1/jobs/{job}"))["run"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(world.cli(&["cancel", &run]).status.success());
    world.wait_job(&sha, "wait", "cancelled");
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_certificate_is_asked_by_its_name_and_only_if_that_is_trusted() {
    let mut world = World::stopped(Machines::Process, "").await;
    let made = rcgen::generate_simple_self_signed(["ci.example.org".to_owned()]).unwrap();
    let (certificate, key) = (world.dir.path().join("cert.pem"), world.dir.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = fs::read_to_string(world.config()).unwrap();
    let tls = format!(
        "public_url: https://ci.example.org\ntls: {{certificate: {}, key: {}}}\n",
        certificate.display(),
        key.display()
    );
    fs::write(world.config(), config + &tls).unwrap();
    world.launch(&[]);

    let trusting = || {
        let mut command = world.command(&["runs"]);
        command.env("SSL_CERT_FILE", &certificate).output().unwrap()
    };
    world.until("the daemon answers", || trusting().status.success().then_some(()));
    let others = rcgen::generate_simple_self_signed(["ci.example.org".to_owned()]).unwrap();
    let other = world.dir.path().join("other.pem");
    fs::write(&other, others.cert.pem()).unwrap();
    let refused = world.command(&["runs"]).env("SSL_CERT_FILE", &other).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("certificate"), "{said}");
    let missing = world.dir.path().join("missing.pem");
    let without = |command: &mut std::process::Command| command.env("SSL_CERT_FILE", &missing).output().unwrap();
    let refused = without(&mut world.command(&["runs"]));
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    // They are read for nobody who does not ask for TLS: reading a system's takes longer than the answer.
    let plain = World::start(Machines::Process).await;
    let answered = without(&mut plain.command(&["runs"]));
    assert!(answered.status.success(), "{answered:?}");

    // An address that is none.
    let nowhere = world
        .command(&["runs", "--server", "localhost:8080"])
        .env("HELIOS_CI_TOKEN", "t")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert_eq!(nowhere.status.code(), Some(5), "{said}");
    assert!(said.contains("not an address"), "{said}");
}
