use std::collections::VecDeque;

use helios_proto::v1::{Output, event};
use proptest::prelude::*;

use super::*;

fn output(len: usize, fill: u8) -> Event {
    let data = Bytes::from(vec![fill; len]);
    Event {
        event: Some(event::Event::Output(Output { stream: 1, data })),
        ..Event::default()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// An event of that many bytes.
    Push(usize),
    /// Acknowledge up to this far (percent) into what was made, which may lie in the past.
    Acknowledge(u64),
    /// A new connection reads everything from what was acknowledged.
    Resend,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..700).prop_map(Step::Push),
        3 => (0_u64..=110).prop_map(Step::Acknowledge),
        1 => Just(Step::Resend),
    ]
}

proptest! {
    /// Against a plain queue without limits: nothing is lost, repeated, reordered or changed,
    /// whatever the limits are and whether or not the file can be made.
    #[test]
    fn it_is_a_queue(
        steps in proptest::collection::vec(step(), 1..300),
        memory in 0_usize..4000,
        file in 0_usize..6000,
        writable in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let at = if writable { dir.path().to_owned() } else { dir.path().join("missing") };
        let mut spool = Spool::new(at, Limits { memory, file });
        let mut model: VecDeque<Event> = VecDeque::new();
        let mut made = 0;
        for step in steps {
            match step {
                Step::Push(len) => {
                    made += 1;
                    let fill = u8::try_from(made % 251).unwrap();
                    prop_assert_eq!(spool.push(output(len, fill)), made);
                    model.push_back(Event { sequence: made, ..output(len, fill) });
                }
                Step::Acknowledge(percent) => {
                    let to = made * percent / 100;
                    spool.acknowledge(to);
                    while model.front().is_some_and(|event| event.sequence <= to) {
                        model.pop_front();
                    }
                }
                Step::Resend => {
                    for event in &model {
                        let kept = spool.get(event.sequence).unwrap();
                        prop_assert_eq!(kept.as_ref(), Some(event));
                    }
                }
            }
            prop_assert_eq!(spool.last(), made);
            prop_assert_eq!(spool.is_empty(), model.is_empty());
            prop_assert_eq!(spool.get(made + 1).unwrap(), None);
            let acknowledged = model.front().map_or(made, |event| event.sequence - 1);
            prop_assert_eq!(spool.get(acknowledged).unwrap(), None);
        }
        for event in &model {
            let kept = spool.get(event.sequence).unwrap();
            prop_assert_eq!(kept.as_ref(), Some(event));
        }
        spool.acknowledge(made);
        prop_assert_eq!(spool.memory_cost, 0);
        prop_assert!(spool.room(true, 10_000), "it is empty");
    }
}

#[test]
fn producers_wait_for_a_slow_node_in_memory_and_for_an_absent_one_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        memory: 10_000,
        file: 50_000,
    };
    let mut spool = Spool::new(dir.path().to_owned(), limits);
    let cost = output_cost(1000, 1);
    while spool.room(true, cost) {
        spool.push(output(1000, 1));
    }
    let in_memory = spool.last();
    assert!((7..=9).contains(&in_memory), "{in_memory}");
    assert!(spool.file.is_none());
    while spool.room(false, cost) {
        spool.push(output(1000, 2));
    }
    assert!((40..=52).contains(&spool.last()), "{}", spool.last());
    assert!(spool.memory_cost <= limits.memory + 1300);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has a name");
    // The node is back: it gets what the disk holds before there is more.
    while spool.file.is_some() {
        assert!(!spool.room(true, cost));
        spool.acknowledge(spool.first());
    }
    assert!(spool.room(true, cost));
}

#[test]
fn a_disk_that_fails_makes_producers_wait_but_loses_nothing() {
    let mut spool = Spool::new(
        "/nonexistent".into(),
        Limits {
            memory: 2000,
            file: 50_000,
        },
    );
    for _ in 0..5 {
        spool.push(output(1000, 3));
    }
    assert!(!spool.room(false, 1000), "output is taken without a place for it");
    assert_eq!(spool.get(5).unwrap().unwrap().sequence, 5);
}
