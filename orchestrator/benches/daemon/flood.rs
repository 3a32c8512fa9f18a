//! A million lines through agent, TLS, masks, file and acknowledgement; what they leave of memory; and how soon a job ends
//! that printed so much.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    api::{self, Api, ms},
    process,
    support::{self, Machines, World, hold},
    table::{Goal, MIB, MS, Row, Table, Unit},
};

pub const LINES: usize = 1_000_000;
const ROUNDS: usize = 7;
/// Between two looks at the agent's memory.
const GLANCE: Duration = Duration::from_millis(10);
const RATE: Unit = Unit("M lines/s");

/// Lines of 62 bytes as a build prints them.
fn text() -> Vec<u8> {
    let mut text = Vec::with_capacity(LINES * 62);
    for number in 0..LINES {
        writeln!(
            text,
            "{number:>8} Compiling crate-{:07x} of many, and some more words",
            number * 2_654_435_761 % 0xfff_ffff
        )
        .expect("memory");
    }
    assert_eq!(text.len(), LINES * 62);
    text
}

/// A file on the disk of the logs, written with the syncs that a log gets: seconds.
fn floor(path: &Path, text: &[u8]) -> f64 {
    let started = Instant::now();
    let mut file = fs::File::create(path).expect("a file");
    let mut synced = Instant::now();
    for piece in text.chunks(64 << 10) {
        file.write_all(piece).expect("a write");
        if synced.elapsed() > Duration::from_millis(20) {
            file.sync_data().expect("a sync");
            synced = Instant::now();
        }
    }
    file.sync_data().expect("a sync");
    started.elapsed().as_secs_f64()
}

/// A job that prints the file, beside one that needs the machine next.
fn workflow(name: &str, masks: usize, print: &str) -> String {
    let masks: String = (0..masks)
        .map(|n| format!("          echo '::add-mask::tok{n:02}-{:032x}'\n", n * 7_919))
        .collect();
    format!(
        "name: {name}\non: push\njobs:\n  prints:\n    steps:\n      - run: |\n          true\n{masks}      - run: {print}\n  \
         next:\n    steps:\n      - run: echo next\n"
    )
}

/// One job that printed, and the next on its machine's place.
struct Printed {
    /// Of the step that printed.
    seconds: f64,
    /// From that step's end to the job's.
    end_ms: f64,
    /// From that step's end to the claim of the next job.
    next_ms: f64,
}

fn printed(job: &Value, next: &Value) -> Printed {
    let step = &job["steps"][1];
    let ended = ms(&step["ended"]);
    Printed {
        seconds: (ended - ms(&step["started"])) / 1000.0,
        end_ms: ms(&job["ended"]) - ended,
        next_ms: ms(&next["attempts"][0]["created"]) - ended,
    }
}

async fn again(api: &Api, run: &str) -> Printed {
    let jobs = api.rerun(run).await;
    let [prints, next] = jobs.as_slice() else {
        panic!("{jobs:?} are not two jobs");
    };
    // Not by the long log's stream, which would be measured as well.
    let next = api.ended(next).await;
    printed(&api.job(prints).await, &next)
}

/// The most memory that the agent had meanwhile, in mebibytes.
async fn watching_the_agent<T>(world: &World, what: impl Future<Output = T>) -> (T, f64) {
    let folder = world.dir.path().display().to_string();
    let mut peak = 0_f64;
    let mut agent = None;
    tokio::pin!(what);
    loop {
        tokio::select! {
            done = &mut what => return (done, peak),
            () = tokio::time::sleep(GLANCE) => {}
        }
        // The first is the job's; the next job's comes when that is gone.
        if agent.is_none() {
            agent = hold::processes(&["helios-agent", &folder]).first().copied();
        }
        peak = peak.max(agent.map_or(0.0, process::peak_mib));
    }
}

pub async fn process(table: &mut Table) {
    let extra = "limits: {log_bytes: 1GiB}\ncapacity: {machines: 1}\n";
    let world = api::start(Machines::Process, extra).await;
    let api = Api::of(&world);
    let (text, file) = (text(), world.dir.path().join("lines"));
    fs::write(&file, &text).expect("the lines");
    let cat = format!("cat {}", file.display());
    let files = [
        ("plain", 0, cat.as_str()),
        ("masked", 40, &cat),
        ("short", 0, "echo short"),
    ]
    .map(|(name, masks, print)| {
        let path = format!(".forgejo/workflows/{name}.yml");
        (path, workflow(name, masks, print).into_bytes(), 0o644)
    });
    let files: Vec<_> = files
        .iter()
        .map(|(path, text, mode)| (path.as_str(), text.clone(), *mode))
        .collect();
    let pushed = world.forge.push(world.repository, "main", &files, "Print").await;
    let sha = pushed.expect("a push");
    let plain = api.planned(&world, &sha, "plain").await;
    let masked = api.planned(&world, &sha, "masked").await;
    let short = api.planned(&world, &sha, "short").await;
    let (mut rates, mut with_masks, mut floors) = (vec![], vec![], vec![]);
    let (mut ends, mut short_ends, mut nexts, mut short_nexts) = (vec![], vec![], vec![], vec![]);
    let (mut agents, mut grown) = (vec![], vec![]);
    let rate = |seconds: f64| LINES as f64 / seconds / 1e6;
    for _ in 0..ROUNDS {
        floors.push(rate(floor(&world.dir.path().join("floor"), &text)));
        world.wait_clean();
        let before = process::resident_mib(world.pid());
        process::forget_peak(world.pid());
        let (flood, agent) = watching_the_agent(&world, again(&api, &plain)).await;
        grown.push((process::peak_mib(world.pid()) - before).max(0.0));
        agents.push(agent);
        rates.push(rate(flood.seconds));
        ends.push(flood.end_ms);
        nexts.push(flood.next_ms);
        with_masks.push(rate(again(&api, &masked).await.seconds));
        let short = again(&api, &short).await;
        short_ends.push(short.end_ms);
        short_nexts.push(short.next_ms);
    }
    const FLOOR: &str = "plain write, `fdatasync` each 20 ms";
    table.push(
        Row::new("1 M lines of 62 bytes, agent → durable log", RATE, rates)
            .beside(FLOOR, floors.clone())
            .goal_of_ratio(Goal::AtLeast(0.35)),
    );
    table.push(Row::new("the same with 40 masks", RATE, with_masks).beside(FLOOR, floors));
    table.push(Row::new("agent, peak resident in the flood", MIB, agents).goal(Goal::AtMost(6.0)));
    table.push(Row::new("daemon's growth in the flood", MIB, grown).goal(Goal::AtMost(4.0)));
    let more = |long: &[f64], short: &[f64]| long.iter().zip(short).map(|(long, short)| long - short).collect();
    table.push(
        Row::new("end of a job, later for 62 MB of log", MS, more(&ends, &short_ends))
            .goal(Goal::AtMost(20.0))
            .remark("step's end → job's end, less that of a job of one line in turn"),
    );
    table.push(
        Row::new(
            "its machine's place taken by the next job, later for 62 MB",
            MS,
            more(&nexts, &short_nexts),
        )
        .goal(Goal::AtMost(20.0))
        .remark("step's end → claim of the next job, likewise"),
    );
    let size = fs::metadata(support::agent()).map_or(0, |m| m.len());
    table.push(Row::new("agent, size", Unit("MB"), vec![size as f64 / 1e6]).goal(Goal::AtMost(3.0)));
}
