//! A daemon with two connections and nothing to do.

use std::time::{Duration, Instant};

use crate::{
    api::{self, Api, TRIVIAL},
    process,
    support::Machines,
    table::{Goal, MIB, Row, Table, Unit},
};

const WATCHED: Duration = Duration::from_secs(60);
/// Whatever a daemon does in so short a time is one wake-up.
const WINDOW: Duration = Duration::from_millis(20);
const RATE: Unit = Unit("a second");

pub async fn costs(table: &mut Table) {
    let world = api::start(Machines::Process, "").await;
    let api = Api::of(&world);
    let sha = world.push(TRIVIAL).await;
    api.planned(&world, &sha, "ci").await;
    world.wait_clean();
    drop(api);
    std::thread::sleep(Duration::from_secs(5));
    let (begun, windows) = (Instant::now(), WATCHED.as_millis() / WINDOW.as_millis());
    let (mut before, mut awake, mut hand_overs) = (process::waits(world.pid()), 0_u32, 0);
    for window in 1..=u32::try_from(windows).expect("a few") {
        std::thread::sleep((WINDOW * window).saturating_sub(begun.elapsed()));
        let now = process::waits(world.pid());
        // Threads that had nothing to do for a while end, and count for nothing then; a new one may get an old one's number.
        let rose = now
            .iter()
            .map(|(thread, count)| count.saturating_sub(*before.get(thread).unwrap_or(&0)))
            .sum::<u64>();
        awake += u32::from(rose > 0);
        hand_overs += rose;
        before = now;
    }
    let a_second = |count: f64| vec![count / WATCHED.as_secs_f64()];
    let resident = process::resident_mib(world.pid());
    table.push(Row::new("idle daemon, resident", MIB, vec![resident]).goal(Goal::AtMost(40.0)));
    let wake_ups = Row::new("idle daemon, wake-ups", RATE, a_second(f64::from(awake)));
    table.push(wake_ups.goal(Goal::AtMost(1.0)));
    let hand_overs = a_second(hand_overs as f64);
    table.push(Row::new("hand-overs between its threads in them", RATE, hand_overs));
}
