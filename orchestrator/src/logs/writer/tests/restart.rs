//! What a daemon that takes over makes of the file, the checkpoint, and what the agent sends again.

use std::collections::{BTreeSet, VecDeque};

use super::*;

/// What an agent does, and where the daemon is killed.
#[derive(Debug, Clone)]
enum Op {
    Out(bool, Vec<u8>),
    Silent,
    Sync,
    Kill(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let part = prop_oneof![
        Just("hunter2!"),
        Just("hunt"),
        Just("er2!"),
        Just("\n"),
        Just("plain "),
        Just("::add-mask::"),
        Just("##[add-mask]"),
        Just("::stop-commands::tok\n"),
        Just("::tok::\n"),
        Just("value"),
        Just("h"),
        Just(" "),
        Just("multi\nline secret"),
        // hunter2! in Base64 and in hexadecimal, and parts of it that may be wrapped.
        Just("aHVudGVyMiE="),
        Just("aHVu"),
        Just("dGVyMiE="),
        Just("68:75:6e:74"),
        Just(":65:72:32:21"),
    ];
    let data = proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat().into_bytes());
    let op = prop_oneof![
        8 => (any::<bool>(), data).prop_map(|(err, data)| Op::Out(err, data)),
        1 => Just(Op::Silent),
        2 => Just(Op::Sync),
        2 => (0u64..200).prop_map(Op::Kill),
    ];
    proptest::collection::vec(op, 1..40)
}

/// Plays the script. With `kills`, every `Kill` drops the writer, tears up to that many unsynced bytes
/// off the file, opens it again and sends again what is missing.
/// When the agent is `crowded`, each sync hands over to the checkpoint what is held back.
async fn play(store: &LogStore, ops: &[Op], kills: bool, crowded: bool) -> Played {
    let attempt = AttemptId::new();
    let known = secret(&["hunter2!", "multi\nline secret"]);
    let mut masks = known.clone();
    let mut writer = store.open_writer(attempt, known, DEFAULT_CAP, None).await.unwrap();
    writer.durability.crowd(crowded);
    let mut checkpoint = None;
    let mut events: Vec<Option<(bool, &[u8])>> = Vec::new();
    let (mut acknowledged, mut synced) = (0, 0);
    for op in ops {
        match op {
            Op::Out(err, data) => events.push(Some((*err, data))),
            Op::Silent => events.push(None),
            Op::Sync => {
                acknowledged = writer.sync().await.unwrap();
                synced = writer.end;
                if writer.needs_checkpoint() {
                    checkpoint = Some(writer.state_for_checkpoint());
                    acknowledged = writer.checkpointed();
                    assert_eq!(acknowledged, events.len() as u64);
                }
                continue;
            }
            Op::Kill(_) if !kills => continue,
            Op::Kill(torn) => {
                let end = writer.end;
                drop(writer);
                let path = store.dir(attempt).join("records");
                let keep = end.saturating_sub(*torn).max(synced);
                File::options().write(true).open(path).unwrap().set_len(keep).unwrap();
                writer = store
                    .open_writer(attempt, masks.clone(), DEFAULT_CAP, checkpoint.clone())
                    .await
                    .unwrap();
                writer.durability.crowd(crowded);
                assert!(writer.last_sequence() >= acknowledged, "an acknowledged event is gone");
                for sequence in writer.last_sequence() + 1..=events.len() as u64 {
                    send(&mut writer, sequence, events[sequence as usize - 1], &mut masks);
                }
                synced = synced.min(writer.end);
                continue;
            }
        }
        send(&mut writer, events.len() as u64, events[events.len() - 1], &mut masks);
    }
    writer.end_step(1).unwrap();
    let page = store.read(attempt, Position::START, usize::MAX).await.unwrap();
    let masks = writer.masks().iter().map(|mask| mask.expose().to_owned()).collect();
    writer.seal().await.unwrap();
    let record = |r: crate::logs::LogRecord| (r.position.record, r.channel, r.data.to_vec());
    Played {
        attempt,
        records: page.records.into_iter().map(record).collect(),
        masks,
    }
}

/// What became of a script.
struct Played {
    attempt: AttemptId,
    records: Vec<(u64, Channel, Vec<u8>)>,
    masks: BTreeSet<String>,
}

impl Played {
    fn text(&self, channel: Channel) -> Vec<u8> {
        let of_channel = self.records.iter().filter(|record| record.1 == channel);
        of_channel.flat_map(|record| record.2.clone()).collect()
    }
}

fn send(writer: &mut LogWriter, sequence: u64, event: Option<(bool, &[u8])>, masks: &mut Vec<Secret>) {
    match event {
        None => writer.consumed(sequence),
        Some((err, data)) => {
            let channel = if err { Channel::Stderr } else { Channel::Stdout };
            masks.extend(writer.output(sequence, 1, channel, 0, data).unwrap().new_masks);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    /// However often the daemon is killed, and however much of what was not synced is torn off, the
    /// log becomes the very same records as without any of it, and never holds a secret.
    #[test]
    fn kills_change_nothing(ops in ops(), crowded in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = store(&dir);
            let calm = play(&store, &ops, false, crowded).await;
            let killed = play(&store, &ops, true, crowded).await;
            let has = |part: &[u8]| ops.iter().any(|op| matches!(op, Op::Out(_, data) if memchr::memmem::find(data, part).is_some()));
            // A line that is not over may come again while commands are stopped by what the other channel wrote behind it.
            assert!(has(b"tok") || calm.masks == killed.masks, "the same commands are obeyed");
            // A mask that was learnt before the kill also masks what is sent again from before it;
            // of scripts that add masks only the leaks and the masks are compared.
            if !has(b"add-mask") {
                for channel in CHANNELS {
                    assert_eq!(calm.text(channel), killed.text(channel));
                }
                // What may be the line that ends a stop is held or not by whether commands are stopped when it comes
                // again, which the other channel may have changed meanwhile.
                assert!(has(b"tok") || calm.records == killed.records);
            }
            let disk = on_disk(&store, killed.attempt);
            assert!(memchr::memmem::find(&disk, b"hunter2!").is_none());
            assert!(memchr::memmem::find(&disk, b"line secret").is_none());
        });
        runtime.shutdown_timeout(deadline::PROMPT);
    }
}

#[tokio::test]
async fn a_mask_that_no_checkpoint_knows_is_learnt_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::new(dir.path());
    let attempt = AttemptId::new();
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    writer.output(1, 0, Channel::Stdout, 0, b"before\n").unwrap();
    let caused = writer
        .output(2, 0, Channel::Stdout, 0, b"::add-mask::hunter2!\n")
        .unwrap();
    assert_eq!(caused.new_masks.len(), 1);
    writer.sync().await.unwrap();
    // Killed before the driver could store a checkpoint with the new mask.
    drop(writer);
    let mut writer = store.open_writer(attempt, vec![], DEFAULT_CAP, None).await.unwrap();
    assert_eq!(
        writer.last_sequence(),
        1,
        "the event that named the secret must come again"
    );
    assert_eq!(
        writer
            .output(2, 0, Channel::Stdout, 0, b"::add-mask::hunter2!\n")
            .unwrap()
            .new_masks
            .len(),
        1
    );
    writer.output(3, 0, Channel::Stdout, 0, b"it is hunter2!\n").unwrap();
    writer.seal().await.unwrap();
    let len = store.text_len(attempt).await.unwrap();
    let text = store.text_range(attempt, 0..len).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&text), "before\n::add-mask::***\nit is ***\n");
}

/// What a node and an agent do with a step's output: a sync after each event, and what the agent has kept since.
struct Agent {
    /// Sizes of the events that it keeps, from this sequence on.
    kept: VecDeque<usize>,
    first: u64,
}

impl Agent {
    async fn send(&mut self, writer: &mut LogWriter, channel: Channel, data: &[u8]) -> Option<LogState> {
        self.kept.push_back(data.len());
        let sequence = self.first + self.kept.len() as u64 - 1;
        writer.output(sequence, 1, channel, 0, data).unwrap();
        let mut acknowledged = writer.sync().await.unwrap();
        let stored = writer.needs_checkpoint().then(|| writer.state_for_checkpoint());
        if stored.is_some() {
            acknowledged = writer.checkpointed();
        }
        while self.first <= acknowledged {
            self.kept.pop_front().unwrap();
            self.first += 1;
        }
        stored
    }
}

#[tokio::test]
async fn what_is_held_of_one_channel_does_not_hold_up_the_other() {
    /// What an agent keeps at most before its step waits.
    const AGENT: usize = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (store, attempt) = (store(&dir), AttemptId::new());
    let open = async |state| {
        store
            .open_writer(attempt, secret(&["hunter2!"]), DEFAULT_CAP, state)
            .await
    };
    let mut writer = open(None).await.unwrap();
    let mut agent = Agent {
        kept: VecDeque::new(),
        first: 1,
    };
    assert_eq!(agent.send(&mut writer, Channel::Stdout, b"is h").await, None);
    let mut stored = None;
    for round in 0..200 {
        let more = agent.send(&mut writer, Channel::Stderr, &[b'x'; 64 << 10]).await;
        stored = more.or(stored);
        let kept: usize = agent.kept.iter().sum();
        assert!(kept < AGENT, "{kept} bytes wait in round {round}");
        if round == 100 {
            // Killed: the next daemon has the file and the checkpoint, and the agent forgot what was acknowledged.
            drop(writer);
            writer = open(stored.clone()).await.unwrap();
            let next = writer.last_sequence() + 1;
            assert!(next >= agent.first, "{next} is forgotten");
            for sequence in next..agent.first + agent.kept.len() as u64 {
                writer
                    .output(sequence, 1, Channel::Stderr, 0, &[b'x'; 64 << 10])
                    .unwrap();
            }
        }
    }
    let held = stored.unwrap().held;
    assert_eq!((held.len(), held[0].data.as_slice()), (1, &b"h"[..]));
    assert!(!format!("{held:?}").contains("104"), "it stays out of Debug");
    agent.send(&mut writer, Channel::Stdout, b"unter2! it").await;
    assert_eq!(writer.sync().await.unwrap(), 202);
    assert_eq!(
        writer.state_for_checkpoint(),
        LogState {
            acknowledged: 202,
            ..LogState::default()
        }
    );
    writer.seal().await.unwrap();
    let all = text(&store, attempt).await;
    assert_eq!(all.bytes().filter(|byte| *byte == b'x').count(), 200 * (64 << 10));
    assert_eq!(all.replace('x', ""), "is *** it");
}
