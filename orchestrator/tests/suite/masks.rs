//! What was asked to be hidden is hidden, however its bytes were cut, and nothing else is.

use std::{fmt::Write as _, fs, path::Path, time::Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use crate::support::{self, Machines, World};

const JOBS: [(&str, u64); 4] = [("one", 1), ("two", 2), ("three", 3), ("four", 4)];
/// For all of them at once: none goes on before the last is at the gate.
const ROOM: &str = "capacity: {machines: 4, cpus: 8, memory_mib: 8192}\n";
/// Said in mid-text; what follows waits for the test.
const GATE: &str = "GATE\n";
const ENDED: &str = "\nJob ended: success: all steps succeeded\n";

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// A secret whose beginning repeats itself, so that a wrong start of it overlaps the right one.
fn secret(random: &mut StdRng) -> String {
    format!("ab-ab-ac-{:012}", random.random_range(0..1_000_000_000_000_u64))
}

/// Secrets, beginnings of them that go on differently, and words, in any order.
fn text(random: &mut StdRng, secret: &str) -> String {
    let mut text = String::new();
    for _ in 0..120 {
        match random.random_range(0..5) {
            0 => text += secret,
            1 => _ = write!(text, "{}#", &secret[..random.random_range(1..secret.len())]),
            2 => text += "ab-",
            3 => text += " a word\n",
            _ => _ = write!(text, "({secret})"),
        }
    }
    text
}

/// What a reader may see of the text: secrets that adjoin are one `***`, so that nobody can count them.
fn hidden(text: &str, secret: &str) -> String {
    let (mut text, twice) = (text.to_owned(), secret.repeat(2));
    while text.contains(&twice) {
        text = text.replace(&twice, secret);
    }
    text.replace(secret, "***")
}

/// `printf` of the text in pieces of random size; now and then a child in between, which gives the agent
/// time to read the piece alone.
fn pieces(random: &mut StdRng, mut text: &str) -> String {
    let mut script = String::new();
    while !text.is_empty() {
        let (piece, rest) = text.split_at(random.random_range(1..=16).min(text.len()));
        writeln!(script, "printf %s '{piece}'").unwrap();
        if random.random_bool(0.3) {
            script += "/bin/true\n";
        }
        text = rest;
    }
    script
}

async fn get(world: &World, path: &str, range: Option<&str>) -> (u16, Vec<u8>) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(format!("{}{path}", world.url())).bearer_auth(world.token());
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

/// Every kind of range of a log gives the bytes of the whole.
async fn assert_ranges(world: &World, path: &str, whole: &[u8]) {
    let len = whole.len();
    for (range, wanted) in [
        ("bytes=0-0".to_owned(), &whole[..1]),
        ("bytes=7-90".to_owned(), &whole[7..=90]),
        (format!("bytes={}-", len - 5), &whole[len - 5..]),
        ("bytes=-11".to_owned(), &whole[len - 11..]),
        (format!("bytes=3-{}", len * 2), &whole[3..]),
    ] {
        assert_eq!(get(world, path, Some(&range)).await, (206, wanted.to_vec()), "{range}");
    }
    assert_eq!(get(world, path, Some(&format!("bytes={len}-"))).await.0, 416);
}

fn assert_nowhere(dir: &Path, secret: &str) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            assert_nowhere(&entry.path(), secret);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", entry.path().display());
        }
    }
}

/// What a step prints of a key that it has masked, in the forms that tools make of it, and a progress bar.
const PRINTS: &str = r#"
echo "::add-mask::$(awk '{ printf "%s%%0A", $0 }' KEY)"
for columns in 64 76; do (printf 'before it '; cat KEY) | base64 -w $columns; done
base64 -w 76 KEY | sed 's/^/    /; s/$/\r/'
od -An -v -tx1 KEY
od -An -v -tx1 KEY | tr -d ' '
while read -r line; do printf %s "$line" | base64; done <KEY
echo '::add-mask::{'
echo '  "more": 1}'
awk 'BEGIN { for (i = 0; i <= 9000; i++) printf "\r\033[Kstate %d of 9000", i; print "" }'
"#;

/// Text without what tools put between the characters of an encoding.
fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_key_is_hidden_and_a_long_progress_bar_shows_its_end() {
    use base64::Engine as _;

    let world = World::with(Machines::Process, ROOM).await;
    let dir = tempfile::tempdir().unwrap();
    let random = &mut StdRng::seed_from_u64(5);
    let lines: Vec<String> = (0..6)
        .map(|_| (0..48).map(|_| char::from(random.random_range(b'A'..=b'Z'))).collect())
        .collect();
    fs::write(dir.path().join("key"), lines.join("\n") + "\n").unwrap();
    let script = PRINTS.replace("KEY", &dir.path().join("key").display().to_string());
    fs::write(dir.path().join("script"), script).unwrap();
    let sha = world
        .push(&format!(
            "name: ci\non: push\njobs:\n  one:\n    steps:\n      - run: sh {}\n",
            dir.path().join("script").display()
        ))
        .await;
    let job = world.wait_job(&sha, "one", "success");
    let log = String::from_utf8(get(&world, &format!("/api/v1/jobs/{}/logs", id(&job)), None).await.1).unwrap();
    let shown = squeezed(&log);
    for part in lines
        .iter()
        .flat_map(|line| (0..line.len() - 8).map(move |at| &line[at..at + 8]))
    {
        let hex: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(part) && !shown.contains(&hex), "{log}");
        for before in 0..3 {
            let data = [&vec![0; before][..], part.as_bytes()].concat();
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(data);
            // Without the characters that depend on what stands around.
            let core = &encoded[(before * 8_usize).div_ceil(6)..(before + 8) * 8 / 6];
            assert!(!shown.contains(core), "{core} in {log}");
        }
    }
    assert!(log.contains("***") && log.contains("state 9000 of 9000"), "{log}");
    let warned = log.matches("the value seems to go on behind it").count();
    assert_eq!(warned, 1, "{log}");
    // The page shows what a terminal would: one state, the last.
    let page = String::from_utf8(get(&world, &format!("/jobs/{}", id(&job)), None).await.1).unwrap();
    assert!(page.contains("<span>state 9000 of 9000</span>"), "{page}");
    assert!(!page.contains("state 1 of 9000"), "{page}");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// DESIGN's invariant 11: exactly the secret is hidden, in the live log, in the sealed one, and on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_mask_holds_however_the_bytes_are_cut() {
    let world = World::with(Machines::Process, ROOM).await;
    let scripts = tempfile::tempdir().unwrap();
    let (gate, mut workflow) = (scripts.path().join("gate"), "name: ci\non: push\njobs:\n".to_owned());
    let mut all = Vec::new();
    for (job, seed) in JOBS {
        let random = &mut StdRng::seed_from_u64(seed);
        let secret = secret(random);
        let (before, after) = (text(random, &secret), text(random, &secret));
        // The very last bytes begin a secret that never comes: they are output like any other.
        let after = format!("{after}\nEND {}", &secret[..14]);
        let script = format!(
            "{}{}until [ -e {} ]; do sleep 0.05; done\n{}",
            pieces(random, &format!("::add-mask::{secret}\nBEGIN\n")),
            pieces(random, &format!("{before}\n{GATE}")),
            gate.display(),
            pieces(random, &after),
        );
        let file = scripts.path().join(job);
        fs::write(&file, script).unwrap();
        writeln!(workflow, "  {job}:\n    steps:\n      - run: sh {}", file.display()).unwrap();
        all.push((job, secret, format!("{before}\n{GATE}"), after));
    }
    let sha = world.push(&workflow).await;

    // Live: all of them stand at the gate.
    let mut live = Vec::new();
    for (job, secret, before, _) in &all {
        let found = world.until("a job at the gate", || {
            world
                .jobs(&sha)
                .into_iter()
                .find(|j| j["key"] == *job && j["state"] == "active")
        });
        let path = format!("/api/v1/jobs/{}/logs", id(&found));
        let started = Instant::now();
        let log = loop {
            let (status, log) = get(&world, &path, None).await;
            assert_eq!(status, 200);
            assert!(started.elapsed() < support::deadline::GUEST, "{}", world.daemon_log());
            if contains(&log, GATE) {
                break String::from_utf8(log).unwrap();
            }
            support::pause();
        };
        let said = log.split_once("BEGIN\n").expect("its begin").1;
        assert_eq!(said, hidden(before, secret), "{job}, live");
        assert_nowhere(&world.data().join("logs"), secret);
        assert_ranges(&world, &path, log.as_bytes()).await;
        live.push(log);
    }
    fs::write(&gate, "").unwrap();
    world.wait(&sha, "success").await;
    world.wait_clean();

    for ((job, secret, _, after), live) in all.iter().zip(live) {
        let found = world.wait_job(&sha, job, "success");
        let path = format!("/api/v1/jobs/{}/logs", id(&found));
        let log = String::from_utf8(get(&world, &path, None).await.1).unwrap();
        let said = log.strip_prefix(&live).expect("what was live is still so");
        // The node's own last words follow whatever the step left without a newline.
        let said = said.strip_suffix(ENDED).expect("the node's last words");
        assert_eq!(said, hidden(after, secret), "{job}, sealed");
        assert_ranges(&world, &path, log.as_bytes()).await;
        for path in [format!("/jobs/{}", id(&found)), format!("{path}/stream")] {
            let (status, body) = get(&world, &path, None).await;
            assert!(status == 200 && contains(&body, "***"), "{path}: {status}");
            assert!(!contains(&body, secret), "{path} holds a secret");
        }
        assert!(!world.log(id(&found)).contains(secret.as_str()));
        assert_nowhere(&world.data(), secret);
        assert!(!world.daemon_log().contains(secret.as_str()));
    }
}
