//! Joining, resuming, being refused, and losing the connection at the worst moments.

use std::fs;

use helios_proto::v1::{
    self, command,
    event::{self, Event},
    hello::Credential,
    output::Stream,
};
use tonic::Status;

use crate::common::{self, Node, noise, poll};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_joins_and_the_key_resumes() {
    let node = Node::start().await;
    // The first welcome is lost, so the join is repeated with the same key.
    node.lock().refusals.push(Status::unavailable("the node restarts"));
    let _agent = node.agent();
    node.until("two hellos", |state| (state.hellos.len() == 2).then_some(()))
        .await;
    node.sh(1, "echo joined");
    assert_eq!(node.code(1).await, 0);
    node.line.cut();
    node.until("a third hello", |state| (state.hellos.len() == 3).then_some(()))
        .await;
    let state = node.lock();
    let token = Some(Credential::JoinToken("hjt_0123456789abcdefghijklmnop".into()));
    let credentials: Vec<_> = state.hellos.iter().map(|hello| hello.credential.clone()).collect();
    assert_eq!(credentials, [token.clone(), token, Some(Credential::Resume(true))]);
    assert!(
        state
            .hellos
            .iter()
            .all(|hello| hello.session_key == state.hellos[0].session_key)
    );
    let hello = &state.hellos[2];
    assert_eq!((hello.session_key.len(), hello.attempt.as_str()), (32, common::ATTEMPT));
    assert_eq!((hello.version_min, hello.version_max), helios_proto::VERSIONS);
    assert_eq!(hello.last_sequence, state.events.len() as u64);
    let facts = hello.facts.as_ref().unwrap();
    assert_eq!(
        (facts.os.as_str(), facts.architecture.as_str()),
        (std::env::consts::OS, std::env::consts::ARCH)
    );
}

/// What every refusal of the node must do to the agent.
async fn refused(status: Option<Status>, version: u32, words: &str) {
    let node = Node::start().await;
    node.lock().refusals.extend(status);
    node.lock().version = version;
    let mut agent = node.agent();
    assert_eq!(agent.ended().await.code(), Some(3), "{}", agent.stderr());
    assert!(agent.stderr().contains(words), "{}", agent.stderr());
    assert_eq!(node.lock().hellos.len(), 1, "it tried again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_token_ends_the_agent() {
    refused(
        Some(Status::permission_denied("the token was used by another machine")),
        1,
        "used by another",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_common_version_ends_the_agent_in_words() {
    refused(
        Some(Status::failed_precondition("this node speaks 2 to 3, the agent 1 to 1")),
        1,
        "speaks 2 to 3",
    )
    .await;
    refused(
        None,
        9,
        "wants version 9 of the protocol, and this agent speaks 1 to 1 only",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_resume_ends_the_agent_and_its_steps() {
    let node = Node::start().await;
    let mut agent = node.agent();
    let pid_file = node.dir.path().join("pid");
    node.sh(1, &format!("echo $$ > {}; exec sleep 600", pid_file.display()));
    let pid = poll("the step", || {
        fs::read_to_string(&pid_file).ok().filter(|pid| pid.ends_with('\n'))
    })
    .await;
    node.lock()
        .refusals
        .push(Status::permission_denied("the attempt is over"));
    node.line.cut();
    assert_eq!(agent.ended().await.code(), Some(3));
    assert!(
        !fs::exists(format!("/proc/{}", pid.trim())).unwrap(),
        "the step outlives its agent"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_is_refused() {
    let node = Node::start().await;
    let mut seed = node.seed();
    seed["fingerprint"] = "00".repeat(32).into();
    let agent = node.agent_with(&seed);
    poll("the refusal", || {
        agent
            .stderr()
            .contains("the certificate is not the one the seed pins")
            .then_some(())
    })
    .await;
    assert!(node.lock().hellos.is_empty(), "it said hello to a stranger");
    assert!(!agent.stderr().contains("hjt_"), "the token is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_of_noise_arrive_exactly() {
    ten_megabytes(false).await;
}

/// Between an upgrade's new files and the daemon's restart, new agents meet the daemon of before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_an_earlier_build_gets_no_more_at_once_than_it_takes() {
    ten_megabytes(true).await;
}

async fn ten_megabytes(is_earlier: bool) {
    let node = Node::start().await;
    node.lock().is_earlier = is_earlier;
    let _agent = node.agent();
    let bytes = noise(10 << 20);
    fs::write(node.dir.path().join("noise"), &bytes).unwrap();
    node.sh(1, "cat ../noise");
    assert_eq!(node.code(1).await, 0);
    assert!(node.output(1, Stream::Stdout) == bytes, "the bytes differ");
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_in_mid_output_make_no_gap_and_no_repetition() {
    let node = Node::start().await;
    let _agent = node.agent();
    let bytes = noise(10 << 20);
    fs::write(node.dir.path().join("noise"), &bytes).unwrap();
    // Several at once, so that their events mix; all are sent again in every session.
    node.sh(1, "cat ../noise; exit 7");
    node.sh(2, "cat ../noise >&2; exit 8");
    for round in 1..=12 {
        node.until("progress", |state| (state.events.len() >= round * 12).then_some(()))
            .await;
        node.line.cut();
        node.until("the resume", |state| (state.hellos.len() > round).then_some(()))
            .await;
    }
    assert_eq!((node.code(1).await, node.code(2).await), (7, 8));
    assert!(
        node.output(1, Stream::Stdout) == bytes && node.output(2, Stream::Stderr) == bytes,
        "the bytes differ"
    );
    node.assert_clean();
    let started = |exec_id| {
        let state = node.lock();
        let events = state.events.iter().filter(|event| event.exec_id == exec_id);
        events
            .filter(|event| matches!(event.event, Some(Event::Started(_))))
            .count()
    };
    assert_eq!((started(1), started(2)), (1, 1), "a repeated command ran again");
}

/// While the node is away a step runs to its end; its output waits in memory and in the spool file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_does_not_wait_for_an_absent_node() {
    let node = Node::start().await;
    let _agent = node.agent();
    let bytes = noise(20 << 20);
    fs::write(node.dir.path().join("noise"), &bytes).unwrap();
    node.sh(
        1,
        "until [ -e ../go ]; do sleep 0.01; done; cat ../noise; echo x > ../finished",
    );
    node.until("the start", |state| (!state.events.is_empty()).then_some(()))
        .await;
    node.line.set_open(false);
    fs::write(node.dir.path().join("go"), "").unwrap();
    poll("the step's end", || {
        node.dir.path().join("finished").exists().then_some(())
    })
    .await;
    assert!(
        node.output(1, Stream::Stdout).len() < bytes.len(),
        "the line was never cut"
    );
    node.line.set_open(true);
    assert_eq!(node.code(1).await, 0);
    assert!(node.output(1, Stream::Stdout) == bytes, "the bytes differ");
    node.assert_clean();
    let hello = node.lock().hellos.last().unwrap().clone();
    assert!(hello.last_sequence > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_acknowledge_stops_the_flood_and_not_the_agent() {
    let node = Node::start().await;
    node.lock().mute = true;
    let agent = node.agent();
    node.sh(1, "head -c 40000000 /dev/zero");
    node.until("some output", |state| (state.events.len() > 10).then_some(()))
        .await;
    // Other commands work while the step waits.
    node.sh(2, "exit 9");
    assert_eq!(node.code(2).await, 9);
    let stuck = node.output(1, Stream::Stdout).len();
    assert!(stuck < 8 << 20, "{stuck} bytes came without an acknowledgement");
    node.lock().mute = false;
    node.line.cut();
    assert_eq!(node.code(1).await, 0);
    assert_eq!(node.output(1, Stream::Stdout).len(), 40_000_000);
    node.assert_clean();
    let peak = agent.peak_kib();
    println!("peak resident memory: {peak} KiB");
    assert!(peak < 32 * 1024, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_somebody_elses_machine_is_reported_and_left_alone() {
    let node = Node::start().await;
    node.lock().time_ms = 4_000_000_000_000;
    let _agent = node.agent();
    let offset = node
        .until("the offset", |state| {
            state.events.iter().find_map(|event| match &event.event {
                Some(Event::ClockStepped(stepped)) => Some(stepped.offset_ms),
                _ => None,
            })
        })
        .await;
    assert!(offset > 1_000_000_000, "{offset}");
    node.command(
        1,
        command::Command::SetTime(v1::SetTime {
            time_ms: 4_000_000_000_000,
        }),
    );
    assert!(matches!(node.end(1).await, event::Event::Failed(_)));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    assert!(now < 4_000_000_000_000, "it set this machine's clock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_stops_what_runs_and_ends_the_agent() {
    let node = Node::start().await;
    let mut agent = node.agent();
    node.sh(
        1,
        "trap 'echo stopped; exit 0' INT TERM; echo ready; while :; do sleep 0.01; done",
    );
    node.until("ready", |state| (state.events.len() >= 2).then_some(()))
        .await;
    node.command(2, command::Command::Shutdown(v1::Shutdown { grace_ms: 60_000 }));
    assert!(matches!(node.end(2).await, event::Event::Done(_)));
    assert_eq!(node.code(1).await, 0);
    assert_eq!(node.output(1, Stream::Stdout), b"ready\nstopped\n");
    assert_eq!(agent.ended().await.code(), Some(0));
}
