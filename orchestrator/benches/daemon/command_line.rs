//! What a command takes that asks the daemon for one small thing.

use std::{process::Command, time::Instant};

use crate::{
    api::{self, Api, TRIVIAL},
    support::Machines,
    table::{Goal, MS, Row, Table},
};

const TRIES: usize = 40;
const RUNS: usize = 20;

fn took_ms(command: &mut Command) -> f64 {
    let started = Instant::now();
    let output = command.output().expect("the command line");
    let took = started.elapsed().as_secs_f64() * 1000.0;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    took
}

pub async fn runs(table: &mut Table) {
    let world = api::start(Machines::Process, "").await;
    let api = Api::of(&world);
    for _ in 0..RUNS {
        let sha = world.push(TRIVIAL).await;
        api.planned(&world, &sha, "ci").await;
    }
    world.wait_clean();
    let (mut with, mut without, mut started, mut asked) = (vec![], vec![], vec![], vec![]);
    for _ in 0..TRIES {
        with.push(took_ms(&mut world.command(&["runs"])));
        started.push(took_ms(&mut world.command(&["version"])));
        without.push(took_ms(world.command(&["runs"]).env_remove("HELIOS_CI_TOKEN")));
        let begun = Instant::now();
        api.get("/api/v1/runs?limit=20").await;
        asked.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    const VERSION: &str = "`helios-ci version`";
    table.push(
        Row::new("`helios-ci runs` on loopback, with a token", MS, with)
            .beside(VERSION, started.clone())
            .goal(Goal::AtMost(25.0)),
    );
    table.push(
        Row::new("the same, with a token made for it in the database", MS, without)
            .beside(VERSION, started)
            .goal(Goal::AtMost(25.0)),
    );
    table.push(Row::new("the API's answer to it", MS, asked));
}
