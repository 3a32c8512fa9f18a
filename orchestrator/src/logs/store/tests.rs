use std::{fs, os::unix::fs::PermissionsExt};

use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::{
    deadline,
    logs::{Channel, DEFAULT_CAP, MAX_PIECE, live::SEALS},
};

fn store(dir: &tempfile::TempDir) -> LogStore {
    LogStore::with_boot(dir.path(), Some("boot".into()))
}

async fn open(store: &LogStore, attempt: AttemptId) -> LogWriter {
    store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap()
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// The definition of lines, byte by byte.
fn model(records: &[(u32, Channel, Vec<u8>)]) -> Vec<(u32, u64, Channel, Vec<u8>, bool)> {
    let mut lines: Vec<(u32, u64, Channel, Vec<u8>, bool)> = Vec::new();
    let mut open = false;
    let mut unfinished: Vec<(u32, Channel)> = Vec::new();
    for (step, channel, data) in records {
        let of = (*step, *channel);
        // What ends another's line is no line.
        let ends = usize::from(open && *channel == Channel::System && data.first() == Some(&b'\n'));
        open &= ends == 0;
        for &byte in &data[ends..] {
            let goes_on = open
                && lines
                    .last()
                    .is_some_and(|l| (l.0, l.2) == of && (l.3.len() < MAX_PIECE || byte == b'\n'));
            if !goes_on {
                let number = lines.iter().rev().find(|l| l.0 == *step).map_or(1, |l| l.1 + 1);
                lines.push((*step, number, *channel, Vec::new(), unfinished.contains(&of)));
                open = true;
            }
            unfinished.retain(|known| *known != of && known.1 != *channel);
            if byte == b'\n' {
                open = false;
            } else {
                unfinished.push(of);
                lines.last_mut().unwrap().3.push(byte);
            }
        }
    }
    lines
}

async fn compare(store: &LogStore, attempt: AttemptId, records: &[(u32, Channel, Vec<u8>)], dice: &mut Dice) {
    let lines = model(records);
    let text: Vec<u8> = records.iter().flat_map(|record| record.2.clone()).collect();
    assert_eq!(store.text_len(attempt).await.unwrap(), text.len() as u64);
    for _ in 0..40 {
        let from = dice.roll(lines.len() as u64 + 2);
        let max = dice.roll(700) as usize;
        let page = store.lines(attempt, from, max).await.unwrap();
        let from = from.max(1) as usize;
        let expected: Vec<_> = lines.iter().skip(from - 1).take(max).collect();
        assert!(
            page.lines.len() == expected.len() || page.lines.iter().map(|l| l.bytes.len()).sum::<usize>() > 3 << 20
        );
        for (i, (line, expected)) in page.lines.iter().zip(expected).enumerate() {
            assert_eq!(line.number, (from + i) as u64);
            assert_eq!(
                (line.step, line.line_in_step, line.channel),
                (expected.0, expected.1, expected.2)
            );
            assert!(
                line.bytes == expected.3 && line.continued == expected.4,
                "line {}",
                line.number
            );
        }
        let begin = dice.roll(text.len() as u64 + 10);
        let end = begin + dice.roll(100_000);
        let range = store.text_range(attempt, begin..end).await.unwrap();
        let expected = text
            .get(begin as usize..(end as usize).min(text.len()))
            .unwrap_or_default();
        assert!(range == expected, "{begin}..{end}");
        let record = dice.roll(records.len() as u64);
        let page = store
            .read(attempt, Position { generation: 1, record }, 3)
            .await
            .unwrap();
        for (i, record) in page.records.iter().enumerate() {
            let expected = &records[record.position.record as usize];
            assert_eq!(
                (record.step, record.channel, &record.data[..]),
                (expected.0, expected.1, &expected.2[..])
            );
            assert_eq!(record.position.record, page.records[0].position.record + i as u64);
        }
    }
    for step in [None, Some(1), Some(2), Some(77)] {
        let tail = store.tail(attempt, step, 300).await.unwrap();
        let of: Vec<_> = lines
            .iter()
            .filter(|line| step.is_none_or(|step| line.0 == step))
            .collect();
        let expected = &of[of.len().saturating_sub(300)..];
        assert_eq!(tail.len(), expected.len());
        assert!(
            tail.iter()
                .zip(expected)
                .all(|(line, expected)| line.bytes == expected.3 && line.step == expected.0)
        );
    }
    for span in store.steps(attempt).await.unwrap() {
        let of = |line: &&(u32, u64, Channel, Vec<u8>, bool)| line.0 == span.step;
        assert_eq!(span.lines, lines.iter().filter(of).count() as u64);
        assert_eq!(lines[span.first as usize - 1].0, span.step);
        assert_eq!(lines[span.last as usize - 1].0, span.step);
    }
}

#[tokio::test]
async fn lines_text_and_records_are_the_same_open_left_and_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut dice = Dice(7);
    let mut writer = open(&store, attempt).await;
    let mut records = Vec::new();
    for sequence in 1..=400 {
        let step = 1 + (sequence / 180) as u32 + u32::from(dice.roll(40) == 0);
        let channel = if dice.roll(4) == 0 {
            Channel::Stderr
        } else {
            Channel::Stdout
        };
        let mut data = Vec::new();
        if dice.roll(30) == 0 {
            data.resize(dice.roll(60_000) as usize + 1, b'x');
        }
        for i in 0..dice.roll(300) {
            data.extend_from_slice(format!("{sequence} {i}\n").as_bytes());
        }
        data.extend_from_slice([&b"no end"[..], b"\n", b"", b"\r"][dice.roll(4) as usize]);
        writer.output(sequence, step, channel, 0, &data).unwrap();
        let unfinished = records
            .last()
            .filter(|last: &&(u32, Channel, Vec<u8>)| !last.2.ends_with(b"\n"));
        if let Some((owner, ..)) = unfinished.filter(|(owner, ..)| *owner != step && !data.is_empty()) {
            records.push((*owner, Channel::System, b"\n".to_vec()));
        }
        records.extend(data.chunks(MAX_PIECE).map(|piece| (step, channel, piece.to_vec())));
    }
    compare(&store, attempt, &records, &mut dice).await;
    drop(writer);
    compare(&store, attempt, &records, &mut dice).await;
    let writer = open(&store, attempt).await;
    compare(&store, attempt, &records, &mut dice).await;
    let summary = writer.seal().await.unwrap();
    compare(&store, attempt, &records, &mut dice).await;
    assert!(summary.stored_bytes * 5 < summary.text_bytes, "{summary:?}");
    let beyond = store
        .read(
            attempt,
            Position {
                generation: 1,
                record: summary.records + 1,
            },
            1,
        )
        .await
        .unwrap();
    assert!(beyond.resync && !beyond.ended);
}

#[tokio::test]
async fn a_line_of_a_megabyte_is_split_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = open(&store, attempt).await;
    for sequence in 1..=16 {
        writer
            .output(sequence, 1, Channel::Stdout, 0, &[b'x'; MAX_PIECE])
            .unwrap();
    }
    writer.output(17, 1, Channel::Stdout, 0, b"\nshort\n").unwrap();
    let page = store.lines(attempt, 1, 100).await.unwrap();
    assert_eq!(page.lines.len(), 17);
    assert!(
        page.lines[..16]
            .iter()
            .enumerate()
            .all(|(i, l)| l.bytes.len() == MAX_PIECE && l.continued == (i > 0))
    );
    assert_eq!(
        (page.lines[16].bytes.as_slice(), page.lines[16].continued),
        (&b"short"[..], false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_readers_follow_from_before_the_beginning_to_the_seal() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let readers: Vec<_> = (0..5)
        .map(|i| {
            let mut pages = Box::pin(store.follow(attempt, Position::START));
            tokio::spawn(async move {
                let (mut text, mut last) = (Vec::new(), None);
                while let Some(page) = pages.next().await {
                    let page = page.unwrap();
                    for record in page.records {
                        assert_eq!(record.position.record, last.map_or(0, |last| last + 1));
                        last = Some(record.position.record);
                        text.extend_from_slice(&record.data);
                    }
                    if i == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                text
            })
        })
        .collect();
    let mut expected = Vec::new();
    let mut writer = open(&store, attempt).await;
    for sequence in 1..=3000u64 {
        let line = format!("line {sequence}\n");
        writer.output(sequence, 1, Channel::Stdout, 0, line.as_bytes()).unwrap();
        expected.extend_from_slice(line.as_bytes());
        if sequence % 100 == 0 {
            tokio::task::yield_now().await;
        }
        if sequence == 1500 {
            // The daemon restarts in the middle: readers of this process notice nothing.
            drop(writer);
            writer = open(&store, attempt).await;
        }
    }
    writer.seal().await.unwrap();
    for reader in readers {
        let text = tokio::time::timeout(deadline::PROMPT, reader)
            .await
            .expect("a reader hangs")
            .unwrap();
        assert!(text == expected);
    }
}

#[tokio::test]
async fn following_a_left_log_waits_for_its_next_writer_and_a_removed_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = open(&store, attempt).await;
    writer.output(1, 1, Channel::Stdout, 0, b"a\n").unwrap();
    drop(writer);
    let mut pages = Box::pin(store.follow(attempt, Position::START));
    assert_eq!(pages.next().await.unwrap().unwrap().records.len(), 1);
    assert!(futures::poll!(pages.next()).is_pending());
    let mut writer = open(&store, attempt).await;
    writer.output(2, 1, Channel::Stdout, 0, b"b\n").unwrap();
    let page = tokio::time::timeout(deadline::PROMPT, pages.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(&page.records[0].data[..], b"b\n");
    assert!(matches!(store.remove(attempt).await, Err(LogError::Busy { .. })));
    drop(writer);
    store.remove(attempt).await.unwrap();
    store.remove(attempt).await.unwrap();
    let last = tokio::time::timeout(deadline::PROMPT, pages.next())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(last, Err(LogError::NotFound { .. })));
    assert!(
        tokio::time::timeout(deadline::PROMPT, pages.next())
            .await
            .unwrap()
            .is_none()
    );
    assert!(!store.exists(attempt).await);
}

#[tokio::test]
async fn one_writer_at_a_time_and_private_files() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let writer = open(&store, attempt).await;
    assert!(matches!(
        store.open_writer(attempt, vec![], DEFAULT_CAP, None).await,
        Err(LogError::Busy { .. })
    ));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.dir(attempt)), 0o700);
    assert_eq!(mode(&store.dir(attempt).join("records")), 0o600);
    writer.seal().await.unwrap();
    assert_eq!(mode(&store.dir(attempt).join("sealed")), 0o600);
    assert!(store.exists(attempt).await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever a disk returns, there is an answer or an error, never a crash.
    #[test]
    fn damaged_files_are_errors(garbage in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = store(&dir);
            // A sealed file with one damaged byte, or cut off.
            let attempt = AttemptId::new();
            let mut writer = open(&store, attempt).await;
            writer.output(1, 1, Channel::Stdout, 0, b"some text\nand more\n").unwrap();
            writer.seal().await.unwrap();
            let path = store.dir(attempt).join("sealed");
            let mut bytes = fs::read(&path).unwrap();
            let at = flip.index(bytes.len());
            bytes[at] ^= 0x55;
            if cut { bytes.truncate(at); }
            fs::write(&path, bytes).unwrap();
            if let Ok(page) = store.lines(attempt, 1, 10).await {
                assert_eq!(page.lines.len(), 2, "only the frame around the index, which nobody reads, may be damaged unseen");
            }
            // A plain file of garbage is an empty log.
            let attempt = AttemptId::new();
            drop(open(&store, attempt).await);
            fs::write(store.dir(attempt).join("records"), garbage).unwrap();
            assert_eq!(store.text_len(attempt).await.unwrap(), 0);
            assert_eq!(open(&store, attempt).await.last_sequence(), 0);
        });
    }
}

#[tokio::test]
async fn a_change_is_known_without_reading_and_for_every_position_of_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let changed = async |since: Position| {
        let change = tokio::time::timeout(deadline::PROMPT, store.changed(attempt, since)).await;
        change.expect("there is a change").unwrap()
    };
    let at = |generation, record| Position { generation, record };
    // Before the log exists, at its beginning, at its end while it grows: it waits.
    let first = {
        let store = store.clone();
        tokio::spawn(async move { store.changed(attempt, Position::START).await })
    };
    let mut writer = open(&store, attempt).await;
    for n in 1..=3 {
        writer.output(n, 0, Channel::Stdout, 0, b"x\n").unwrap();
    }
    assert!(!first.await.unwrap().unwrap().resync);
    let change = |next, ended, resync| Change { next, ended, resync };
    assert_eq!(changed(at(1, 2)).await, change(at(1, 3), false, false));
    assert_eq!(
        changed(at(7, 2)).await,
        change(at(1, 0), false, true),
        "another generation"
    );
    let waits = {
        let store = store.clone();
        tokio::spawn(async move { store.changed(attempt, at(1, 3)).await })
    };
    writer.sync().await.unwrap();
    writer.seal().await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap(), change(at(1, 3), true, false));
    assert_eq!(changed(at(1, 9)).await, change(at(1, 0), false, true), "behind the end");
    assert_eq!(changed(Position::START).await, change(at(1, 3), true, false));
    store.remove(attempt).await.unwrap();
    let gone = tokio::time::timeout(deadline::PROMPT, store.changed(attempt, at(1, 3))).await;
    assert!(matches!(
        gone.expect("it does not wait"),
        Err(LogError::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_log_of_another_format_is_named_by_it_whatever_else_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    drop(open(&store, attempt).await);
    let meta = store.dir(attempt).join("meta.json");
    fs::write(&meta, "{\"format\": 9, \"generation\": \"of the future\"}").unwrap();
    let error = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await;
    assert!(matches!(error.err(), Some(LogError::OtherFormat { found: 9, .. })));
    fs::write(&meta, "{\"format\": 2}").unwrap();
    let error = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await;
    assert!(matches!(error.err(), Some(LogError::Corrupt { .. })));
}

#[tokio::test]
async fn files_of_another_format_are_refused_in_words_wherever_they_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let refused = async || {
        let read = store.read(attempt, Position::START, 1).await.err();
        let opened = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.err();
        for error in [read, opened] {
            let error = error.expect("an error").to_string();
            assert!(
                error.contains("has format 1, and this version of helios-ci reads format 2"),
                "{error}"
            );
        }
    };
    let mut writer = open(&store, attempt).await;
    writer.output(1, 0, Channel::Stdout, 0, b"text\n").unwrap();
    drop(writer);
    // The head of the records, and the description beside them.
    let records = store.dir(attempt).join("records");
    let whole = fs::read(&records).unwrap();
    assert_eq!(&whole[..8], b"HCILOG\0\x02");
    fs::write(&records, [b"HCILOG\0\x01", &whole[8..]].concat()).unwrap();
    refused().await;
    // Format 1 had no head.
    fs::write(&records, &whole[8..]).unwrap();
    fs::write(
        store.dir(attempt).join("meta.json"),
        "{\"format\": 1, \"generation\": 1}",
    )
    .unwrap();
    refused().await;
    assert_eq!(fs::read(&records).unwrap(), whole[8..], "nothing is cut off");
    // The end of a sealed file.
    let attempt = AttemptId::new();
    open(&store, attempt).await.seal().await.unwrap();
    let sealed = store.dir(attempt).join("sealed");
    let mut bytes = fs::read(&sealed).unwrap();
    *bytes.last_mut().unwrap() = 1;
    fs::write(&sealed, bytes).unwrap();
    let error = store.read(attempt, Position::START, 1).await.unwrap_err();
    assert!(
        matches!(error, LogError::OtherFormat { found: 1, known: 2, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn what_was_left_open_is_sealed_whatever_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    store.seal_left(attempt).await.unwrap();
    assert!(!store.exists(attempt).await, "nothing is made of nothing");
    let mut writer = open(&store, attempt).await;
    writer.output(1, 4, Channel::Stdout, 0, b"no newline").unwrap();
    assert!(matches!(store.seal_left(attempt).await, Err(LogError::Busy { .. })));
    drop(writer);
    store.seal_left(attempt).await.unwrap();
    store.seal_left(attempt).await.unwrap();
    let lines = store.lines(attempt, 1, 10).await.unwrap();
    assert!(lines.ended);
    let shown: Vec<(u32, &[u8])> = lines.lines.iter().map(|line| (line.step, &line.bytes[..])).collect();
    assert_eq!(
        shown,
        [
            (4, &b"no newline"[..]),
            (4, b"The log was interrupted here; its end may be missing.")
        ],
        "said where it broke off"
    );
    // Complete, and killed before it was compressed: nothing is missing, and nothing is said.
    let attempt = AttemptId::new();
    let mut writer = open(&store, attempt).await;
    writer.output(1, 0, Channel::Stdout, 0, b"all of it\n").unwrap();
    let blocked = store.dir(attempt).join("sealed.new");
    fs::create_dir(&blocked).unwrap();
    writer.seal().await.unwrap_err();
    fs::remove_dir(&blocked).unwrap();
    store.seal_left(attempt).await.unwrap();
    let text = store.text_range(attempt, 0..u64::MAX).await.unwrap();
    assert_eq!(&text[..], b"all of it\n");
    assert!(store.summary(attempt).await.unwrap().is_some());
}

#[tokio::test]
async fn readers_see_the_end_before_the_seal_and_a_killed_writer_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let at = |record| Position { generation: 1, record };
    let mut writer = open(&store, attempt).await;
    writer.output(1, 0, Channel::Stdout, 0, b"all of it\n").unwrap();
    let waits = {
        let store = store.clone();
        tokio::spawn(async move { store.changed(attempt, at(1)).await })
    };
    assert!(!writer.has_ended());
    writer.end().await.unwrap();
    writer.end().await.unwrap();
    let change = waits.await.unwrap().unwrap();
    assert_eq!((change.next, change.ended), (at(1), true));
    assert!(store.lines(attempt, 1, 10).await.unwrap().ended);
    assert!(store.summary(attempt).await.unwrap().is_none(), "it is not sealed");
    drop(writer);
    let writer = open(&store, attempt).await;
    assert!(writer.has_ended());
    writer.seal().await.unwrap();
    let text = store.text_range(attempt, 0..u64::MAX).await.unwrap();
    assert_eq!(&text[..], b"all of it\n");
}

/// What is written of a log before its first sync may be lost, each part by itself.
#[tokio::test]
async fn a_log_that_lost_its_first_meta_is_another_to_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let generation = async |attempt, resume| {
        let writer = store.open_writer(attempt, vec![], DEFAULT_CAP, resume).await.unwrap();
        drop(writer);
        store.end(attempt).await.unwrap().generation
    };
    let written = async || {
        let attempt = AttemptId::new();
        let mut writer = open(&store, attempt).await;
        writer.output(1, 0, Channel::Stdout, 0, b"seen\n").unwrap();
        writer.sync().await.unwrap();
        (attempt, store.dir(attempt).join("meta.json"))
    };
    let (attempt, meta) = written().await;
    fs::write(meta, "").unwrap();
    assert_eq!(generation(attempt, None).await, 2);
    let (attempt, meta) = written().await;
    fs::write(meta, [0; 60]).unwrap();
    assert_eq!(generation(attempt, None).await, 2);
    let (attempt, meta) = written().await;
    fs::remove_file(meta).unwrap();
    assert_eq!(generation(attempt, None).await, 2);
    assert_eq!(generation(attempt, None).await, 2, "and stays it");
    // Of what a reader may have seen nothing is left but the directory.
    let (attempt, meta) = written().await;
    fs::remove_file(meta).unwrap();
    fs::write(store.dir(attempt).join("records"), "").unwrap();
    assert_eq!(generation(attempt, None).await, 2);
    let (attempt, _) = written().await;
    fs::remove_dir_all(store.dir(attempt)).unwrap();
    assert_eq!(generation(attempt, Some(LogState::default())).await, 2, "it was seen");
    let attempt = AttemptId::new();
    assert_eq!(generation(attempt, None).await, 1, "it is the first");
}

#[tokio::test]
async fn a_log_waits_for_its_turn_to_be_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let mut writer = open(&store, attempt).await;
    writer.output(1, 0, Channel::Stdout, 0, b"all of it\n").unwrap();
    writer.end().await.unwrap();
    let turns = Arc::clone(&store.logs.seals);
    let others = turns.try_acquire_many(u32::try_from(SEALS).unwrap()).unwrap();
    let mut seal = std::pin::pin!(writer.seal());
    let looks = async {
        for _ in 0..500 {
            assert!(store.summary(attempt).await.unwrap().is_none());
        }
    };
    tokio::select! {
        biased;
        sealed = &mut seal => panic!("not its turn: {sealed:?}"),
        () = looks => {}
    }
    drop(others);
    seal.await.unwrap();
    assert!(store.summary(attempt).await.unwrap().is_some());
    assert_eq!(turns.available_permits(), SEALS);
}
