//! How fast a log is written, sealed and read, beside the floor of the same run: writing the same
//! bytes to a plain file with the same grouped syncs. Ratios travel between machines, numbers do not.
//!
//! `cargo bench -p helios-ci --bench logs [-- <lines>]`

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use futures::StreamExt;
use helios_ci::{
    logs::{Channel, LogStore, LogWriter, Position},
    model::ids::AttemptId,
    secret::Secret,
};

const FRAME: usize = helios_proto::MAX_OUTPUT;
const SYNC: Duration = Duration::from_millis(20);
const CAP: u64 = 1 << 40;

/// Lines of 57 bytes as a build prints them.
fn flood(lines: usize) -> Vec<u8> {
    let words = [
        "Compiling",
        "Finished",
        "warning:",
        "  Running",
        "Downloaded",
        "note: see",
        "std::fmt",
    ];
    let mut text = Vec::with_capacity(lines * 57);
    let mut seed = 1u64;
    for i in 0..lines {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let begin = text.len();
        let word = words[(seed >> 33) as usize % words.len()];
        let _ = write!(
            text,
            "{i:>8} {word} crate-{:x} v1.{}.{}",
            seed >> 40,
            seed >> 60,
            (seed >> 50) % 20
        );
        text.resize(begin + 56, b'.');
        text.push(b'\n');
    }
    text
}

/// Forty secrets as a CI has them: tokens of 36 characters.
fn secrets() -> Vec<Secret> {
    (0..40u64)
        .map(|i| {
            Secret::new(format!(
                "tok{i:02}_{:016x}{:015x}",
                i.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                i * 7919
            ))
        })
        .collect()
}

/// Megabytes of resident memory now.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1024.0
}

fn floor(path: &Path, text: &[u8]) -> Duration {
    let begin = Instant::now();
    let mut file = File::create(path).expect("a file for the floor");
    let mut synced = Instant::now();
    for frame in text.chunks(FRAME) {
        file.write_all(frame).expect("write");
        if synced.elapsed() >= SYNC {
            file.sync_data().expect("sync");
            synced = Instant::now();
        }
    }
    file.sync_data().expect("sync");
    begin.elapsed()
}

async fn write(store: &LogStore, text: &[u8], masks: Vec<Secret>) -> (LogWriter, AttemptId, Duration) {
    let attempt = AttemptId::new();
    let mut writer = store.open_writer(attempt, masks, CAP, None).await.expect("open");
    let begin = Instant::now();
    let mut synced = Instant::now();
    for (i, frame) in text.chunks(FRAME).enumerate() {
        writer
            .output(i as u64 + 1, 1, Channel::Stdout, 0, frame)
            .expect("output");
        if synced.elapsed() >= SYNC {
            writer.sync().await.expect("sync");
            synced = Instant::now();
        }
    }
    writer.end_step(1).expect("end of the step");
    writer.sync().await.expect("sync");
    (writer, attempt, begin.elapsed())
}

fn row(what: &str, lines: usize, bytes: usize, took: Duration, floor: Duration) {
    let seconds = took.as_secs_f64();
    println!(
        "| {what:<42} | {:>7.1} ms | {:>6.2} M lines/s | {:>6.0} MB/s | {:>5.2} x floor |",
        seconds * 1e3,
        lines as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6,
        seconds / floor.as_secs_f64()
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let lines = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(1_000_000);
    let dir = tempfile::tempdir().expect("a directory");
    let store = LogStore::new(dir.path());
    let text = flood(lines);
    println!(
        "{lines} lines of 57 bytes in {} KiB frames, fdatasync every {} ms, one thread",
        FRAME >> 10,
        SYNC.as_millis()
    );

    let base = (0..3)
        .map(|i| floor(&dir.path().join(format!("floor{i}")), &text))
        .min()
        .unwrap_or_default();
    row("floor: write and fdatasync", lines, text.len(), base, base);

    let (writer, attempt, took) = write(&store, &text, Vec::new()).await;
    row("log, no secrets", lines, text.len(), took, base);
    drop(writer);
    store.remove(attempt).await.expect("remove");

    let before = resident();
    let mut best = Duration::MAX;
    for _ in 0..2 {
        let (writer, attempt, took) = write(&store, &text, secrets()).await;
        best = best.min(took);
        drop(writer);
        store.remove(attempt).await.expect("remove");
    }
    let (writer, attempt, took) = write(&store, &text, secrets()).await;
    row("log, 40 secrets", lines, text.len(), best.min(took), base);
    println!(
        "| resident memory: {:.1} MB before, {:.1} MB with the log open",
        before,
        resident()
    );

    let begin = Instant::now();
    let summary = writer.seal().await.expect("seal");
    row("seal", lines, text.len(), begin.elapsed(), base);
    println!(
        "| stored: {:.3} bytes per byte, {} lines",
        summary.stored_bytes as f64 / text.len() as f64,
        summary.lines
    );

    let begin = Instant::now();
    let tail = store.tail(attempt, None, 500).await.expect("tail");
    println!(
        "| last {} lines of the sealed log, first look: {:.2} ms",
        tail.len(),
        begin.elapsed().as_secs_f64() * 1e3
    );
    let begin = Instant::now();
    for i in 0..100 {
        store
            .lines(attempt, summary.lines * i / 100 + 1, 500)
            .await
            .expect("lines");
    }
    println!(
        "| 500 lines anywhere: {:.2} ms each",
        begin.elapsed().as_secs_f64() * 10.0
    );
    let begin = Instant::now();
    let mut bytes = 0;
    let mut pages = std::pin::pin!(store.follow(attempt, Position::START));
    while let Some(page) = pages.next().await {
        bytes += page
            .expect("page")
            .records
            .iter()
            .map(|record| record.data.len())
            .sum::<usize>();
    }
    row("read all of the sealed log", lines, bytes, begin.elapsed(), base);
}
