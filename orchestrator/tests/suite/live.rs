//! Live streams of a job that still waits for its machine.

use std::fs;

use crate::support::{Machines, World, deadline};

/// Both streams are opened before the job is claimed, of a daemon whose streams never poll: only hints can wake them.
#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_in_the_queue_show_the_job_without_ever_polling() {
    let mut world = World::stopped(Machines::Process, "capacity: {machines: 1}\n").await;
    world.up_with(&[("HELIOS_CI_NO_STREAM_POLL", "1")]);
    let gate = world.dir.path().join("gate");
    let workflow = format!(
        "name: ci\non: push\njobs:\n  holds:\n    steps:\n      - run: until [ -e {} ]; do sleep 0.02; done\n  \
         waits:\n    steps:\n      - run: echo it is \"seen\"\n",
        gate.display()
    );
    let sha = world.push(&workflow).await;
    world.wait_job(&sha, "holds", "active");
    let job = world.wait_job(&sha, "waits", "queued");
    let id = job["id"].as_str().expect("an id");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut streams = Vec::new();
    for path in [
        format!("/api/v1/jobs/{id}/logs/stream"),
        format!("/jobs/{id}/log/stream"),
    ] {
        let request = client.get(format!("{}{path}", world.url())).bearer_auth(world.token());
        // The head of the answer comes when the stream has read that the job waits.
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        streams.push((path, answer));
    }
    fs::write(&gate, "").expect("the gate");
    for (path, stream) in streams {
        let text = tokio::time::timeout(deadline::GUEST, stream.text()).await;
        let text = text.unwrap_or_else(|_| panic!("{path} never ends\n{}", world.daemon_log()));
        let text = text.expect("a stream");
        assert!(
            text.contains("it is seen") && text.contains("event: end"),
            "{path}: {text}"
        );
    }
}
