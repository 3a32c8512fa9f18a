//! Commands that exit with 0 and have done nothing. Whoever acts looks afterwards, so a call succeeds only when what it
//! promised is there, or gone.

use std::collections::BTreeMap;

use illumos_sim::faults::Action;

use super::{
    budget,
    faults::{USUAL, life, met},
    foreign_objects,
    simulated_host::{self, host},
};

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn an_act_that_was_not_done_is_found_out() {
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();
    let from = host().trace().unwrap().len();
    life(USUAL, "without faults").await;
    let trace = host().trace().unwrap();
    let mut calls: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in trace[from..].iter().filter(|line| budget::acts(line)) {
        *calls.entry((&line.argv[0], budget::verb(line))).or_default() += 1;
    }
    assert!(calls.len() >= 18, "{calls:?}");
    for ((program, verb), count) in calls {
        for nth in 1..=count {
            let what = format!("{program} {verb} call {nth}");
            let words: Vec<&str> = Some(verb).filter(|verb| !verb.is_empty()).into_iter().collect();
            let nothing = Action::Fail {
                code: 0,
                stderr: String::new(),
            };
            met(
                &before,
                USUAL,
                &what,
                simulated_host::fault(program, &words, nth, nothing),
            )
            .await;
        }
    }
}
