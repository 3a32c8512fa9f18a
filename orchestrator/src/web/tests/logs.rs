//! Logs over HTTP: windows, ranges, and live streams that neither lose nor repeat.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use futures::StreamExt as _;
use tower::ServiceExt as _;

use super::fixture::{Site, between, node};
use crate::{
    clock::now_ms,
    deadline,
    logs::Channel,
    model::state::JobResult,
    queue::Hint,
    store::{AttemptEnd, tests::AGE_ATTEMPTS},
};

#[derive(Debug, Clone, Default)]
struct Event {
    name: String,
    id: String,
    data: String,
}

/// An open stream of events.
struct Events {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Events {
    async fn open(site: &Site, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::builder().uri(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = site
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self {
            body: answer.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next named event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let mut event = Event::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("event", v)) => event.name = v.to_owned(),
                        Some(("id", v)) => event.id = v.to_owned(),
                        Some(("data", v)) => event.data.push_str(v),
                        _ => {}
                    }
                }
                if !event.name.is_empty() {
                    return Some(event);
                }
            }
            let piece = tokio::time::timeout(deadline::PROMPT, self.body.next())
                .await
                .expect("the stream hangs")?;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }

    /// The next event of this name; others are passed over.
    async fn until(&mut self, name: &str) -> Event {
        loop {
            let event = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the stream ended before `{name}`"));
            if event.name == name {
                return event;
            }
        }
    }
}

/// The text of the lines in an event, by their place.
fn shown(event: &Event) -> Vec<(String, String)> {
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    let html = data["html"].as_str().unwrap();
    html.split("<div ")
        .skip(1)
        .map(|l| {
            (
                between(l, "id=\"", "\"").to_owned(),
                between(l, "<span>", "</span>").to_owned(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_page_follows_and_resumes_without_gap_or_repetition() {
    let site = Site::new().await;
    let (attempt, epoch, job) = site.claim().await;
    let mut log = site.writer(attempt).await;
    log.output(1, 0, Channel::Stdout, now_ms(), b"one\ntwo\nthr").unwrap();
    log.sync().await.unwrap();
    let page = site.get(&format!("/jobs/{job}")).await.body;
    assert!(page.contains(">two<") && page.contains(">thr<"), "{page}");
    let url = between(&page, "data-stream=\"", "\"").to_owned();
    let mut events = Events::open(&site, &url, None).await;
    log.output(2, 0, Channel::Stdout, now_ms(), b"ee\nfour\n").unwrap();
    let event = events.until("lines").await;
    assert_eq!(
        shown(&event),
        [
            ("s1-L3".to_owned(), "three".to_owned()),
            ("s1-L4".to_owned(), "four".to_owned())
        ]
    );
    drop(events);

    // Away for a moment: lines that came meanwhile arrive once, those that were seen do not.
    log.output(3, 0, Channel::Stdout, now_ms(), b"five\n").unwrap();
    let mut events = Events::open(&site, &url, Some(&event.id)).await;
    assert_eq!(
        shown(&events.until("lines").await),
        [("s1-L5".to_owned(), "five".to_owned())]
    );
    for n in 4..300u64 {
        log.output(n, 0, Channel::Stdout, now_ms(), format!("line {n}\n").as_bytes())
            .unwrap();
    }
    log.end_step(0).unwrap();
    log.sync().await.unwrap();
    log.seal().await.unwrap();
    let end = AttemptEnd::Result {
        result: JobResult::Success,
        message: "ok".into(),
    };
    site.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut states = Vec::new();
    while let Some(event) = events.next().await {
        match event.name.as_str() {
            "lines" => shown(&event)
                .into_iter()
                .for_each(|(place, _)| *seen.entry(place).or_default() += 1),
            "state" => states.push(event.data),
            "end" => break,
            other => assert_eq!(other, "step"),
        }
    }
    assert_eq!(seen.len(), 296);
    assert!(seen.values().all(|n| *n == 1), "{seen:?}");
    assert!(states.last().unwrap().contains("passed"), "{states:?}");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn the_api_streams_records_and_resumes_at_any_of_them() {
    let site = Site::new().await;
    let (attempt, epoch, job) = site.claim().await;
    let path = format!("/api/v1/jobs/{job}/logs/stream");
    let mut events = Events::open(&site, &path, None).await;
    let mut log = site.writer(attempt).await;
    for n in 1..=20u64 {
        let data: &[u8] = if n == 7 { b"\xff\xfe\n" } else { b"text\n" };
        log.output(n, 0, Channel::Stderr, now_ms(), data).unwrap();
    }
    let mut ids = vec![];
    for n in 1..=20 {
        let event = events.until("log").await;
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["channel"], "stderr");
        assert_eq!(data["base64"].is_string(), n == 7, "{data}");
        ids.push((data["position"].as_str().unwrap().to_owned(), event.id));
    }
    drop(events);
    log.sync().await.unwrap();
    log.seal().await.unwrap();
    let end = AttemptEnd::Result {
        result: JobResult::Success,
        message: "ok".into(),
    };
    site.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
    for (index, (_, id)) in ids.iter().enumerate() {
        let mut events = Events::open(&site, &path, Some(id)).await;
        let mut rest = vec![];
        while let Some(event) = events.next().await {
            if event.name == "end" {
                assert!(event.data.contains("\"state\":\"success\""), "{}", event.data);
                break;
            }
            rest.push(event.id);
        }
        let want: Vec<_> = ids[index + 1..].iter().map(|(_, id)| id.clone()).collect();
        assert_eq!(rest, want);
    }
    let mut events = Events::open(&site, &format!("{path}?from={}", ids[3].0), None).await;
    assert_eq!(
        events.until("log").await.id,
        ids[3].1,
        "`from` names the record to begin with"
    );
    let bad = site.get(&format!("{path}?from=x")).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_place_of_another_generation_is_told() {
    let site = Site::new().await;
    let (attempt, _, job) = site.claim().await;
    let mut log = site.writer(attempt).await;
    log.output(1, 0, Channel::Stdout, now_ms(), b"x\n").unwrap();
    let mut events = Events::open(&site, &format!("/jobs/{job}/log/stream?from={attempt}:99:1:1:1"), None).await;
    events.until("resync").await;
    let mut events = Events::open(
        &site,
        &format!("/api/v1/jobs/{job}/logs/stream?from={attempt}:99:1"),
        None,
    )
    .await;
    events.until("resync").await;
    assert_eq!(
        events.next().await.unwrap().name,
        "log",
        "and goes on from the beginning"
    );
}

#[tokio::test]
async fn a_place_in_the_log_of_one_try_means_nothing_in_that_of_another() {
    let site = Site::new().await;
    let (first, epoch, job) = site.claim().await;
    let mut log = site.writer(first).await;
    for n in 1..=4 {
        log.output(n, 0, Channel::Stdout, now_ms(), b"first\n").unwrap();
    }
    log.seal().await.unwrap();
    let (api, page) = (
        format!("/api/v1/jobs/{job}/logs/stream"),
        format!("/jobs/{job}/log/stream"),
    );
    let in_first = Events::open(&site, &api, None).await.until("log").await.id;
    let shown_of_first = Events::open(&site, &page, None).await.until("lines").await.id;
    let lost = AttemptEnd::Infra {
        cause: "the machine was lost".into(),
    };
    site.store.end_attempt(first, epoch, lost, 3).await.unwrap();
    let second = loop {
        let (attempt, _, of) = site.claim().await;
        if of == job {
            break attempt;
        }
    };
    let mut log = site.writer(second).await;
    log.output(1, 0, Channel::Stdout, now_ms(), b"second\n").unwrap();

    // A reader of records reads the try in which it was to its end, and hears which one it was.
    let mut events = Events::open(&site, &api, Some(&in_first)).await;
    for _ in 0..3 {
        assert!(events.until("log").await.data.contains("first"));
    }
    let end = events.next().await.unwrap();
    assert_eq!(end.name, "end");
    assert!(end.data.contains(&first.to_string()), "{}", end.data);
    // Whoever asks for the other one with it is told so, and given that from its beginning.
    let mut events = Events::open(&site, &format!("{api}?try=2"), Some(&in_first)).await;
    let told = events.next().await.unwrap();
    assert_eq!((told.name.as_str(), told.id), ("resync", format!("{second}:0:0")));
    assert!(events.next().await.unwrap().data.contains("second"));
    // A page shows the newest try, so it is loaded again.
    let mut events = Events::open(&site, &page, Some(&shown_of_first)).await;
    events.until("resync").await;
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn viewers_are_counted_and_stopping_ends_their_streams() {
    let site = Site::new().await;
    let job = site.public.jobs[0];
    let path = format!("/jobs/{job}/log/stream");
    let mut open = vec![];
    for _ in 0..64 {
        open.push(Events::open(&site, &path, None).await);
    }
    assert_eq!(site.get(&path).await.status, StatusCode::TOO_MANY_REQUESTS);
    site.state.draining().cancel();
    for events in &mut open {
        while events.next().await.is_some() {}
    }
    let freed = async {
        while site.state.viewers().count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(deadline::PROMPT, freed)
        .await
        .expect("places are given back");
}

#[tokio::test]
async fn raw_text_comes_whole_and_in_parts() {
    let site = Site::new().await;
    let (attempt, _, job) = site.claim().await;
    let path = format!("/jobs/{job}/log.txt");
    assert_eq!(site.get(&path).await.body, "", "no log yet");
    let mut log = site.writer(attempt).await;
    log.output(1, 0, Channel::Stdout, now_ms(), b"0123456789").unwrap();
    log.output(2, 0, Channel::Stderr, now_ms(), b"abcdef\n").unwrap();
    let whole = site.get(&path).await;
    assert_eq!(whole.body, "0123456789abcdef\n");
    assert_eq!(whole.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(whole.headers[header::ACCEPT_RANGES], "bytes");
    assert_eq!(whole.headers[header::CONTENT_LENGTH], "17");
    for (range, body, content) in [
        ("bytes=8-11", "89ab", "bytes 8-11/17"),
        ("bytes=-3", "ef\n", "bytes 14-16/17"),
        ("bytes=16-99", "\n", "bytes 16-16/17"),
    ] {
        let part = site.send(Method::GET, &path, &[("range", range)], "").await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(
            (
                part.body.as_str(),
                part.headers[header::CONTENT_RANGE].to_str().unwrap()
            ),
            (body, content)
        );
    }
    let none = site.send(Method::GET, &path, &[("range", "bytes=17-")], "").await;
    assert_eq!(none.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(none.headers[header::CONTENT_RANGE], "bytes */17");
    let old = site
        .send(Method::GET, &path, &[("range", "bytes=0-1"), ("if-range", "\"x\"")], "")
        .await;
    assert_eq!((old.status, old.body.len()), (StatusCode::OK, 17));
    let curl = site
        .send(Method::GET, &format!("/jobs/{job}"), &[("accept", "text/plain")], "")
        .await;
    assert_eq!(curl.body, whole.body);
    assert_eq!(site.get(&format!("/api/v1/jobs/{job}/logs")).await.body, whole.body);
}

#[tokio::test]
async fn a_long_log_is_served_in_small_windows() {
    let site = Site::new().await;
    let (_, job) = site.failed_job(5000).await;
    let tail = site.get(&format!("/jobs/{job}")).await.body;
    assert!(tail.len() <= 200_000, "{}", tail.len());
    assert!(tail.contains("id=\"s2-L5000\"") && !tail.contains("id=\"s2-L1\""));
    assert!(tail.contains("Show earlier lines"));
    let first = site.get(&format!("/jobs/{job}?from=1")).await.body;
    assert!(first.contains("id=\"s1-L1\"") && first.contains("Show later lines") && first.len() <= 200_000);
    let marked = site.get(&format!("/jobs/{job}?lines=s2-L1000-L1002")).await.body;
    assert_eq!(marked.matches(" hl\" id=").count(), 3);
    assert!(marked.contains("hl\" id=\"s2-L1001\""));
    let mut next = 1u64;
    let mut seen = 0;
    loop {
        let part = site.get(&format!("/jobs/{job}/log?from={next}&n=500")).await.body;
        assert!(part.len() <= 200_000);
        seen += part.matches("class=\"l").count();
        next = between(&part, "data-last=\"", "\"").parse::<u64>().unwrap() + 1;
        if between(&part, "data-more=\"", "\"") == "false" {
            break;
        }
    }
    assert_eq!(seen, 5002, "every line once");
    assert_eq!(
        site.get(&format!("/jobs/{job}/log?from=99999")).await.status,
        StatusCode::OK
    );
}

/// Every address of a job's log but the page around it.
const LOGS: [&str; 4] = [
    "/jobs/{}/log.txt",
    "/jobs/{}/log",
    "/api/v1/jobs/{}/logs",
    "/api/v1/jobs/{}/logs/stream",
];

#[tokio::test]
async fn a_log_that_was_removed_is_gone_wherever_it_is_asked_for() {
    let site = Site::new().await;
    let (attempt, job) = site.failed_job(3).await;
    site.store.sql(AGE_ATTEMPTS).await;
    let (node, retention) = (node(), &site.state.config().retention);
    assert!(!site.store.expire(&node, retention).await.unwrap());
    for file_is_there in [true, false] {
        if !file_is_there {
            site.logs.remove(attempt).await.unwrap();
        }
        for path in LOGS.map(|path| path.replace("{}", &job.to_string())) {
            let answer = site.get(&path).await;
            assert_eq!(answer.status, StatusCode::GONE, "{path}: {}", answer.body);
            assert!(
                answer.body.contains("retention time is over"),
                "{path}: {}",
                answer.body
            );
        }
        let page = site.get(&format!("/jobs/{job}")).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains("The log was removed"), "{}", page.body);
        // The page's own stream, which a page that was loaded before still has: it ends.
        let mut events = Events::open(&site, &format!("/jobs/{job}/log/stream"), None).await;
        events.until("end").await;
    }
}

#[tokio::test]
async fn a_log_on_another_node_is_said_to_be_there_and_by_name_to_those_who_may_know() {
    let site = Site::new().await;
    let (attempt, epoch, job) = site.claim_elsewhere("bramble").await;
    for path in LOGS.map(|path| path.replace("{}", &job.to_string())) {
        let answer = site.get(&path).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{path}: {}", answer.body);
        assert!(
            answer.body.contains("lies on another node") && !answer.body.contains("bramble"),
            "{path}: {}",
            answer.body
        );
        if path.starts_with("/api/") {
            let answer = site.as_admin(Method::GET, &path, "").await;
            assert_eq!(answer.status, StatusCode::CONFLICT);
            assert!(answer.body.contains("lies on node bramble"), "{path}: {}", answer.body);
        }
    }
    let page = site.get(&format!("/jobs/{job}")).await.body;
    assert!(
        page.contains("This log lies on another node") && !page.contains(">no output"),
        "{page}"
    );
    // Where the job stands is known everywhere, so a page follows that to the end.
    let url = between(&page, "data-stream=\"", "\"").to_owned();
    let mut events = Events::open(&site, &url, None).await;
    assert!(events.until("state").await.data.contains("running"));
    let end = AttemptEnd::Result {
        result: JobResult::Success,
        message: "ok".into(),
    };
    site.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
    events.until("end").await;
}

#[tokio::test]
async fn a_stream_that_began_before_its_log_was_elsewhere_sends_its_reader_to_ask_again() {
    let site = Site::new().await;
    let job = site.public.jobs[0];
    let mut events = Events::open(&site, &format!("/api/v1/jobs/{job}/logs/stream"), None).await;
    let (_, _, claimed) = site.claim_elsewhere("bramble").await;
    assert_eq!(claimed, job);
    events.until("resync").await;
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn streams_that_wait_for_their_job_wake_by_hints_alone() {
    let site = Site::with_stream_poll(None).await;
    let job = site.public.jobs[0];
    let mut api = Events::open(&site, &format!("/api/v1/jobs/{job}/logs/stream"), None).await;
    let mut page = Events::open(&site, &format!("/jobs/{job}/log/stream"), None).await;
    assert!(page.until("state").await.data.contains("queued"));
    let (attempt, epoch, claimed) = site.claim().await;
    assert_eq!(claimed, job);
    site.state.notify([Hint::Claimed(job)]);
    let mut log = site.writer(attempt).await;
    log.output(1, 0, Channel::Stdout, now_ms(), b"first\n").unwrap();
    assert!(api.until("log").await.data.contains("first"));
    let first = page.until("lines").await;
    assert_eq!(shown(&first), [("s1-L1".to_owned(), "first".to_owned())]);
    log.seal().await.unwrap();
    let end = AttemptEnd::Result {
        result: JobResult::Success,
        message: "ok".into(),
    };
    site.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
    site.state.notify([Hint::Run(site.public.run)]);
    api.until("end").await;
    page.until("end").await;
}

#[tokio::test]
async fn a_job_that_ends_before_any_attempt_ends_its_streams_by_a_hint_alone() {
    let site = Site::with_stream_poll(None).await;
    let job = site.public.jobs[0];
    let mut api = Events::open(&site, &format!("/api/v1/jobs/{job}/logs/stream"), None).await;
    let mut page = Events::open(&site, &format!("/jobs/{job}/log/stream"), None).await;
    let cancelled = site
        .as_admin(Method::POST, &format!("/api/v1/jobs/{job}/cancel"), "")
        .await;
    assert_eq!(cancelled.status, StatusCode::OK, "{}", cancelled.body);
    assert!(api.until("end").await.data.contains("\"attempt\":null"));
    page.until("end").await;
}

#[tokio::test]
async fn an_attempt_that_ended_without_a_log_ends_its_streams() {
    let site = Site::new().await;
    let (attempt, epoch, job) = site.claim().await;
    let mut api = Events::open(&site, &format!("/api/v1/jobs/{job}/logs/stream"), None).await;
    let mut page = Events::open(&site, &format!("/jobs/{job}/log/stream"), None).await;
    page.until("state").await;
    let end = AttemptEnd::Result {
        result: JobResult::Failure,
        message: "no disk".into(),
    };
    site.store.end_attempt(attempt, epoch, end, 3).await.unwrap();
    assert!(api.until("end").await.data.contains("\"state\":\"failure\""));
    page.until("end").await;
    assert_eq!(site.get(&format!("/jobs/{job}/log.txt")).await.body, "");
}
