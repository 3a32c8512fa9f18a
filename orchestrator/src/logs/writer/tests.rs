use std::fs;

use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::{
    deadline,
    logs::{DEFAULT_CAP, LogState, LogStore, Position},
};

mod restart;

const BOOT: &str = "boot one";

fn store(dir: &tempfile::TempDir) -> LogStore {
    LogStore::with_boot(dir.path(), Some(BOOT.into()))
}

fn secret(values: &[&str]) -> Vec<Secret> {
    values.iter().map(|value| Secret::new(*value)).collect()
}

async fn text(store: &LogStore, attempt: AttemptId) -> String {
    let mut text = Vec::new();
    loop {
        let at = text.len() as u64;
        let more = store.text_range(attempt, at..u64::MAX).await.unwrap();
        if more.is_empty() {
            return String::from_utf8(text).unwrap();
        }
        text.extend_from_slice(&more);
    }
}

/// How a zstd frame begins (RFC 8878, section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Every file of the log as it lies on the disk, sealed ones unpacked.
fn on_disk(store: &LogStore, attempt: AttemptId) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(store.dir(attempt)).unwrap() {
        let raw = fs::read(entry.unwrap().path()).unwrap();
        if raw.starts_with(&ZSTD) {
            // Compressed bytes put literals side by side that were not so in the text. What follows the
            // last frame is the index, at which unpacking ends.
            let mut frames = zstd::Decoder::new(raw.as_slice()).unwrap();
            let _index_is_no_frame = frames.read_to_end(&mut bytes);
        } else {
            bytes.extend_from_slice(&raw);
        }
    }
    bytes
}

#[tokio::test]
async fn what_is_written_is_read_at_once_and_after_sealing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store
        .open_writer(attempt, secret(&["hunter2!"]), DEFAULT_CAP, None)
        .await
        .unwrap();
    writer.system(0, "Preparing with hunter2!").unwrap();
    writer.output(1, 1, Channel::Stdout, 10, b"one hun").unwrap();
    writer.output(2, 1, Channel::Stderr, 11, b"err\n").unwrap();
    assert_eq!(writer.sync().await.unwrap(), 0, "event 1 is held in part");
    writer
        .output(3, 1, Channel::Stdout, 12, b"ter2! \xff\0\r\nprompt: ")
        .unwrap();
    assert_eq!(writer.sync().await.unwrap(), 3);

    let page = store.read(attempt, Position::START, 100).await.unwrap();
    let seen: Vec<_> = page
        .records
        .iter()
        .map(|r| (r.position.record, r.step, r.channel, r.guest_ms, r.data.as_ref()))
        .collect();
    assert_eq!(
        &seen[1..],
        [
            (1, 1, Channel::Stdout, 10, &b"one "[..]),
            (2, 1, Channel::Stderr, 11, b"err\n"),
            (3, 1, Channel::Stdout, 12, b"*** \xff\0\r\nprompt: "),
        ]
    );
    assert_eq!(seen[0].4, b"Preparing with ***\n");
    assert_eq!(
        (page.next.to_string().as_str(), page.ended, page.resync),
        ("1:4", false, false)
    );

    writer.end_step(1).unwrap();
    let before = store.lines(attempt, 1, 100).await.unwrap();
    let summary = writer.seal().await.unwrap();
    let after = store.lines(attempt, 1, 100).await.unwrap();
    assert_eq!(before.lines, after.lines);
    assert_eq!(
        (before.total, before.ended, after.total, after.ended),
        (None, false, Some(5), true)
    );
    let lines: Vec<_> = after
        .lines
        .iter()
        .map(|l| (l.step, l.line_in_step, l.bytes.as_slice(), l.continued))
        .collect();
    assert_eq!(
        lines,
        [
            (0, 1, &b"Preparing with ***"[..], false),
            (1, 1, b"one ", false),
            (1, 2, b"err", false),
            (1, 3, b"*** \xff\0\r", true),
            (1, 4, b"prompt: ", false),
        ]
    );
    assert_eq!((summary.records, summary.lines, summary.left_out), (4, 5, 0));
    assert_eq!(store.summary(attempt).await.unwrap(), Some(summary));
    assert!(memchr::memmem::find(&on_disk(&store, attempt), b"unter2!").is_none());
    assert!(!store.dir(attempt).join("records").exists());
    let again = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await;
    assert!(matches!(again, Err(LogError::Sealed { .. })));
}

#[tokio::test]
async fn a_mask_from_the_guest_works_at_once_and_is_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    let effect = writer
        .output(1, 1, Channel::Stdout, 0, b"s3cret\n::add-mask::s3c")
        .unwrap();
    assert_eq!(effect, Effect::default());
    let effect = writer
        .output(2, 1, Channel::Stdout, 0, b"ret%25x\nit is s3cret%x\n::add-mask::ab\n")
        .unwrap();
    assert_eq!(effect.new_masks, secret(&["s3cret%x", "ab"]));
    assert_eq!(writer.masks(), effect.new_masks);
    assert_eq!(
        text(&store, attempt).await,
        "s3cret\n::add-mask::***\nit is ***\n::add-mask::***\nA secret is shorter than 4 bytes: it is not masked.\n"
    );
    // An unfinished line is a command too, once the step has ended.
    writer
        .output(3, 1, Channel::Stderr, 0, b"::add-mask::last-value")
        .unwrap();
    writer.end_step(1).unwrap();
    writer.output(4, 2, Channel::Stdout, 0, b"last-value").unwrap();
    assert!(text(&store, attempt).await.ends_with("::add-mask::***\n***"));
    writer
        .output(
            5,
            2,
            Channel::Stdout,
            0,
            &[b"\n::add-mask::".to_vec(), vec![b'z'; 70 << 10]].concat(),
        )
        .unwrap();
    assert_eq!(
        writer.sync().await.unwrap(),
        5,
        "an overlong command does not hold up acknowledgements"
    );
    drop(writer);
    let masks = secret(&["s3cret%x", "ab", "last-value"]);
    let mut writer = store.open_writer(attempt, masks, DEFAULT_CAP, None).await.unwrap();
    writer.output(6, 2, Channel::Stdout, 0, b"zzz\nshown\n").unwrap();
    let all = text(&store, attempt).await;
    assert!(
        all.ends_with("longer than 64 KiB: it is not shown, and not masked elsewhere.\n\nshown\n")
            && !all.contains("zz")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is written in whatever order, no line holds text of two origins (two steps, or a step and
    /// helios-ci), each channel has its bytes as they came, and the lines that readers see agree with that.
    #[test]
    fn no_line_holds_text_of_two_origins(
        script in proptest::collection::vec((0u32..3, 0u8..3, "[a-z]{0,5}\n?[a-z]{0,3}\n?"), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (store, attempt) = (store(&dir), AttemptId::new());
            let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
            let mut sequence = 0;
            for (step, channel, text) in &script {
                // Each origin writes letters of its own.
                let own = if *channel == 2 { 's' } else { ['A', 'B', 'C'][*step as usize] };
                let text: String = text.chars().map(|c| if c == '\n' { c } else { own }).collect();
                if *channel == 2 {
                    writer.system(*step, &text.replace('\n', "")).unwrap();
                } else {
                    sequence += 1;
                    let channel = if *channel == 0 { Channel::Stdout } else { Channel::Stderr };
                    writer.output(sequence, *step, channel, 0, text.as_bytes()).unwrap();
                }
            }
            writer.seal().await.unwrap();
            let all = text(&store, attempt).await;
            for line in all.lines() {
                assert!(line.chars().all(|c| line.starts_with(c)), "{line:?} in {all:?}");
            }
            let page = store.read(attempt, Position::START, usize::MAX).await.unwrap();
            for (step, letter) in [(0, 'A'), (1, 'B'), (2, 'C')] {
                let of_step = |record: &&crate::logs::LogRecord| record.step == step && record.channel != Channel::System;
                let came: Vec<u8> = page.records.iter().filter(of_step).flat_map(|r| r.data.to_vec()).collect();
                let sent: String = script
                    .iter()
                    .filter(|(s, channel, _)| *s == step && *channel < 2)
                    .flat_map(|(_, _, text)| text.chars().map(|c| if c == '\n' { c } else { letter }))
                    .collect();
                assert_eq!(String::from_utf8(came).unwrap(), sent);
            }
            let lines = store.lines(attempt, 1, usize::MAX).await.unwrap().lines;
            let ours = script.iter().filter(|(_, channel, _)| *channel == 2).count();
            assert_eq!(lines.iter().filter(|line| line.channel == Channel::System).count(), ours, "{all:?}");
        });
        runtime.shutdown_timeout(deadline::PROMPT);
    }
}

#[tokio::test]
async fn beyond_the_limit_the_beginning_and_the_end_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store
        .open_writer(attempt, secret(&["hunter2!"]), 1 << 20, None)
        .await
        .unwrap();
    let mut reached = 0;
    for i in 0..60_000u64 {
        let line = format!("{i:08} a line of the flood with hunter2! in the middle of it\n");
        reached += u64::from(
            writer
                .output(i + 1, 1, Channel::Stdout, 0, line.as_bytes())
                .unwrap()
                .cap_reached,
        );
    }
    assert_eq!(reached, 1);
    assert_eq!(writer.sync().await.unwrap(), 60_000);
    writer.system(1, "Process ended with exit code 0").unwrap();
    let live = text(&store, attempt).await;
    assert!(
        live.ends_with("Process ended with exit code 0\n"),
        "live readers still see our lines"
    );
    let size = fs::metadata(store.dir(attempt).join("records")).unwrap().len();
    assert!(size < (1 << 20) + 4096, "{size}");
    let summary = writer.seal().await.unwrap();
    let all = text(&store, attempt).await;
    assert!(all.starts_with("00000000 a line of the flood with *** in"));
    let (_, tail) = all
        .split_once(&format!(
            "{} bytes are left out here; the end of the log follows.\n",
            summary.left_out
        ))
        .unwrap();
    assert!(tail.len() < 1 << 20 && tail.len() > 300 << 10, "{}", tail.len());
    assert!(tail.ends_with("00059999 a line of the flood with *** in the middle of it\n"));
    // Line by line without a gap within the tail.
    let numbers: Vec<u64> = tail.lines().map(|line| line[..8].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    let shown = all.lines().filter(|line| line.starts_with("000")).count() as u64;
    let line = "00000000 a line of the flood with *** in the middle of it\n".len() as u64;
    assert_eq!(shown * line + summary.left_out, 60_000 * line);
}

#[tokio::test]
async fn a_tail_lost_with_the_daemon_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store.open_writer(attempt, vec![], 100, None).await.unwrap();
    assert!(
        writer
            .output(1, 1, Channel::Stdout, 0, &[b'x'; 200])
            .unwrap()
            .cap_reached
    );
    assert_eq!(writer.sync().await.unwrap(), 1);
    drop(writer);
    let mut writer = store.open_writer(attempt, vec![], 100, None).await.unwrap();
    assert_eq!(writer.last_sequence(), 1);
    assert!(
        !writer
            .output(2, 1, Channel::Stdout, 0, b"the end\n")
            .unwrap()
            .cap_reached,
        "said once"
    );
    writer.seal().await.unwrap();
    let all = text(&store, attempt).await;
    assert!(all.contains("and more was lost when helios-ci was restarted"), "{all}");
    assert!(all.ends_with("the end\n"));
}

#[tokio::test]
async fn another_boot_changes_the_generation_and_a_restart_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = AttemptId::new();
    for (boot, generation) in [
        (Some(BOOT), 1),
        (Some(BOOT), 1),
        (Some("two"), 2),
        (Some("two"), 2),
        (None, 3),
        (None, 4),
    ] {
        let store = LogStore::with_boot(dir.path(), boot.map(str::to_owned));
        let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
        writer.system(0, "Here again").unwrap();
        let page = store
            .read(
                attempt,
                Position {
                    generation: 1,
                    record: 1,
                },
                10,
            )
            .await
            .unwrap();
        assert_eq!((page.next.generation, page.resync), (generation, generation != 1));
        assert!(!store.read(attempt, Position::START, 10).await.unwrap().resync);
    }
}

#[tokio::test]
async fn sealing_can_be_repeated_wherever_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let open = async |attempt| store.open_writer(attempt, vec![], 100_000, None).await;
    // Killed with half of the tail appended, without the mark that ends it.
    let attempt = AttemptId::new();
    let mut writer = open(attempt).await.unwrap();
    for i in 1..=50 {
        writer
            .output(
                i,
                1,
                Channel::Stdout,
                0,
                &[b"0123456789\n".repeat(300), vec![b'.']].concat(),
            )
            .unwrap();
    }
    writer.append_tail().unwrap();
    drop(writer);
    let writer = open(attempt).await.unwrap();
    assert_eq!(writer.live.generation, 2, "readers may have seen the half tail");
    writer.seal().await.unwrap();
    let all = text(&store, attempt).await;
    assert_eq!(all.matches("left out here").count(), 1, "{}", &all[all.len() - 300..]);

    // Killed behind the final mark, with a half-written new file.
    let attempt = AttemptId::new();
    let mut writer = open(attempt).await.unwrap();
    writer.system(0, "Hello").unwrap();
    writer.write_state(FINAL).unwrap();
    drop(writer);
    fs::write(store.dir(attempt).join("sealed.new"), b"half").unwrap();
    let summary = open(attempt).await.unwrap().seal().await.unwrap();
    assert_eq!((summary.lines, text(&store, attempt).await.as_str()), (1, "Hello\n"));

    // Killed before the plain file was removed: it is not looked at any more.
    fs::write(store.dir(attempt).join("records"), b"leftover").unwrap();
    assert_eq!(text(&store, attempt).await, "Hello\n");
    assert!(matches!(open(attempt).await, Err(LogError::Sealed { .. })));
    assert!(!store.dir(attempt).join("records").exists(), "opening cleans up");
    // An empty log can be sealed as well.
    let empty = AttemptId::new();
    assert_eq!(open(empty).await.unwrap().seal().await.unwrap().lines, 0);
    assert!(store.read(empty, Position::START, 1).await.unwrap().ended);
}

#[tokio::test]
async fn nothing_comes_behind_the_end_whoever_opens_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    // The last line, unfinished, names a secret that no checkpoint will know.
    let output = b"seen\n::add-mask::hunter2!";
    writer.output(1, 1, Channel::Stdout, 0, output).unwrap();
    writer.end().await.unwrap();
    assert_eq!(writer.masks().len(), 1);
    let ended = on_disk(&store, attempt);
    let resume = Some(LogState {
        acknowledged: 9,
        left_out: 7,
        ..LogState::default()
    });
    for resume in [None, resume] {
        let is_refused = |result| matches!(result, Err(LogError::Ended { .. }));
        assert!(writer.has_ended());
        assert!(is_refused(writer.system(0, "more")));
        assert!(is_refused(writer.output(2, 1, Channel::Stdout, 0, b"more").map(drop)));
        assert!(is_refused(writer.end_step(1)));
        assert!(is_refused(writer.add_masks(secret(&["x"]))));
        writer.consumed(3);
        writer.sync().await.unwrap();
        writer.end().await.unwrap();
        assert!(on_disk(&store, attempt) == ended);
        drop(writer);
        writer = store.open_writer(attempt, vec![], DEFAULT_CAP, resume).await.unwrap();
    }
    assert!(writer.has_ended());
    assert_eq!(writer.seal().await.unwrap().left_out, 0);
    let all = text(&store, attempt).await;
    assert!(all.starts_with("seen\n") && !all.contains("hunter2!"), "{all}");
}

#[tokio::test]
async fn lost_events_are_said_and_do_not_stop_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    writer.output(1, 1, Channel::Stdout, 0, b"a\n").unwrap();
    writer.output(5, 1, Channel::Stdout, 0, b"b\n").unwrap();
    drop(writer);
    let state = Some(LogState {
        acknowledged: 9,
        ..LogState::default()
    });
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, state).await.unwrap();
    assert_eq!(writer.last_sequence(), 9);
    writer.output(10, 1, Channel::Stdout, 0, b"c\n").unwrap();
    let all = text(&store, attempt).await;
    assert_eq!(
        all,
        "a\n3 events of the machine were lost here; output may be missing.\nb\n4 events of the machine were lost here; output may be missing.\nc\n"
    );
}

#[tokio::test]
async fn a_failed_write_ends_the_writer_and_the_file_stays_sound() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    writer.output(1, 1, Channel::Stdout, 0, b"a\n").unwrap();
    writer.file = Arc::new(File::open(&writer.path).unwrap()); // Not open for writing.
    assert!(matches!(
        writer.output(2, 1, Channel::Stdout, 0, b"b\n"),
        Err(LogError::Io { .. })
    ));
    assert!(matches!(
        writer.output(2, 1, Channel::Stdout, 0, b"b\n"),
        Err(LogError::Broken { .. })
    ));
    assert!(matches!(writer.sync().await, Err(LogError::Broken { .. })));
    drop(writer);
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    assert_eq!(writer.last_sequence(), 1);
    writer.output(2, 1, Channel::Stdout, 0, b"b\n").unwrap();
    assert_eq!(text(&store, attempt).await, "a\nb\n");
    let full = LogError::io("write", &writer.path, std::io::ErrorKind::StorageFull.into());
    assert!(full.to_string().contains("is full: free space there"), "{full}");
}

#[tokio::test]
async fn a_mask_of_a_first_line_alone_is_warned_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    let key = "::add-mask::-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END KEY-----\n";
    let safe = "::add-mask::-----BEGIN KEY-----%0AMIIEvQIBADANBgkqhkiG9w0B%0A-----END KEY-----\nTesting the key\n";
    for (sequence, piece) in (1..).zip([safe, key, key].concat().as_bytes().chunks(5)) {
        writer.output(sequence, 1, Channel::Stdout, 0, piece).unwrap();
    }
    writer.end_step(1).unwrap();
    let text = text(&store, attempt).await;
    assert_eq!(text.matches("the value seems to go on behind it").count(), 1, "{text}");
    assert!(text.starts_with("::add-mask::***\nTesting the key\n"), "{text}");
}

#[tokio::test]
async fn between_stop_and_its_token_no_command_is_obeyed_on_either_channel() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let open = async |masks| store.open_writer(attempt, masks, DEFAULT_CAP, None).await;
    let mut writer = open(vec![]).await.unwrap();
    writer
        .output(
            1,
            1,
            Channel::Stdout,
            0,
            b"::stop-commands::a-token\n::add-mask::one1\n::a-tok",
        )
        .unwrap();
    writer.output(2, 1, Channel::Stderr, 0, b"::add-mask::two2\n").unwrap();
    writer.sync().await.unwrap();
    // The next daemon knows it from the file.
    let masks = writer.masks().to_vec();
    assert_eq!(masks, secret(&["a-token"]));
    drop(writer);
    let mut writer = open(masks).await.unwrap();
    assert_eq!(writer.last_sequence(), 0, "the line that may be the token's is held");
    writer
        .output(
            1,
            1,
            Channel::Stdout,
            0,
            b"::stop-commands::a-token\n::add-mask::one1\n::a-tok",
        )
        .unwrap();
    writer.output(2, 1, Channel::Stderr, 0, b"::add-mask::two2\n").unwrap();
    writer.output(3, 1, Channel::Stderr, 0, b"::add-mask::tre3\n").unwrap();
    writer
        .output(
            4,
            1,
            Channel::Stdout,
            0,
            b"en::\n::add-mask::four4\none1 four4 a-token\n",
        )
        .unwrap();
    assert_eq!(writer.masks(), secret(&["a-token", "four4"]));
    // A step that forgets its token has no power over the next.
    writer
        .output(5, 1, Channel::Stdout, 0, b"::stop-commands::x\n")
        .unwrap();
    writer.end_step(1).unwrap();
    // Nor where the daemon dies between the two, and nothing was made durable since.
    let masks = writer.masks().to_vec();
    drop(writer);
    let mut writer = open(masks).await.unwrap();
    assert_eq!(writer.last_sequence(), 5);
    writer
        .output(6, 2, Channel::Stdout, 0, b"::add-mask::five5\nfive5\n")
        .unwrap();
    assert_eq!(
        text(&store, attempt).await,
        "::stop-commands::***\n::add-mask::one1\n::add-mask::two2\n::add-mask::tre3\n::***::\n::add-mask::***\none1 *** ***\n::stop-commands::x\n::add-mask::***\n***\n"
    );
}
