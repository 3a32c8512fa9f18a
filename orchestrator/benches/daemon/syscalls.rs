//! How often a job of one line makes the disk wait, and how many files are opened for it: by the daemon, its agent and
//! all that these start.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    api::{self, Api, TRIVIAL, ms},
    support::{Machines, World, hold},
    table::{COUNT, Goal, Row, Table},
};

const TRIES: usize = 5;
const GLANCE: Duration = Duration::from_millis(50);
const TOLD: Duration = Duration::from_secs(1);
const SYNCS: [&str; 4] = ["fsync", "fdatasync", "sync_file_range", "syncfs"];
const OPENS: [&str; 2] = ["open", "openat"];

/// What a process and its children ask of the kernel.
struct Trace {
    strace: Child,
    file: PathBuf,
}

/// One call, by its name and the time of its begin in milliseconds since 1970.
struct Call {
    at: f64,
    name: String,
}

impl Trace {
    /// None where there is no strace, or it may not look.
    fn of(world: &World) -> Option<Self> {
        let file = world.dir.path().join("trace");
        let calls: Vec<&str> = SYNCS.into_iter().chain(OPENS).collect();
        let mut strace = Command::new("strace")
            .args([
                "-f",
                "-ttt",
                "-e",
                "signal=none",
                "-e",
                &format!("trace={}", calls.join(",")),
            ])
            .args(["-p", &world.pid().to_string(), "-o"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut said = BufReader::new(strace.stderr.take()?).lines().map_while(Result::ok);
        // It says so once for all threads that there are.
        if said.any(|line| line.contains("attached")) {
            // What it says of each new process must go somewhere: a closed pipe ends it, and what it looks at stands still.
            std::thread::spawn(move || said.for_each(drop));
            return Some(Self { strace, file });
        }
        strace.wait().ok();
        None
    }

    fn calls(mut self) -> Vec<Call> {
        let ended = self.strace.try_wait().expect("strace is a child");
        assert!(ended.is_none(), "strace did not see everything: {ended:?}");
        let pid = i32::try_from(self.strace.id()).expect("a pid");
        hold::signal(pid, nix::sys::signal::Signal::SIGINT);
        self.strace.wait().expect("strace ends");
        let text = fs::read_to_string(&self.file).expect("its file");
        // `1234 1700000000.123456 fsync(7) = 0`; a call that another interrupts has a second line without its bracket.
        let calls = text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let at = fields.next()?.parse::<f64>().ok()? * 1000.0;
            let (name, _) = fields.next()?.split_once('(')?;
            Some(Call {
                at,
                name: name.to_owned(),
            })
        });
        calls.collect()
    }
}

/// Calls of these names, up to a time.
fn count(calls: &[Call], names: &[&str], until: f64) -> f64 {
    let counted = calls
        .iter()
        .filter(|call| call.at <= until && names.contains(&call.name.as_str()));
    counted.count() as f64
}

pub async fn counts(table: &mut Table) {
    let world = api::start(Machines::Process, "").await;
    let api = Api::of(&world);
    let sha = world.push(TRIVIAL).await;
    let run = api.planned(&world, &sha, "ci").await;
    let (mut before, mut syncs, mut opens) = (vec![], vec![], vec![]);
    for _ in 0..TRIES {
        world.wait_clean();
        let Some(trace) = Trace::of(&world) else { break };
        let jobs = api.rerun(&run).await;
        let job = loop {
            let job = api.job(&jobs[0]).await;
            if job["ended"].is_string() {
                break job;
            }
            tokio::time::sleep(GLANCE).await;
        };
        world.wait_clean();
        // What it still has to tell the forge.
        tokio::time::sleep(TOLD).await;
        let mut calls = trace.calls();
        let queued = ms(&job["queued"]);
        let line = api.first_line(&jobs[0]).await;
        // The request to run it again is noted before.
        calls.retain(|call| call.at >= queued);
        before.push(count(&calls, &SYNCS, line));
        syncs.push(count(&calls, &SYNCS, f64::INFINITY));
        opens.push(count(&calls, &OPENS, f64::INFINITY));
    }
    let remark = match syncs.len() {
        0 => "not counted: there is no `strace` that may look at the daemon",
        _ => "by `strace -f` of daemon, agent and what they start",
    };
    let rows = [
        Row::new("syncs, queued → first line written", COUNT, before).goal(Goal::AtMost(8.0)),
        Row::new("syncs of a job of one line", COUNT, syncs).goal(Goal::AtMost(14.0)),
        Row::new("files opened for it", COUNT, opens),
    ];
    for row in rows {
        table.push(row.remark(remark));
    }
}
