//! In which order the lines of a program that writes to both of its streams reach the node, and how fast one stream
//! does. `cargo bench -p helios-agent --bench order`.
#![allow(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::{
    fs::{self, File},
    io::Write,
    os::fd::{FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use helios_agent::{agent::Agent, seed::Seed};
use helios_proto::v1::{self, command, event::Event, output::Stream};

const LINES: u32 = 10_000;
const FLOOD_MIB: usize = 1024;
const BLOCK: usize = 64 << 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--write", pattern, lines, pause_us] => {
            return write(
                pattern,
                lines.parse().unwrap(),
                Duration::from_micros(pause_us.parse().unwrap()),
            );
        }
        ["--flood", mib, block] => return flood(mib.parse().unwrap(), block.parse().unwrap()),
        _ => {}
    }
    println!("lines that arrive after a line that was written later, of {LINES}");
    println!("{:44} {:>10} {:>10}", "", "idle", "busy");
    let shell = "i=0; while [ $i -lt 10000 ]; do echo $i; echo $((i+1)) >&2; i=$((i+2)); done";
    let me = std::env::current_exe().unwrap().display().to_string();
    let writer = |pattern: &str, lines: u32, pause_us: u32| {
        let words = [&me, "--write", pattern, &lines.to_string(), &pause_us.to_string()];
        words.map(str::to_owned).to_vec()
    };
    for (what, argv, scale) in [
        ("one write a line, alternating", writer("alternating", LINES, 0), 1),
        ("one write a line, at random", writer("random", LINES, 0), 1),
        ("one write a line, a run of 50 then one", writer("runs", LINES, 0), 1),
        ("the same after 4 MiB of one stream", writer("late", LINES, 0), 1),
        (
            "a shell's echo, alternating",
            ["sh", "-c", shell].map(str::to_owned).to_vec(),
            1,
        ),
        (
            "1 ms apart, alternating (of 2500, times 4)",
            writer("alternating", LINES / 4, 1000),
            4,
        ),
    ] {
        let idle = scale * misplaced(&run(&argv).0);
        let busy = scale * hogged(|| misplaced(&run(&argv).0));
        println!("{what:44} {idle:>10} {busy:>10}");
    }
    for (what, block) in [
        ("64 KiB a write", BLOCK),
        ("4 KiB a write", 4096),
        ("100 bytes a write", 100),
    ] {
        let mib = if block < 4096 { FLOOD_MIB / 16 } else { FLOOD_MIB };
        let argv = [&me, "--flood", &mib.to_string(), &block.to_string()].map(str::to_owned);
        let mut rates: Vec<f64> = (0..5).map(|_| mib as f64 / run(&argv).1.as_secs_f64()).collect();
        rates.sort_by(f64::total_cmp);
        println!(
            "one stream, {what}: {:.0} MiB/s (of five, {:.0} to {:.0})",
            rates[2], rates[0], rates[4]
        );
    }
}

/// Runs while every processor has two others to serve.
fn hogged<T>(run: impl FnOnce() -> T) -> T {
    let over = Arc::new(AtomicBool::new(false));
    let count = 2 * thread::available_parallelism().map_or(1, usize::from);
    let hogs: Vec<_> = (0..count)
        .map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let result = run();
    over.store(true, Ordering::Relaxed);
    hogs.into_iter().for_each(|hog| hog.join().unwrap());
    result
}

/// Runs a program under an agent whose node takes everything at once. Returns what came, in order, and how long that took.
fn run(argv: &[String]) -> (Vec<(Stream, Vec<u8>)>, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let seed = serde_json::json!({
        "version": 1, "attempt": "01J9ZP7Q3V8Y2M4N6R5T0W1X2Y", "agent": "unix:/nonexistent", "git": "127.0.0.1:9418",
        "fingerprint": "ab".repeat(32), "token": "hjt_0123456789abcdefghijklmnop", "time_ms": 1_790_000_000_000_i64,
        "state_dir": dir.path(), "power_off": false,
    });
    fs::write(dir.path().join("helios.json"), seed.to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let agent = Agent::new(Seed::read(dir.path()).unwrap()).unwrap();
        agent.outbox.set_connected(true);
        let path = v1::EnvVar {
            name: "PATH".into(),
            value: b"/usr/local/bin:/usr/bin:/bin".to_vec(),
        };
        agent.apply(v1::Command {
            exec_id: 1,
            command: Some(command::Command::Exec(v1::Exec {
                argv: argv.to_vec(),
                env: vec![path],
                cwd: "/".into(),
                ..v1::Exec::default()
            })),
        });
        let (mut came, mut begun) = (Vec::new(), Instant::now());
        for sequence in 0.. {
            let event = agent.outbox.next(sequence).await.unwrap();
            agent.outbox.acknowledge(sequence + 1);
            match event.event {
                Some(Event::Started(_)) => begun = Instant::now(),
                Some(Event::Output(output)) => came.push((output.stream(), output.data.to_vec())),
                Some(Event::Exited(_)) => break,
                other => panic!("{other:?}"),
            }
            // A flood is only timed.
            came.pop_if(|(_, data): &mut (Stream, Vec<u8>)| data.first() == Some(&0));
        }
        (came, begun.elapsed())
    })
}

/// How many lines come after one that was written later.
fn misplaced(came: &[(Stream, Vec<u8>)]) -> u32 {
    let mut parts = [Vec::new(), Vec::new()];
    let (mut newest, mut misplaced, mut lines) = (0, 0, 0);
    for (stream, data) in came {
        let part = &mut parts[usize::from(*stream == Stream::Stderr)];
        for byte in data {
            if *byte != b'\n' {
                part.push(*byte);
                continue;
            }
            let number: u32 = String::from_utf8(std::mem::take(part)).unwrap().parse().unwrap();
            lines += 1;
            misplaced += u32::from(number < newest);
            newest = newest.max(number);
        }
    }
    assert!([LINES, LINES + 1, LINES / 4].contains(&lines), "{lines} lines came");
    misplaced
}

/// The program under test: numbered lines, one write each.
#[allow(
    clippy::disallowed_methods,
    reason = "the pause between the lines is what is measured"
)]
fn write(pattern: &str, lines: u32, pause: Duration) {
    // SAFETY: the two descriptors that every program starts with; nothing else here uses them.
    let mut streams = [1, 2].map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    if pattern == "late" {
        // One line, numbered as the first.
        let mut first = vec![b'0'; 4 << 20];
        first.push(b'\n');
        streams[0].write_all(&first).unwrap();
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for number in 0..lines {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let stream = match pattern {
            "alternating" => number % 2 == 1,
            "runs" => number % 51 == 50,
            "late" => number % 7 == 6,
            _ => random % 2 == 1,
        };
        streams[usize::from(stream)]
            .write_all(format!("{number}\n").as_bytes())
            .unwrap();
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
}

fn flood(mib: usize, block: usize) {
    // SAFETY: as above.
    let mut stdout = File::from(unsafe { OwnedFd::from_raw_fd(1) });
    let data = vec![0; block];
    for _ in 0..(mib << 20) / block {
        stdout.write_all(&data).unwrap();
    }
}
