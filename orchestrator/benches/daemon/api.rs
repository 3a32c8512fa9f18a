//! An installation that is measured, and its API as a program uses it. Nothing here looks again and again while something
//! is measured: it takes the processor from it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use helios_ci::web::api::types::LogRecord;
use serde_json::{Value, json};

use crate::support::{Machines, World};

/// A job that says one line.
pub const TRIVIAL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo first\n";

/// A daemon that logs as one in service does.
pub async fn start(machines: Machines, extra: &str) -> World {
    let mut world = World::stopped(machines, extra).await;
    up(&mut world);
    world
}

/// Starts the daemon of an installation again.
pub fn up(world: &mut World) {
    world.up_with(&[("RUST_LOG", "info")]);
}

/// Milliseconds since 1970.
pub fn now_ms() -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock that is right");
    now.as_secs_f64() * 1000.0
}

/// The same of a time as the API writes it.
pub fn ms(value: &Value) -> f64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    let time = chrono::DateTime::parse_from_rfc3339(text).expect("a time");
    time.timestamp_millis() as f64
}

pub fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// The daemon's API, over one connection.
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    pub fn of(world: &World) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            base: world.url(),
            token: world.token().to_owned(),
        }
    }

    pub async fn open(&self, path: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        self.open(path).await.json().await.expect("JSON")
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self
            .client
            .post(format!("{}{path}", self.base))
            .bearer_auth(&self.token);
        let answer = request.json(body).send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("an answer");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Runs a run again; its new jobs, in the order of the workflow.
    pub async fn rerun(&self, run: &str) -> Vec<String> {
        self.post(&format!("/api/v1/runs/{run}/rerun"), &json!({})).await;
        self.newest_jobs(run).await
    }

    /// The jobs of a run's newest attempt.
    pub async fn newest_jobs(&self, run: &str) -> Vec<String> {
        let detail = self.get(&format!("/api/v1/runs/{run}")).await;
        let attempts = detail["attempts"].as_array().into_iter().flatten();
        let newest = attempts.max_by_key(|attempt| attempt["number"].as_u64());
        let jobs = newest
            .and_then(|attempt| attempt["jobs"].as_array())
            .into_iter()
            .flatten();
        jobs.map(|job| id(job).to_owned()).collect()
    }

    pub async fn job(&self, job: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{job}")).await
    }

    /// Waits for the end of a job by its log's stream, which takes little of what is measured.
    pub async fn ended(&self, job: &str) -> Value {
        loop {
            drop(
                self.open(&format!("/api/v1/jobs/{job}/logs/stream"))
                    .await
                    .bytes()
                    .await,
            );
            let detail = self.job(job).await;
            if detail["ended"].is_string() {
                return detail;
            }
            // The log ends a moment before the job does.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// When the first line that a step wrote was received and written.
    pub async fn first_line(&self, job: &str) -> f64 {
        let text = self.open(&format!("/api/v1/jobs/{job}/logs/stream")).await.text().await;
        let text = text.expect("a stream");
        let records = text.split("\n\n").filter_map(record);
        let mut of_a_step = records.filter(|record| record.channel == "stdout");
        of_a_step.next().map(|record| ms(&json!(record.time))).expect("a line")
    }

    /// The run of a commit whose workflow has this name, and its only attempt's jobs, once all of them have ended.
    pub async fn planned(&self, world: &World, sha: &str, workflow: &str) -> String {
        let found = world.until("the end of the first run of it", || {
            let runs = world.get("/api/v1/runs?limit=100");
            let mut runs = runs["runs"].as_array().cloned().into_iter().flatten();
            runs.find(|run| run["commit"] == *sha && run["workflow"] == *workflow && run["state"] == "success")
        });
        id(&found).to_owned()
    }
}

/// The record of a log in one event of a stream.
pub fn record(event: &str) -> Option<LogRecord> {
    let data = event.lines().find_map(|line| line.strip_prefix("data:"))?;
    serde_json::from_str(data.trim()).ok()
}
