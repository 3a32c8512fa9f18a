//! `helios-ci image verify LABEL --boot`: one machine of an image, made and driven as for a job, in which the things
//! are tried that a golden disk can be wrong about.

mod patient;

use std::path::Path;

use miette::miette;

use self::patient::{Gone, Patient};
use super::{Asked, Once, run_dir::RunDir, tree::Tree};
use crate::{
    cli::{
        Common, Exit, Outcome, report,
        wiring::{backend, parts},
    },
    clock::now_ms,
    config::{Backend, Capacity, Config},
    daemon::Deps,
    exec::Cmd,
    images::qcow2,
    logs::Position,
    machine::zone::{command::zfs, golden::Golden},
    model::{ids::RunId, names::Label, state::StepState},
    node::DataLock,
};

/// The sample's only file.
const FILE: &str = ".forgejo/workflows/image.yml";
/// How far a clock may be off when a step looks at it, in seconds.
const CLOCK: i64 = 10;

/// What was found of one thing.
struct Finding {
    name: &'static str,
    good: bool,
    detail: String,
}

/// Boots one machine from the image and says what is well.
pub(in crate::cli) async fn run(common: &Common, label: &Label) -> Outcome {
    parts::private_files();
    let mut golden = 0;
    let run_dir = RunDir::make(common, false, None, |config| {
        // The trial turns its machine off, which must not be this host.
        if config.backend == Backend::Process {
            return Err(miette!(
                help = "use `backend: qemu`",
                "the back end `process` has no machine to boot"
            ));
        }
        if config.backend == Backend::Zone && DataLock::is_held(&config.data_dir).map_err(report)? {
            return Err(miette!(
                help = "svcadm disable -t helios-ci; jobs that run go on, and are taken up when it is enabled again",
                "the daemon runs, and would remove a machine that belongs to no job"
            ));
        }
        golden = golden_bytes(config, label)?;
        adapt(config, label, golden)
    })?;
    let sample = tempfile::tempdir().map_err(|e| miette!("cannot make a directory: {e}"))?;
    let tree = sample_tree(sample.path(), label).await?;
    let machines = Patient::new(backend::machines(&run_dir.config, false).await?);
    let once = Once::open(&run_dir, machines.clone()).await?;
    let began = now_ms();
    let asked = Asked {
        file: Some(&sample.path().join(FILE)),
        dirty: false,
        logs: None,
    };
    let ended = once.run(&tree, &asked).await;
    let findings = match ended {
        Ok(Some((run, _))) => judge(&once.deps, run, golden, began, machines.gone()).await,
        Ok(None) => Err(miette!("interrupted before a machine was made")),
        Err(error) => Err(error),
    };
    once.close().await;
    run_dir.leave();
    let findings = findings?;
    for Finding { name, good, detail } in &findings {
        println!("{:<8} {name}: {detail}", if *good { "ok" } else { "FAILURE" });
    }
    let failed = findings.iter().filter(|finding| !finding.good).count();
    Ok(if failed == 0 {
        println!("{label}: ready for jobs: a machine of it booted, did what a job needs, and turned itself off");
        Exit::Success
    } else {
        println!(
            "{label}: not ready for jobs: {failed} of {} things failed",
            findings.len()
        );
        Exit::Failure
    })
}

/// The golden disk's size as the guest sees it.
fn golden_bytes(config: &Config, label: &Label) -> miette::Result<u64> {
    let image = config
        .images
        .get(label)
        .ok_or_else(|| miette!(help = "helios-ci image list", "no image {label} is configured"))?;
    if config.backend == Backend::Zone {
        let images = Golden {
            node: config.node.clone(),
            root: config.zone.dataset.clone(),
        };
        let newest = images.versions(label).map_err(report)?.pop();
        let newest =
            newest.ok_or_else(|| miette!(help = "helios-ci image import", "there is no golden disk {label}"))?;
        let output = zfs::query(&newest.volume).run_blocking().map_err(report)?;
        let seen = zfs::dataset(&newest.volume, &output).map_err(report)?;
        return seen
            .and_then(|seen| seen.volsize)
            .ok_or_else(|| miette!("zfs says no size of {}", newest.volume));
    }
    let disk = image
        .disk
        .as_ref()
        .ok_or_else(|| miette!("image {label} has no disk configured"))?;
    Ok(qcow2::read(disk)
        .map_err(|e| miette!("{}: {e}", disk.display()))?
        .virtual_size)
}

/// What the machine's disk has.
fn larger_gib(golden: u64) -> u64 {
    golden.div_ceil(1 << 30) + 2
}

/// One machine, one try, and a disk to grow into.
fn adapt(config: &mut Config, label: &Label, golden: u64) -> miette::Result<()> {
    config.capacity = Capacity {
        machines: 1,
        cpus: None,
        memory_mib: None,
        labels: std::collections::BTreeMap::new(),
    };
    config.limits.infra_tries = 1;
    let image = config.images.get_mut(label);
    let image = image.ok_or_else(|| miette!("no image {label} is configured"))?;
    image.size.disk_gib = Some(larger_gib(golden));
    Ok(())
}

/// The job: source over the machine's own link, what the guest says of itself, and its end, in which the last step may
/// be ended too.
fn workflow(label: &Label) -> String {
    format!(
        "name: image
on: push
jobs:
  image:
    runs-on: {label}
    timeout-minutes: 20
    steps:
      - uses: actions/checkout@v4
      - name: Look
        run: |
          test -s {FILE}
          echo \"clock $(date +%s)\"
          df -k / | tail -n 1
      - name: Power off
        run: |
          if [ \"$(id -u)\" = 0 ]; then as=; else as='sudo -n'; fi
          $as poweroff || $as /usr/sbin/shutdown -y -i5 -g0
"
    )
}

/// A repository that holds it.
async fn sample_tree(dir: &Path, label: &Label) -> miette::Result<Tree> {
    let file = dir.join(FILE);
    let folder = file.parent().unwrap_or(dir);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, workflow(label)))
        .map_err(|e| miette!("cannot write {}: {e}", file.display()))?;
    let git = |args: &[&str]| Cmd::new("git").arg("-C").arg(dir).args(args).run();
    let person = ["-c", "user.name=helios-ci", "-c", "user.email=helios-ci@localhost"];
    git(&["init", "--quiet"]).await.and_then(|o| o.ok()).map_err(report)?;
    git(&["add", "--all"]).await.and_then(|o| o.ok()).map_err(report)?;
    let commit = [
        &person[..],
        &["commit", "--quiet", "--no-gpg-sign", "-m", "Look at an image"],
    ]
    .concat();
    git(&commit).await.and_then(|o| o.ok()).map_err(report)?;
    // Nobody's settings: what is tried is the image.
    let mut tree = Tree::find(dir, [], Some("main")).await?;
    "image verify".clone_into(&mut tree.person);
    Ok(tree)
}

/// What the ended job tells of the image.
async fn judge(deps: &Deps, run: RunId, golden: u64, began: i64, gone: Option<Gone>) -> miette::Result<Vec<Finding>> {
    let lost = || miette!("the trial is gone from its own database");
    let detail = deps.store.run(run).await.map_err(report)?.ok_or_else(lost)?;
    let job = detail.attempts.last().and_then(|a| a.jobs.first()).ok_or_else(lost)?;
    let steps = deps.store.job(job.id).await.map_err(report)?.ok_or_else(lost)?.steps;
    let passed = |n: usize| steps.get(n).is_some_and(|step| step.state == StepState::Success);
    let log = match job.attempt {
        Some(attempt) => read_log(deps, attempt).await?,
        None => String::new(),
    };
    let reason = job.reason.clone().unwrap_or_default();
    let finding = |name, good, detail: String| Finding { name, good, detail };
    let Some(started) = job.started_ms else {
        return Ok(vec![finding("hello", false, reason)]);
    };
    let mut findings = vec![
        finding(
            "hello",
            true,
            format!(
                "its agent spoke after {:.1} s",
                (started - began).max(0) as f64 / 1000.0
            ),
        ),
        finding(
            "network",
            passed(0),
            if passed(0) {
                "it fetched a commit from its node".to_owned()
            } else {
                format!("it could not fetch a commit from its node: {reason}")
            },
        ),
    ];
    if !passed(0) {
        return Ok(findings);
    }
    findings.push(clock(&log, began, now_ms()));
    findings.push(growth(&log, golden));
    findings.push(match gone {
        Some(Gone::ByItself(after)) => finding(
            "shutdown",
            true,
            format!("it turned itself off within {:.1} s", after.as_secs_f64()),
        ),
        Some(Gone::NotWithin(limit)) => finding(
            "shutdown",
            false,
            format!("it did not turn itself off within {} s", limit.as_secs()),
        ),
        None => finding("shutdown", false, format!("it was gone before its job ended: {reason}")),
    });
    Ok(findings)
}

/// The clock as a step saw it, between the beginning and the end of the trial by ours.
fn clock(log: &str, began: i64, ended: i64) -> Finding {
    let seen = log
        .lines()
        .find_map(|line| line.strip_prefix("clock ")?.trim().parse::<i64>().ok());
    let good = seen.is_some_and(|seen| (began / 1000 - CLOCK..=ended / 1000 + CLOCK).contains(&seen));
    let stepped = log.lines().find(|line| line.contains("clock was off by"));
    Finding {
        name: "clock",
        good,
        detail: match (seen, stepped) {
            (None, _) => "no step could tell it".to_owned(),
            (Some(_), Some(line)) => line.trim().to_owned(),
            (Some(_), None) if good => "right from the beginning".to_owned(),
            (Some(seen), None) => format!("it is {seen} s since 1970 there, and {} here", ended / 1000),
        },
    }
}

/// Whether the root filesystem grew into the disk that is larger than the golden one.
fn growth(log: &str, golden: u64) -> Finding {
    // df's columns are device, size, used, free, part and place, the place being `/`.
    let size = log
        .lines()
        .filter(|line| line.trim_end().ends_with(" /"))
        .find_map(|line| {
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib * 1024)
        });
    Finding {
        name: "growth",
        // No filesystem on the golden disk could be as large as that disk.
        good: size.is_some_and(|size| size >= golden),
        detail: match size {
            Some(size) => format!(
                "its root filesystem has {} MiB; the golden disk has {} MiB and this one {} MiB",
                size >> 20,
                golden >> 20,
                larger_gib(golden) << 10
            ),
            None => "no step could tell the root filesystem's size".to_owned(),
        },
    }
}

async fn read_log(deps: &Deps, attempt: crate::model::ids::AttemptId) -> miette::Result<String> {
    use futures::StreamExt as _;

    let mut text = Vec::new();
    let mut pages = std::pin::pin!(deps.logs.follow(attempt, Position::START));
    while let Some(page) = pages.next().await {
        for record in page.map_err(report)?.records {
            text.extend_from_slice(&record.data);
            if !record.data.ends_with(b"\n") {
                text.push(b'\n');
            }
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_right_between_beginning_and_end() {
        let at = |log: &str| clock(log, 1_000_000_000, 1_000_060_000).good;
        assert!(at("x\nclock 1000030\n") && at("clock 1000000"));
        assert!(!at("clock 1003600") && !at("clock 0") && !at("") && !at("clock soon"));
    }

    #[test]
    fn growth_is_more_than_the_golden_disk_had() {
        let golden = 3 << 30;
        let of = |log: &str| growth(log, golden).good;
        assert!(of("/dev/vda2  5000000 1 2 3% /\n"));
        assert!(!of("/dev/vda2  3000000 1 2 3% /\n"), "what the golden disk had");
        assert!(!of("/dev/vda2  5000000 1 2 3% /boot\n") && !of(""));
    }
}
