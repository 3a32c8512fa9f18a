//! A host that reboots in the middle of a job.

use std::{fs, io::Write as _, path::Path};

use super::{
    push::{Keeper, nothing_left, world},
    simulated_host::host,
    support::hold,
};

/// Counts to three, and to six when somebody at its console says so. A guest that was built without a shell there
/// gets one from here.
const WAITING: &str = "\
name: ci
on: push
jobs:
  count:
    steps:
      - name: Count
        run: |
          for i in 1 2 3; do echo \"line $i of 6\"; done
          grep -q ttyS0 /etc/inittab || sh </dev/ttyS0 >/dev/ttyS0 2>&1 &
          until [ -e /tmp/go ]; do sleep 0.1; done
          for i in 4 5 6; do echo \"line $i of 6\"; done
      - name: Finish
        run: echo done
";

/// Somebody types at the console of the only zone that runs.
fn type_on_the_console(line: &str) {
    let sim = host();
    for zone in sim.state().expect("a state").zones.keys() {
        let keys = sim.dir().join("console").join(format!("{zone}.in"));
        let keys = fs::OpenOptions::new().append(true).create(true).open(keys);
        keys.and_then(|mut keys| keys.write_all(line.as_bytes()))
            .expect("a console");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_host_that_reboots_in_mid_job_costs_the_job_one_machine() {
    let (mut world, keeper) = world("").await;
    let sha = world.push(WAITING).await;
    let job = world.wait_job(&sha, "count", "active")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    world.wait_counted(&job, 3);
    let rules = host().state().expect("a state").filter.rules;

    // Everything at once; what the kernel and /var/run held is gone.
    world.kill();
    drop(keeper);
    host().host_reboot().expect("a reboot");
    for gone in ["/run/helios-ci", "/run/machined.sock"] {
        illumos_sim::files::remove(Path::new(gone)).expect("a file of /var/run");
    }
    assert_eq!(super::real_guests::emulators(), Vec::<i32>::new());
    assert_eq!(host().state().expect("a state").filter.rules, rules);
    let keeper = Keeper::start(world.command(&["machined"]));
    world.up();

    world.until("the job succeeds", || {
        // A console may first want to be woken.
        type_on_the_console("\rtouch /tmp/go\r");
        let jobs = world.jobs(&sha);
        assert!(
            jobs.iter()
                .all(|job| job["state"] != "error" && job["state"] != "failure"),
            "{jobs:#?}"
        );
        jobs.iter().any(|job| job["state"] == "success").then_some(())
    });
    let detail = world.detail(&job);
    let tries = detail["attempts"].as_array().expect("attempts");
    assert_eq!(tries.len(), 2, "{detail:#}");
    let cause = tries[0]["cause"].as_str().unwrap_or_default();
    let log = |number: u32| {
        let path = format!("/api/v1/jobs/{job}/logs?try={number}");
        let port = world.url().rsplit(':').next().and_then(|port| port.parse().ok());
        let (status, log) = hold::http(port.expect("a port"), &path, world.token());
        assert_eq!(status, 200, "{log}");
        log
    };
    let (first, second) = (log(1), log(2));
    assert!(cause.ends_with(" was gone when the node came back"), "{detail:#}");
    assert!(tries[0]["result"].is_null(), "{detail:#}");
    assert_eq!(
        hold::counted(&first),
        ["line 1 of 6", "line 2 of 6", "line 3 of 6"],
        "{first}"
    );
    assert!(
        first.contains(&format!("The machine failed, not the job: {cause}")),
        "{first}"
    );
    hold::assert_counted(&second, 6, "the second try");
    world.wait(&sha, "success").await;
    let zones = host().trace().expect("a trace");
    let boots = zones
        .iter()
        .filter(|line| line.argv.last().is_some_and(|word| word == "boot") && line.exit == Some(0));
    assert_eq!(boots.count(), 2, "one for each try");
    assert_eq!(world.forge.violations(), []);
    nothing_left(&world, keeper);
}
