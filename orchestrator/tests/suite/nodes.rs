//! Several daemons on one database: they share the queue, each job runs once, and what a dead or
//! sleeping node held goes on elsewhere, with one result.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Machines, World,
    hold::{self, assert_counted, counted, counting, http, machines_in, signal},
    peer::Peer,
};

/// The shortest that the configuration allows.
const GRACE: &str = "limits: {node_grace_s: 15}\n";

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// Jobs that note that they ran and wait for a file.
fn waiting(world: &World, prefix: &str, jobs: usize) -> String {
    let dir = world.dir.path().display();
    let job = |n: usize| {
        format!(
            "  {prefix}{n}:\n    steps:\n      - run: |\n          echo {prefix}{n} >> {dir}/ran-{prefix}{n}\n          until test -e {dir}/go-{prefix}; do sleep 0.05; done\n"
        )
    };
    format!("name: ci\non: push\njobs:\n{}", (0..jobs).map(job).collect::<String>())
}

fn release(world: &World, prefix: &str) {
    fs::write(world.dir.path().join(format!("go-{prefix}")), "").expect("the file they wait for");
}

/// As [`counting`], and in the middle it waits as those of [`waiting`] do.
fn counting_and_waiting(world: &World, lines: usize, prefix: &str) -> String {
    counting(lines, "0.05").replace(
        "sleep 0.05;",
        &format!(
            "sleep 0.05; [ $i -ne {} ] || until test -e {}/go-{prefix}; do sleep 0.05; done;",
            lines / 2,
            world.dir.path().display()
        ),
    )
}

/// The nodes of all attempts of a commit's jobs.
fn nodes(world: &World, sha: &str) -> Vec<String> {
    let jobs = world.jobs(sha);
    let details = jobs.iter().map(|job| world.detail(id(job)));
    let nodes = details.flat_map(|detail| {
        let attempts = detail["attempts"].as_array().cloned().unwrap_or_default();
        attempts
            .into_iter()
            .filter_map(|a| Some(a["node"].as_str()?.to_owned()))
            .collect::<Vec<_>>()
    });
    nodes.collect()
}

fn wait_on(world: &World, sha: &str, node: &str, attempts: usize) {
    world.until(&format!("{attempts} attempts or more on {node}"), || {
        (nodes(world, sha).iter().filter(|n| *n == node).count() >= attempts).then_some(())
    });
}

fn peer_is_clean(peer: &Peer) {
    hold::until("the second node's machines are gone", || {
        fs::read_dir(peer.data().join("machines")).map_or(0, Iterator::count) == 0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_needs_a_name_of_its_own_and_then_shares_the_queue() {
    let world = World::start(Machines::Process).await;
    let mut twin = world.peer("test-node");
    twin.launch();
    assert_eq!(twin.ended(), Some(2), "{}", twin.log());
    let words = twin.log().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("another helios-ci with the node name `test-node` was alive"),
        "{words}"
    );

    let mut peer = world.peer("second");
    peer.up();
    let sha = world.push(&waiting(&world, "shared", 10)).await;
    wait_on(&world, &sha, "second", 2);
    wait_on(&world, &sha, "test-node", 2);
    release(&world, "shared");
    world.wait(&sha, "success").await;
    let ran = nodes(&world, &sha);
    assert_eq!(ran.len(), 10, "one attempt each: {ran:?}");
    for n in 0..10 {
        let text = fs::read_to_string(world.dir.path().join(format!("ran-shared{n}"))).expect("it ran");
        assert_eq!(text, format!("shared{n}\n"), "exactly once");
    }
    world.nothing_left();
    peer_is_clean(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_job_on_another_node() {
    let world = World::start(Machines::Process).await;
    let mut peer = world.peer("second");
    peer.up();
    let sha = world.push(&waiting(&world, "far", 3)).await;
    wait_on(&world, &sha, "second", 1);
    let run = world.detail(id(&world.jobs(&sha)[0]))["run"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(world.cli(&["cancel", &run]).status.success());
    for n in 0..3 {
        world.wait_job(&sha, &format!("far{n}"), "cancelled");
    }
    world.nothing_left();
    peer_is_clean(&peer);
}

/// The first node is full, and a second one comes up: it gets whatever is pushed from then on. The commit whose jobs
/// fill the first.
async fn with_room_on_the_second_alone(world: &World, peer: &mut Peer) -> String {
    let blocking = world.push(&waiting(world, "block", 2)).await;
    wait_on(world, &blocking, "test-node", 2);
    peer.up();
    blocking
}

/// A job that runs on the second node.
async fn on_the_second(world: &World, workflow: &str) -> (String, String) {
    let mut peer_job = None;
    let sha = world.push(workflow).await;
    world.until("the job runs on the second node", || {
        let job = world.jobs(&sha).into_iter().next()?;
        let running = nodes(world, &sha) == ["second"] && job["state"] == "active";
        peer_job = running.then(|| id(&job).to_owned());
        peer_job.clone()
    });
    (sha, peer_job.expect("a job"))
}

fn logs_in(peer: &Peer) -> Vec<std::path::PathBuf> {
    let logs = fs::read_dir(peer.data().join("logs")).into_iter().flatten().flatten();
    logs.map(|entry| entry.path()).collect()
}

/// The log of each try is read at the node that it ran on; the other node says where it is.
fn each_log_is_read_at_its_node(world: &World, peer: &Peer, job: &str) {
    let first = world.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let first: u16 = first.expect("the first daemon's port");
    let detail = world.detail(job);
    for attempt in detail["attempts"].as_array().expect("attempts") {
        let (number, node) = (&attempt["number"], &attempt["node"]);
        let (here, there) = match node.as_str() {
            Some("second") => (peer.port, first),
            _ => (first, peer.port),
        };
        for path in ["logs", "logs/stream"] {
            let path = format!("/api/v1/jobs/{job}/{path}?try={number}");
            assert_eq!(http(here, &path, world.token()).0, 200, "{path}");
            let (status, body) = http(there, &path, world.token());
            assert_eq!(status, 409, "{path}: {body}");
            let place = format!("lies on node {}", node.as_str().expect("a name"));
            assert!(body.contains(&place), "{path}: {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nodes_jobs_are_taken_back_and_its_queue_goes_on() {
    let world = World::with(Machines::Process, GRACE).await;
    let mut peer = world.peer("second");
    let blocking = with_room_on_the_second_alone(&world, &mut peer).await;
    // Two of these run on the second and two wait.
    let sha = world.push(&waiting(&world, "taken", 4)).await;
    world.until(
        "two jobs that run on the second node, and what is known of their machines",
        || {
            let ran = |n: &usize| world.dir.path().join(format!("ran-taken{n}")).exists();
            ((0..4).filter(ran).count() == 2 && machines_in(&peer.data()).len() == 2).then_some(())
        },
    );
    peer.kill();
    release(&world, "block");
    release(&world, "taken");
    world.wait(&sha, "success").await;
    let mut taken_back = 0;
    for job in world.jobs(&sha) {
        let detail = world.detail(id(&job));
        let attempts = detail["attempts"].as_array().unwrap();
        if attempts.len() == 2 {
            taken_back += 1;
            assert!(
                detail.to_string().contains("node second has been silent for"),
                "{detail:#}"
            );
        }
        let last = attempts.iter().max_by_key(|a| a["number"].as_u64()).unwrap();
        assert_eq!(last["node"], "test-node", "{detail:#}");
    }
    assert_eq!(taken_back, 2, "{:?}", nodes(&world, &sha));
    // The dead one comes back and finds machines that belong to nobody any more, and logs that nobody has ended.
    assert_eq!(machines_in(&peer.data()).len(), 2);
    let logs = logs_in(&peer);
    assert_eq!(logs.len(), 2);
    assert!(logs.iter().all(|log| !log.join("sealed").exists()), "{logs:?}");
    peer.up();
    peer_is_clean(&peer);
    hold::until("its logs are sealed", || {
        logs.iter().all(|log| log.join("sealed").exists())
    });
    for job in world.jobs(&sha) {
        each_log_is_read_at_its_node(&world, &peer, id(&job));
    }
    world.wait(&blocking, "success").await;
    world.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_beyond_its_grace_writes_no_more() {
    const LINES: usize = 60;
    let world = World::with(Machines::Process, GRACE).await;
    let mut peer = world.peer("second");
    with_room_on_the_second_alone(&world, &mut peer).await;
    let (sha, job) = on_the_second(&world, &counting_and_waiting(&world, LINES, "block")).await;
    hold::until("output on the second node", || {
        let (_, log) = http(peer.port, &format!("/api/v1/jobs/{job}/logs"), world.token());
        counted(&log).len() > 3
    });
    // Asleep in the middle of a write it would keep the database locked for everybody.
    hold::until("it sleeps without the database's lock", || {
        peer.signal(Signal::SIGSTOP);
        let free = world.is_database_free();
        if !free {
            peer.signal(Signal::SIGCONT);
        }
        free
    });
    release(&world, "block");
    world.wait_job(&sha, "count", "success");
    world.wait(&sha, "success").await;
    let before = world.detail(&job);
    peer.signal(Signal::SIGCONT);
    // Its machine has done all steps by itself meanwhile; nobody wants to know.
    peer_is_clean(&peer);
    hold::until("the sleeper says so", || {
        peer.log().contains("another daemon took the attempt over")
    });
    let after = world.detail(&job);
    assert_eq!(before["attempts"], after["attempts"], "the old epoch wrote something");
    assert_eq!(
        (&after["state"], nodes(&world, &sha)),
        (&Value::from("success"), vec!["second".into(), "test-node".into()])
    );
    assert_counted(&world.log(&job), LINES, "the second try");
    // A request that slept with the node may arrive after the result; then the result is said again. What it had begun is
    // over once it has ended.
    peer.signal(Signal::SIGTERM);
    assert_eq!(peer.ended(), Some(0), "{}", peer.log());
    world.until("nothing is left to be told", || {
        (world.rows("reports WHERE delivered < version") == 0).then_some(())
    });
    let words = world.words(&sha, "helios-ci");
    assert_eq!(words.last().map(String::as_str), Some("success"), "{words:?}");
    assert!(
        words.iter().all(|word| ["pending", "success"].contains(&word.as_str())),
        "{words:?}"
    );
    world.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_alone_goes_on_with_the_same_attempt() {
    const LINES: usize = 200;
    let world = World::with(Machines::Process, GRACE).await;
    let sha = world.push(&counting(LINES, "0.05")).await;
    let job = world.wait_job(&sha, "count", "active");
    world.wait_counted(id(&job), 5);
    signal(world.pid(), Signal::SIGSTOP);
    // Longer than the grace: that is what is tested.
    tokio::time::sleep(Duration::from_secs(20)).await;
    signal(world.pid(), Signal::SIGCONT);
    world.wait_job(&sha, "count", "success");
    assert_eq!(world.detail(id(&job))["attempts"].as_array().unwrap().len(), 1);
    assert_counted(&world.log(id(&job)), LINES, "after a sleep");
    world.wait(&sha, "success").await;
    world.nothing_left();
}
