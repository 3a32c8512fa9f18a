//! Machines that die, hang or are left by their children: what the job becomes, in which words, and
//! that nothing stays.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    self, Machines, World,
    hold::{assert_counted, counted, counting, grow, http, is_alive, machines_in, main_pid, pick, signal},
};

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

fn causes(detail: &Value) -> Vec<&str> {
    let attempts = detail["attempts"].as_array().expect("attempts");
    attempts.iter().filter_map(|a| a["cause"].as_str()).collect()
}

/// A job of a guest that prints half of its lines, waits until its disk grows, and prints the others.
fn counting_halfway(lines: usize) -> String {
    format!(
        "\
name: ci
on: push
jobs:
  count:
    steps:
      - run: |
          size=$(cat /sys/block/vd*/size)
          for i in $(seq 1 {lines}); do
            echo \"line $i of {lines}\"
            sleep 0.05
            [ $i -ne {half} ] || while [ \"$(cat /sys/block/vd*/size)\" = \"$size\" ]; do sleep 0.05; done
          done
",
        half = lines / 2
    )
}

/// The attempts of a job that has ended, all of them shown to people in the same words.
fn assert_shown(world: &World, job: &str, cause: &str) {
    for shown in world.shown(job) {
        let text = shown.replace("&#39;", "'");
        assert!(text.contains(cause), "`{cause}` is not in\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_killed_at_any_line_is_replaced_and_the_cause_is_shown() {
    if support::needs_guest().is_none() {
        return;
    }
    const LINES: usize = 60;
    let world = World::with(Machines::Qemu, "limits: {infra_tries: 2}\n").await;
    for seed in [1_u64, 2, 3] {
        let mut random = seed;
        let at = usize::try_from(pick(&mut random, LINES as u64 / 2)).unwrap() + 1;
        let sha = world.push(&counting_halfway(LINES)).await;
        let job = world.wait_job(&sha, "count", "active");
        world.wait_counted(id(&job), at);
        let machine = world.machine();
        signal(main_pid(&machine).unwrap(), Signal::SIGKILL);
        let second = world.until("a second machine that counts", || {
            let (_, log) = http(
                world.port(),
                &format!("/api/v1/jobs/{}/logs?try=2", id(&job)),
                world.token(),
            );
            let mut machines = machines_in(&world.data()).into_iter().filter(|dir| *dir != machine);
            machines.next().filter(|_| !counted(&log).is_empty())
        });
        grow(&second);
        let job = world.wait_job(&sha, "count", "success");
        let detail = world.detail(id(&job));
        assert_eq!(detail["attempts"].as_array().unwrap().len(), 2, "{detail:#}");
        assert!(causes(&detail)[0].contains("the machine stopped"), "{detail:#}");
        assert_shown(&world, id(&job), "the machine stopped");
        assert_counted(&world.log(id(&job)), LINES, &format!("seed {seed}, line {at}"));
        assert!(!machine.exists(), "the first machine is destroyed");
        world.wait(&sha, "success").await;
    }
    world.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_guests_all_die_ends_in_error_with_the_cause() {
    if support::needs_guest().is_none() {
        return;
    }
    let world = World::with(Machines::Qemu, "limits: {infra_tries: 2}\n").await;
    let sha = world.push(&counting(10_000, "0.05")).await;
    let mut random = 7;
    let mut before = None;
    for _ in 0..2 {
        let machine = world.until("a fresh machine", || {
            machines_in(&world.data())
                .into_iter()
                .find(|dir| Some(dir) != before.as_ref())
        });
        let job = world.wait_job(&sha, "count", "active");
        world.until("output of this attempt", || {
            let wanted = usize::try_from(pick(&mut random, 20)).unwrap();
            let attempts = world.detail(id(&job))["attempts"].as_array().map_or(0, Vec::len);
            let log = world.log_now(id(&job));
            (attempts == if before.is_some() { 2 } else { 1 } && counted(&log).len() > wanted).then_some(())
        });
        signal(main_pid(&machine).unwrap(), Signal::SIGKILL);
        before = Some(machine);
    }
    let job = world.wait_job(&sha, "count", "error");
    let detail = world.detail(id(&job));
    assert_eq!(causes(&detail).len(), 2, "{detail:#}");
    let reason = detail["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("we failed 2 times") && reason.contains("the machine stopped"),
        "{detail:#}"
    );
    assert_shown(&world, id(&job), "the machine stopped");
    world.wait(&sha, "error").await;
    world.nothing_left();
}

/// A machine that stops answering without dying.
async fn a_hang_is_noticed(machines: Machines) {
    let world = World::with(machines, "limits: {infra_tries: 1, agent_silence_s: 15}\n").await;
    let workflow = "\
name: ci
on: push
jobs:
  hang:
    timeout-minutes: 30
    steps:
      - timeout-minutes: 20
        run: |
          echo begun
          while true; do sleep 0.2; done
";
    let sha = world.push(workflow).await;
    let job = world.wait_job(&sha, "hang", "active");
    world.until("output", || world.log_now(id(&job)).contains("begun").then_some(()));
    let machine = world.machine();
    let pid = main_pid(&machine).unwrap();
    signal(pid, Signal::SIGSTOP);
    let job = world.wait_job(&sha, "hang", "error");
    let detail = world.detail(id(&job));
    let cause = causes(&detail).concat();
    assert!(
        cause.contains("the machine's agent was not heard for 15 s"),
        "{detail:#}"
    );
    assert!(
        !detail.to_string().contains("timeout-minutes") && !detail.to_string().contains("timed_out"),
        "the words of a time-out of the step: {detail:#}"
    );
    assert_shown(&world, id(&job), "agent was not heard for 15 s");
    world.nothing_left();
    assert!(!is_alive(pid) && !machine.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_hangs_is_given_up_in_words_of_its_own() {
    if support::needs_guest().is_none() {
        return;
    }
    a_hang_is_noticed(Machines::Qemu).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_given_up_in_words_of_its_own() {
    a_hang_is_noticed(Machines::Process).await;
}

/// A step whose child forks twice, leaves its session, ignores signals and keeps the step's output
/// open; the next step looks whether it is still there. All of it ends with the job.
const STRAYS: &str = "\
name: ci
on: push
jobs:
  stray:
    steps:
      - name: Fork
        run: |
          (setsid sh -c '
            trap \"\" HUP INT TERM
            (trap \"\" HUP INT TERM; echo $$ > stray.first; exec sleep 100000) &
            (sh -c \"echo \\$\\$ > stray.second; exec sleep 100000\" &)
            exit 0' &)
          until test -s stray.first && test -s stray.second; do sleep 0.02; done
          sh -c 'echo $$ > stray.third; exec sleep 100000' &
          until test -s stray.third; do sleep 0.02; done
          echo parent done
      - name: Look
        run: |
          for pid in $(cat stray.second stray.third); do grep -q sleep /proc/$pid/cmdline; done
          cat stray.* | tr '\\n' ' '
          echo looked
";

async fn strays_end_with_their_job(machines: Machines) {
    let world = World::start(machines).await;
    let sha = world.push(STRAYS).await;
    let ended = world.until("the job ends", || {
        let job = world.jobs(&sha).into_iter().next()?;
        ["success", "failure", "error", "timed_out"]
            .contains(&job["state"].as_str()?)
            .then_some(job)
    });
    let log = world.log(id(&ended));
    assert_eq!(ended["state"], "success", "{log}");
    for said in [
        "parent done",
        "looked",
        "3 processes of this step run on until the job ends.",
        "Still running, and ended with the job: sleep (",
    ] {
        assert!(log.contains(said), "{said:?} is not in\n{log}");
    }
    world.nothing_left();
    if machines == Machines::Process {
        let pids = log.lines().find(|line| line.ends_with("looked")).unwrap();
        let pids: Vec<i32> = pids.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert_eq!(pids.len(), 3, "{log}");
        let sleeps = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains("100000"))
        };
        assert!(!pids.iter().any(sleeps), "{pids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_fork_twice_and_leave_their_session_end_with_their_job() {
    strays_end_with_their_job(Machines::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_fork_twice_end_with_their_job_in_a_guest() {
    if support::needs_guest().is_none() {
        return;
    }
    strays_end_with_their_job(Machines::Qemu).await;
}

/// A step starts a server, others talk to it, also after one that was killed. The server holds its step's output, and
/// nobody waits for it.
const SERVER: &str = "\
name: ci
on: push
jobs:
  serve:
    steps:
      - name: Serve
        run: |
          mkfifo ask answer
          sh -c 'echo $$ > pid; while read -r word < ask; do echo served $word; echo $word-$word > answer; done' &
          until test -s pid; do sleep 0.02; done
      - name: Test
        run: for word in one two; do echo $word > ask; cat answer; done
      - name: Die
        continue-on-error: true
        run: sleep 100000 & kill -9 $$
      - name: Still there
        run: |
          echo three > ask; cat answer
          exit 3
";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_a_step_starts_serves_the_next_ones() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(SERVER).await;
    let job = world.wait_job(&sha, "serve", "failure");
    let log = world.log(id(&job));
    for said in [
        "one-one",
        "two-two",
        "three-three",
        "Still running, and ended with the job: ",
    ] {
        assert!(log.contains(said), "{said:?} is not in\n{log}");
    }
    let detail = world.detail(id(&job));
    let reason = detail["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("Still there") && reason.contains("exit code 3"),
        "{detail:#}"
    );
    world.nothing_left();
}

/// A job that ends its machine's agent, with every process of the machine or alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_agent_fails_once_and_hears_why() {
    if support::needs_guest().is_none() {
        return;
    }
    let world = World::start(Machines::Qemu).await;
    const KILLED: &str = "step 1 “Clean up”: the machine's agent was killed (SIGKILL) while the step ran";
    for (kill, wanted) in [
        ("kill -9 -1", KILLED),
        ("kill -9 $(pidof helios-agent)", KILLED),
        // It ends what runs before it goes, and may say so itself.
        ("kill -15 $(pidof helios-agent)", "step 1 “Clean up”: "),
    ] {
        let workflow = format!(
            "name: ci\non: push\njobs:\n  kill:\n    steps:\n      - name: Clean up\n        run: |\n          \
             {kill}\n          sleep 100000\n"
        );
        let sha = world.push(&workflow).await;
        let job = world.wait_job(&sha, "kill", "failure");
        let detail = world.detail(id(&job));
        assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{kill}: {detail:#}");
        let reason = detail["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(wanted), "{kill}: {detail:#}");
        assert_shown(&world, id(&job), wanted);
        world.wait(&sha, "failure").await;
    }
    world.nothing_left();
}
