//! `helios-ci run`: the workflow of a working tree, in machines as on the server, without one. A
//! store, a scheduler and a driver live for one run in a directory of their own.

mod place;
mod show;
mod tree;
pub(super) mod trial;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use miette::miette;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{place::Place, tree::Tree};
use super::{Common, Exit, Outcome, backend, parts, report};
use crate::{
    driver::Deps,
    machine::Machines,
    model::{
        ids::{InstanceId, RunId},
        names::CommitSha,
        trigger::{Event, Repository, Trigger},
    },
    node,
    planner::{WorkflowFile, decide},
    queue::{Hint, InProcess},
    scheduler,
    store::{CancelOutcome, NewRun, Store, TriggerOutcome},
    telemetry::Metrics,
    workflow,
};

/// Repositories of this machine have no forge; their checks are found as on Forgejo.
const KIND: &str = "forgejo";
/// How long the last machine may take to be gone.
const CLEAN_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C cancels: steps are interrupted and have time to clean up; a second time forces.

Images come from the configuration (--config), or from the folder $HELIOS_CI_GUEST, which holds a
disk.qcow2, a vmlinuz and an initrd.img.

Examples:
  helios-ci run
  helios-ci run .github/workflows/ci.yml --dirty")]
pub(super) struct RunArgs {
    /// The workflow file. Default: the one that a push would run.
    file: Option<PathBuf>,
    /// Run the working tree as it is, with changes that are not committed, instead of HEAD.
    #[arg(long)]
    dirty: bool,
    /// The branch or ref to run as, for filters and the environment. Default: the one checked out.
    #[arg(long, value_name = "REF")]
    r#as: Option<String>,
    /// Keep the run's directory, with database and logs.
    #[arg(long)]
    keep: bool,
    /// Accept the back end `process`, which isolates nothing. For tests and benchmarks.
    #[arg(long, hide = true)]
    allow_unisolated: bool,
}

pub(super) async fn run(common: &Common, args: RunArgs) -> Outcome {
    parts::private_files();
    parts::usable_git().await?;
    let tree = Tree::find(args.r#as.as_deref()).await?;
    let place = Place::make(common, args.keep, place::no_zones)?;
    let machines = backend::local(&place.config, args.allow_unisolated).await?;
    let once = Once::open(&place, machines).await?;
    let ended = once.run(&tree, args.file.as_deref(), args.dirty).await;
    once.close().await;
    place.leave();
    Ok(Exit::of_state(&ended?.1))
}

/// The parts of a daemon, for one run.
struct Once {
    deps: Deps,
    instance: InstanceId,
    lock: node::DataLock,
}

impl Once {
    async fn open(place: &Place, machines: Arc<dyn Machines>) -> miette::Result<Self> {
        let lock = node::DataLock::take(&place.config.data_dir).map_err(report)?;
        let store = Store::open(&place.config.database).await.map_err(report)?;
        let deps = parts::deps(parts::Outside {
            config: Arc::clone(&place.config),
            store,
            hints: Arc::new(InProcess::new()),
            forges: HashMap::new(),
            metrics: Metrics::new(),
            machines,
        })?;
        let instance = InstanceId::new();
        node::register(&deps, &lock, instance).await.map_err(report)?;
        Ok(Self { deps, instance, lock })
    }

    async fn close(self) {
        self.deps.store.close().await;
        drop(self.lock);
    }

    /// Plans, runs, shows, and leaves no machine; the run and its final state.
    async fn run(&self, tree: &Tree, file: Option<&Path>, dirty: bool) -> miette::Result<(RunId, String)> {
        let (deps, instance) = (&self.deps, self.instance);
        let repository = tree.repository();
        deps.source
            .adopt(&repository, &tree.root, &tree.head)
            .await
            .map_err(report)?;
        let commit = if dirty {
            let made = deps.source.snapshot(&repository, &tree.root, &tree.head).await;
            made.map_err(report)?
        } else {
            if tree.changed {
                eprintln!("note: changes that are not committed do not run; --dirty includes them");
            }
            tree.head.clone()
        };
        let file = pick(deps, &repository, &commit, tree, file).await?;
        let title = deps.source.commit_title(&repository, &commit).await.map_err(report)?;
        let (event, new) = plan(deps, file, tree, &commit)?;
        let run = store_run(deps, tree, &commit, event, title, new).await?;

        let (stop, attempts) = (CancellationToken::new(), TaskTracker::new());
        let scheduling = tokio::spawn(scheduler::run(deps.clone(), instance, attempts.clone(), stop.clone()));
        let beating = tokio::spawn(node::run(deps.clone(), instance, stop.clone()));
        let cancelling = tokio::spawn(cancel_on_signal(deps.clone(), run)?);
        deps.hints.notify(Hint::Job);
        let shown = show::until_the_end(deps, run).await;
        // Every attempt has ended; what is left are removals.
        let clean = clean(deps).await;
        cancelling.abort();
        stop.cancel();
        attempts.close();
        attempts.wait().await;
        let _ended = tokio::join!(scheduling, beating);
        let state = shown?;
        clean?;
        Ok((run, state))
    }
}

/// The file to run, as it is in the commit.
async fn pick(
    deps: &Deps,
    repository: &Repository,
    commit: &CommitSha,
    tree: &Tree,
    asked: Option<&Path>,
) -> miette::Result<WorkflowFile> {
    let path = match asked {
        Some(file) => tree.relative(file)?,
        None => {
            let places = workflow::listed(KIND);
            let places: Vec<&str> = places.iter().map(String::as_str).collect();
            let entries = deps
                .source
                .list_tree(repository, commit, &places)
                .await
                .map_err(report)?;
            let picked = workflow::pick(KIND, entries.iter().map(|entry| entry.path.as_str()));
            match picked.map(|pick| pick.files).unwrap_or_default().as_slice() {
                [only] => only.clone(),
                [] => {
                    return Err(miette!(
                        help = "commit one, for example .forgejo/workflows/ci.yml or .jci/run.sh, or use --dirty",
                        "the commit {} has no workflow file",
                        commit.short()
                    ));
                }
                several => {
                    return Err(miette!(
                        help = "name the one to run: `helios-ci run FILE`",
                        "there are several workflow files: {}",
                        several.join(", ")
                    ));
                }
            }
        }
    };
    let text = deps
        .source
        .read_file(repository, commit, &path, workflow::MAX_FILE)
        .await
        .map_err(|error| {
            let why = report(error);
            miette!(
                help = "a file that is not committed needs --dirty",
                "cannot read {path} in the commit {}: {why}",
                commit.short()
            )
        })?;
    Ok(WorkflowFile { path, text: Ok(text) })
}

/// What a push would run; else what a person may start.
fn plan(deps: &Deps, file: WorkflowFile, tree: &Tree, commit: &CommitSha) -> miette::Result<(Event, NewRun)> {
    let push = Event::Push {
        ref_name: tree.ref_name.clone(),
        commit: commit.clone(),
        before: None,
    };
    let files = [file];
    let manual = Event::Manual {
        ref_name: tree.ref_name.clone(),
        commit: Some(commit.clone()),
    };
    let (event, runs) = match decide(&files, &push, &deps.config) {
        Ok(runs) => (push, runs),
        Err(reason) => {
            let runs = decide(&files, &manual, &deps.config).map_err(|_| {
                miette!(
                    help = "`--as BRANCH` runs it as that branch",
                    "nothing to run on {}: {reason}",
                    tree.ref_name
                )
            })?;
            (manual, runs)
        }
    };
    let run = runs.into_iter().next().ok_or_else(|| miette!("nothing to run"))?;
    if let Err(complaints) = &run.plan {
        let lines: Vec<String> = complaints
            .iter()
            .map(|c| {
                let help = c.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
                format!("{}:{}:{}: {}{help}", c.file, c.line, c.column, c.message)
            })
            .collect();
        return Err(miette!("{}", lines.join("\n")));
    }
    Ok((event, run))
}

/// Stores the run as the planner would.
async fn store_run(
    deps: &Deps,
    tree: &Tree,
    commit: &CommitSha,
    event: Event,
    title: String,
    new: NewRun,
) -> miette::Result<RunId> {
    let trigger = Trigger {
        repository: tree.repository(),
        event,
        installation: None,
        actor: tree.person.clone(),
        title: title.clone(),
    };
    let id = deps
        .store
        .create_trigger(&trigger, &tree.person)
        .await
        .map_err(report)?;
    let claimed = deps
        .store
        .claim_trigger(&deps.config.node, Duration::from_secs(600))
        .await
        .map_err(report)?
        .filter(|claimed| claimed.id == id)
        .ok_or_else(|| miette!("the run's own database lost its trigger"))?;
    let outcome = TriggerOutcome::Planned {
        commit: commit.clone(),
        title,
        runs: vec![new],
    };
    let made = deps
        .store
        .finish_trigger(id, claimed.epoch, outcome)
        .await
        .map_err(report)?;
    made.and_then(|runs| runs.first().copied())
        .ok_or_else(|| miette!("the run's own database lost its run"))
}

/// Ctrl-C and SIGTERM ask for the run's end, each time again.
fn cancel_on_signal(deps: Deps, run: RunId) -> miette::Result<impl Future<Output = ()>> {
    let failed = |e: std::io::Error| miette!("cannot wait for signals: {e}");
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt()).map_err(failed)?,
        signal(SignalKind::terminate()).map_err(failed)?,
    );
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match deps.store.cancel_run(run, "you", "interrupted").await {
                Ok(CancelOutcome::Requested { running, forced, .. }) => {
                    eprintln!(
                        "{}",
                        if forced {
                            "forced"
                        } else {
                            "cancelling; a second time forces"
                        }
                    );
                    for attempt in running {
                        deps.hints.notify(Hint::Cancel(attempt));
                    }
                    deps.hints.notify(Hint::Run(run));
                }
                Ok(_) => {}
                Err(error) => eprintln!("cannot cancel: {error}"),
            }
        }
    })
}

/// Waits until no machine is left.
async fn clean(deps: &Deps) -> miette::Result<()> {
    let gone = async {
        loop {
            match deps.machines.list().await {
                Ok(left) if left.is_empty() => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(CLEAN_WITHIN, gone).await.map_err(|_| {
        miette!(
            "machines are left in {}: remove them by hand",
            deps.config.data_dir.display()
        )
    })
}
