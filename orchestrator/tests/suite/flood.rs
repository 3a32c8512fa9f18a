//! Much output, strange output, and reading it from the middle.

use std::{fs, path::Path};

use futures::StreamExt as _;
use serde_json::Value;

use crate::support::{Machines, World, deadline, hold};

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

fn one_step(name: &str, script: &str) -> String {
    format!(
        "name: {name}\non: push\njobs:\n  job:\n    steps:\n      - run: |\n          {}\n",
        script.replace('\n', "\n          ")
    )
}

/// The most memory that the daemon ever had, in MiB.
fn peak_mib(world: &World) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = client()
        .get(format!("{}{path}", world.url()))
        .bearer_auth(world.token());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn raw(world: &World, job: &str) -> Vec<u8> {
    let answer = get(world, &format!("/api/v1/jobs/{job}/logs"), &[]).await;
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_megabytes_leave_memory_flat_and_the_neighbour_unharmed() {
    let world = World::with(
        Machines::Process,
        "limits: {log_bytes: 16MiB}\ncapacity: {machines: 2}\n",
    )
    .await;
    let warm = world.push(&one_step("warm", "echo warm")).await;
    world.wait(&warm, "success").await;
    let before = peak_mib(&world);
    // 300 MB in lines of 60 bytes, each different; the last is known.
    let flood = one_step(
        "flood",
        "seq -f 'line %0.f of the flood, filled up with these words here' 1 5400000\necho the very last line",
    );
    let files = [
        (".forgejo/workflows/flood.yml", flood, 0o644),
        (
            ".forgejo/workflows/quiet.yml",
            hold::counting(200, "0.02").replace("name: ci", "name: quiet"),
            0o644,
        ),
    ];
    let sha = world.forge.push(world.repository, "main", &files, "two").await.unwrap();
    world.wait(&sha, "success").await;
    let runs = world.get("/api/v1/runs?limit=100");
    let job_of = |workflow: &str| {
        let run = runs["runs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["workflow"] == workflow && r["commit"] == *sha);
        let detail = world.get(&format!("/api/v1/runs/{}", id(run.unwrap())));
        id(&detail["attempts"][0]["jobs"][0]).to_owned()
    };
    hold::assert_counted(&world.log(&job_of("quiet")), 200, "the neighbour");
    let log = raw(&world, &job_of("flood")).await;
    assert!(log.len() < 20 << 20, "{} bytes", log.len());
    let text = String::from_utf8(log).unwrap();
    let notice = text
        .lines()
        .find(|line| line.contains("left out") || line.contains("limit"));
    assert!(
        notice.is_some(),
        "no notice between {:?} and {:?}",
        &text[..200],
        &text[text.len() - 400..]
    );
    assert!(text.contains("\nline 1 of the flood") && text.contains("\nline 5400000 of the flood"));
    assert!(text.contains("the very last line\n"), "{:?}", &text[text.len() - 400..]);
    // Every byte is there or counted, by the agent or by the daemon, and what is there has no gap but the one.
    let counted = text.lines().filter(|line| line.contains(" left out here"));
    let left_out: u64 = counted
        .map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    let kept = text.lines().filter(|line| line.starts_with("line "));
    // A line that was cut has its newline from us; it may be all that was cut.
    let kept: usize = kept.map(|line| line.len() + usize::from(line.ends_with(" here"))).sum();
    let around = "line  of the flood, filled up with these words here\n".len() as u64;
    let written: u64 = (1..=5_400_000_u64)
        .map(|number| around + u64::from(number.ilog10()) + 1)
        .sum();
    let found = kept as u64 + left_out;
    assert!(found == written || found == written + 1, "{found} of {written} bytes");
    let (begin, rest) = text.split_once(" bytes are left out here").expect("what is left out");
    for (name, part) in [("beginning", begin), ("end", rest)] {
        let number = |line: &str| line.strip_prefix("line ")?.split_once(" of")?.0.parse().ok();
        let numbers: Vec<u64> = part.lines().filter_map(number).collect();
        let jump = numbers.windows(2).find(|w| w[1] != w[0] + 1);
        assert_eq!(jump, None, "lines are missing within the {name}");
    }
    // The end is nearly a mebibyte.
    assert!(rest.len() > 1000 << 10, "{} bytes of the end", rest.len());
    let grown = peak_mib(&world).saturating_sub(before);
    assert!(grown < 64, "the daemon grew by {grown} MiB");
    hold::until("nothing is left", || world.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_hundred_megabytes_is_kept_whole_and_shown_in_pieces() {
    let world = World::with(Machines::Process, "limits: {log_bytes: 256MiB}\n").await;
    let warm = world.push(&one_step("warm", "echo warm")).await;
    world.wait(&warm, "success").await;
    let before = peak_mib(&world);
    let sha = world
        .push(&one_step(
            "line",
            "head -c 100000000 /dev/zero | tr '\\0' x\necho\necho after it",
        ))
        .await;
    let job = world.wait_job(&sha, "job", "success");
    let log = raw(&world, id(&job)).await;
    assert_eq!(log.iter().filter(|b| **b == b'x').count() / 1000, 100_000);
    assert!(log.windows(100).any(|w| w == [b'x'; 100]) && log.ends_with(b"\n"));
    assert!(String::from_utf8_lossy(&log[log.len() - 400..]).contains("after it\n"));
    // While the log is sealed beside it, a page of an unoptimised build may take longer than requests may.
    let page = async {
        loop {
            let page = get(&world, &format!("/jobs/{}", id(&job)), &[]).await;
            if page.status() != 408 {
                return page;
            }
        }
    };
    let page = tokio::time::timeout(deadline::GUEST, page).await.expect("a page");
    assert_eq!(page.status(), 200);
    let page = page.bytes().await.unwrap();
    assert!(page.len() < 4 << 20, "a page of {} bytes", page.len());
    assert!(String::from_utf8_lossy(&page).contains("after it"));
    let grown = peak_mib(&world).saturating_sub(before);
    assert!(grown < 96, "the daemon grew by {grown} MiB");
}

/// The `h` may begin the secret, so that it waits for what follows on its channel. Meanwhile three times as much as an
/// agent keeps comes on the other, and the daemon is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_is_held_back_does_not_stop_the_other_channel() {
    let mut world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let script = format!(
        "echo '::add-mask::hunter2!'\nprintf 'is h'\nhead -c 6000000 /dev/zero | tr '\\0' Z >&2\n\
         until [ -e {} ]; do sleep 0.05; done\nprintf 'unter2!, it'",
        gate.display()
    );
    let sha = world.push(&one_step("held", &script)).await;
    let job = id(&world.wait_job(&sha, "job", "active")).to_owned();
    let others = |log: &str| log.bytes().filter(|byte| *byte == b'Z').count();
    hold::until("all of the other channel", || others(&world.log_now(&job)) == 6_000_000);
    world.kill();
    world.up();
    fs::write(gate, "").unwrap();
    world.wait_job(&sha, "job", "success");
    let log = String::from_utf8(raw(&world, &job).await).unwrap();
    assert_eq!(others(&log), 6_000_000);
    let rest = log.replace('Z', "");
    assert!(rest.contains("is ***, it\n"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_comes_through_as_it_was() {
    let world = World::start(Machines::Process).await;
    let bytes: Vec<u8> = (0..=255_u8)
        .cycle()
        .take(70_000)
        .chain(*b"\xff\xfe\r\0\x1b[\x80 tail")
        .collect();
    let octal: String = bytes.iter().map(|b| format!("\\{b:03o}")).collect();
    let file = world.dir.path().join("bytes");
    fs::write(&file, &bytes).unwrap();
    let sha = world
        .push(&one_step(
            "bytes",
            &format!("printf BEGIN\ncat {}\nprintf END", file.display()),
        ))
        .await;
    let job = world.wait_job(&sha, "job", "success");
    let log = raw(&world, id(&job)).await;
    let begin = log.windows(5).position(|w| w == b"BEGIN").unwrap() + 5;
    assert_eq!(
        &log[begin..begin + bytes.len()],
        &bytes[..],
        "{} bytes, {octal:.20}",
        log.len()
    );
    assert_eq!(&log[begin + bytes.len()..begin + bytes.len() + 3], b"END");
    let page = get(&world, &format!("/jobs/{}", id(&job)), &[]).await;
    let page = page.bytes().await.unwrap();
    let text = std::str::from_utf8(&page).expect("a page is always UTF-8");
    assert!(!text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')));
}

/// Records of an event stream: positions and texts, until they have `enough` lines or the end.
async fn stream(world: &World, job: &str, from: Option<&str>, enough: usize) -> (Vec<(String, String)>, bool) {
    let read = tokio::time::timeout(deadline::GUEST, read_stream(world, job, from, enough));
    read.await.expect("the stream goes on")
}

async fn read_stream(world: &World, job: &str, from: Option<&str>, enough: usize) -> (Vec<(String, String)>, bool) {
    let headers: Vec<(&str, &str)> = from.iter().map(|from| ("last-event-id", *from)).collect();
    let answer = get(world, &format!("/api/v1/jobs/{job}/logs/stream"), &headers).await;
    assert_eq!(answer.status(), 200);
    let (mut body, mut buffer, mut found, mut lines) = (answer.bytes_stream(), String::new(), Vec::new(), 0);
    while let Some(Ok(part)) = body.next().await {
        buffer += std::str::from_utf8(&part).unwrap();
        while let Some(end) = buffer.find("\n\n") {
            let event: String = buffer.drain(..end + 2).collect();
            let field = |name: &str| {
                event
                    .lines()
                    .find_map(|l| l.strip_prefix(name))
                    .map(str::trim)
                    .map(str::to_owned)
            };
            match field("event:").as_deref() {
                Some("log") => {
                    let data: Value = serde_json::from_str(&field("data:").unwrap()).unwrap();
                    let text = data["text"].as_str().unwrap().to_owned();
                    lines += text.matches('\n').count();
                    found.push((field("id:").unwrap(), text));
                    if lines >= enough {
                        return (found, false);
                    }
                }
                Some("end") => return (found, true),
                _ => {}
            }
        }
    }
    (found, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_where_it_was_also_after_a_restart() {
    let mut world = World::start(Machines::Process).await;
    let gates = ["first", "second"].map(|name| world.dir.path().join(name));
    // However few pieces the lines come in: each reader finds lines enough, and more of them are to come.
    let part =
        |from: usize, to: usize| format!("for i in $(seq {from} {to}); do echo \"line $i of 60\"; sleep 0.01; done\n");
    let wait = |gate: &Path| format!("until [ -e {} ]; do sleep 0.05; done\n", gate.display());
    let script = [
        part(1, 20),
        wait(&gates[0]),
        part(21, 40),
        wait(&gates[1]),
        part(41, 60),
    ]
    .concat();
    let sha = world.push(&one_step("count", &script)).await;
    let job = world.wait_job(&sha, "job", "active");
    let job = id(&job);
    let (first, ended) = stream(&world, job, None, 5).await;
    assert!(!ended);
    world.kill();
    world.up();
    fs::write(&gates[0], "").unwrap();
    let (mut all, mut from) = (first.clone(), first.last().unwrap().0.clone());
    let (more, ended) = stream(&world, job, Some(&from), 3).await;
    assert!(!ended);
    all.extend(more);
    from.clone_from(&all.last().unwrap().0);
    fs::write(&gates[1], "").unwrap();
    let (more, ended) = stream(&world, job, Some(&from), usize::MAX).await;
    assert!(ended);
    all.extend(more);
    let text: String = all.into_iter().map(|(_, text)| text).collect();
    hold::assert_counted(&text, 60, "the stream");
    world.wait(&sha, "success").await;

    // The sealed log, in parts.
    let whole = raw(&world, job).await;
    assert_eq!(String::from_utf8(whole.clone()).unwrap(), text);
    let path = format!("/api/v1/jobs/{job}/logs");
    let length = whole.len();
    for (range, wanted) in [
        ("bytes=0-9".to_owned(), &whole[..10]),
        (format!("bytes={}-", length - 7), &whole[length - 7..]),
        ("bytes=-12".to_owned(), &whole[length - 12..]),
        (format!("bytes=100-{}", length * 2), &whole[100..]),
    ] {
        let answer = get(&world, &path, &[("range", &range)]).await;
        assert_eq!(answer.status(), 206, "{range}");
        assert_eq!(answer.bytes().await.unwrap(), wanted, "{range}");
    }
    let answer = get(&world, &path, &[("range", &format!("bytes={length}-"))]).await;
    assert_eq!(answer.status(), 416);
}
