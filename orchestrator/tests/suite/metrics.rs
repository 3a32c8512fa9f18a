//! What an operator's monitoring sees of a run: what was counted on the way, on a listener of its own.

use std::time::Instant;

use crate::support::{self, Machines, World};

const SPEAKING: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo 0123456789\n";

/// The sum of a metric over all label sets that contain `labels`.
fn sum(text: &str, name: &str, labels: &str) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| line.contains(labels))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_after_a_run_shows_the_delivery_the_log_and_the_reports() {
    let reserved = support::port::Port::reserve();
    let port = reserved.number();
    let world = World::with(Machines::Process, &format!("metrics_listen: 127.0.0.1:{port}\n")).await;
    let sha = world.push(SPEAKING).await;
    world.wait(&sha, "success").await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    // Not signed: counted as well.
    let refused = client.post(format!("{}/hooks/local", world.url())).send().await;
    assert_eq!(refused.expect("an answer").status().as_u16(), 401);
    let asked = Instant::now();
    let text = loop {
        let answer = client.get(format!("http://127.0.0.1:{port}/metrics")).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let text = answer.text().await.expect("its text");
        // At least the ends of the job and of its aggregate; the last is counted when the forge has answered.
        if sum(&text, "helios_ci_reports_total", "") >= 2.0 {
            break text;
        }
        assert!(
            asked.elapsed() < support::deadline::GUEST,
            "the reports are not counted: {text}"
        );
        support::pause();
    };
    let requests = |labels| sum(&text, "helios_ci_webhook_requests_total", labels);
    assert!(requests("outcome=\"stored\"") >= 1.0, "{text}");
    assert_eq!(requests("outcome=\"bad_signature\""), 1.0, "{text}");
    assert_eq!(sum(&text, "helios_ci_log_bytes_total", ""), 11.0, "{text}");
    assert!(
        sum(
            &text,
            "helios_ci_http_request_duration_seconds_count",
            "/hooks/{*address}"
        ) >= 2.0,
        "{text}"
    );
    assert_eq!(text.matches("# EOF").count(), 1, "{text}");
}
