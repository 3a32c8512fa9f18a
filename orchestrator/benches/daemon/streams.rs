//! How soon a viewer sees a line who opened the job's page while the job was queued.

use std::fs;

use futures::StreamExt as _;
use serde_json::Value;

use crate::{
    api::{self, Api, ms, now_ms},
    support::Machines,
    table::{Goal, MS, Row, Table},
};

const TRIES: usize = 50;

/// When the first bytes came that hold the text.
async fn seen(stream: reqwest::Response, text: &str) -> f64 {
    let (mut pieces, mut read) = (stream.bytes_stream(), Vec::new());
    while let Some(piece) = pieces.next().await {
        read.extend_from_slice(&piece.expect("a stream that goes on"));
        if String::from_utf8_lossy(&read).contains(text) {
            return now_ms();
        }
    }
    panic!("the stream ended without {text}: {}", String::from_utf8_lossy(&read));
}

/// The job waits until the only machine is free; then both streams of it are open.
pub async fn opened_in_the_queue(table: &mut Table) {
    let world = api::start(Machines::Process, "capacity: {machines: 1}\n").await;
    let api = Api::of(&world);
    let gate = world.dir.path().join("gate");
    let workflow = format!(
        "name: ci\non: push\njobs:\n  holds:\n    steps:\n      - run: until [ -e {} ]; do sleep 0.02; done\n  \
         waits:\n    steps:\n      - run: echo it was \"written\"\n",
        gate.display()
    );
    fs::write(&gate, "").expect("the gate");
    let sha = world.push(&workflow).await;
    let run = api.planned(&world, &sha, "ci").await;
    let (mut records, mut pages) = (vec![], vec![]);
    for _ in 0..TRIES {
        world.wait_clean();
        fs::remove_file(&gate).expect("the gate");
        let jobs = api.rerun(&run).await;
        let [holds, waits] = jobs.as_slice() else {
            panic!("{jobs:?} are not two jobs");
        };
        let stream = api.open(&format!("/api/v1/jobs/{waits}/logs/stream")).await;
        let page = api.open(&format!("/jobs/{waits}/log/stream")).await;
        let state: Value = api.job(waits).await;
        assert_eq!(state["state"], "queued", "it was to wait for {holds}");
        let text = "it was written";
        let both = async { tokio::join!(seen(stream, text), seen(page, text)) };
        fs::write(&gate, "").expect("the gate");
        let (record, page) = both.await;
        let written = api.first_line(waits).await;
        records.push(record - written);
        pages.push(page - written);
        ms(&api.ended(waits).await["ended"]);
    }
    let goal = Goal::AtMost(60.0);
    table.push(
        Row::new(
            "line written → seen in the API's stream, opened while queued",
            MS,
            records,
        )
        .goal_of_part(0.99, goal),
    );
    table.push(Row::new("line written → seen on the page, opened while queued", MS, pages).goal_of_part(0.99, goal));
}
