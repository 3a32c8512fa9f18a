//! `helios-ci run`: the workflow of a working tree, in machines as on the server, without one. A
//! store, a scheduler and a driver live for one run in a directory of their own.

mod complaints;
pub(in crate::cli) mod guest;
pub(in crate::cli) mod pull;
mod run_dir;
mod show;
mod tree;
pub(in crate::cli) mod trial;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use miette::miette;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{complaints::Complaints, run_dir::RunDir, tree::Tree};
use crate::{
    cli::{
        Common, Exit, Outcome, report,
        wiring::{backend, parts},
    },
    daemon::Deps,
    foreign_text,
    forge::FORGEJO_WORKFLOWS,
    machine::Machines,
    model::{
        ids::{InstanceId, RunId},
        names::CommitSha,
        plan::{Action, CHECKOUT, Template},
        state::RunState,
        trigger::{Event, RefCause, RefEvent, Repository, Trigger},
    },
    node,
    planner::{WorkflowFile, decide},
    queue::{Hint, InProcess},
    scheduler,
    source::Objects,
    store::{CancelOutcome, NewRun, Store, TriggerOutcome},
    telemetry::Metrics,
    workflow::{self, Defaults},
};

/// How long the last machine may take to be gone.
const CLEAN_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C cancels: steps are interrupted and have time to clean up; a second time forces.

Images come from the configuration. Without one it is the tiny guest: of --guest, of $HELIOS_CI_GUEST, of the source that
this program was built in (`make guest`), or of the user's cache, where `make guest` and `helios-ci image pull-tiny` put
it.

What git ignores does not run, neither does what a sparse checkout keeps off the disk change; a partial clone's git
fetches what it lacks of the commit.

Examples:
  helios-ci run
  helios-ci run .github/workflows/ci.yml --dirty")]
pub(in crate::cli) struct RunArgs {
    /// The workflow file. Default: the one that a push would run.
    file: Option<PathBuf>,
    /// Run the working tree as it is, with changes that are not committed, instead of HEAD.
    #[arg(long)]
    dirty: bool,
    /// The branch or ref to run as, for filters and the environment. Default: the one checked out.
    #[arg(long, value_name = "REF")]
    r#as: Option<String>,
    /// Keep the run's directory, with database and logs, and say how to read them.
    #[arg(long)]
    keep: bool,
    /// A folder with the tiny guest: disk.qcow2, vmlinuz and initrd.img. No configuration is read then.
    #[arg(long, value_name = "FOLDER")]
    guest: Option<PathBuf>,
    /// Accept the back end `process`, which isolates nothing. For tests and benchmarks.
    #[arg(long, hide = true)]
    allow_unisolated: bool,
}

pub(in crate::cli) async fn run(common: &Common, args: RunArgs) -> Outcome {
    parts::private_files();
    parts::usable_git().await?;
    let here = std::env::current_dir().map_err(|e| miette!("there is no current folder: {e}"))?;
    let tree = Tree::find(&here, std::env::vars_os(), args.r#as.as_deref()).await?;
    let run_dir = RunDir::make(common, args.keep, args.guest.as_deref(), run_dir::no_zones)?;
    let ended = in_run_dir(&run_dir, &tree, &args).await;
    run_dir.leave();
    Ok(Exit::of_run(ended?))
}

async fn in_run_dir(run_dir: &RunDir, tree: &Tree, args: &RunArgs) -> miette::Result<RunState> {
    let machines = backend::local(&run_dir.config, args.allow_unisolated).await?;
    let once = Once::open(run_dir, machines).await?;
    let asked = Asked {
        file: args.file.as_deref(),
        dirty: args.dirty,
        logs: run_dir.logs(),
    };
    let ended = once.run(tree, &asked).await;
    once.close().await;
    Ok(ended?.map_or(RunState::Cancelled, |(_, state)| state))
}

/// What of a tree is to run, and where its logs are kept as text.
struct Asked<'a> {
    file: Option<&'a Path>,
    dirty: bool,
    logs: Option<&'a Path>,
}

/// The parts of a daemon, for one run.
struct Once {
    deps: Deps,
    instance: InstanceId,
    lock: node::DataLock,
}

impl Once {
    async fn open(run_dir: &RunDir, machines: Arc<dyn Machines>) -> miette::Result<Self> {
        let lock = node::DataLock::take(&run_dir.config.data_dir).map_err(report)?;
        let store = Store::open(&run_dir.config.database).await.map_err(report)?;
        let deps = parts::deps(parts::Outside {
            config: Arc::clone(&run_dir.config),
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

    /// Plans, runs, shows, and leaves no machine; the run and its final state. `None` when it was interrupted before it
    /// was one.
    async fn run(&self, tree: &Tree, asked: &Asked<'_>) -> miette::Result<Option<(RunId, RunState)>> {
        let (deps, instance) = (&self.deps, self.instance);
        let mut signals = Signals::new()?;
        let run = tokio::select! {
            planned = planned(deps, tree, asked) => planned?,
            // What git does meanwhile is ended with it.
            () = signals.next() => {
                eprintln!("interrupted before the run began");
                return Ok(None);
            }
        };

        let (stop, attempts) = (CancellationToken::new(), TaskTracker::new());
        let scheduling = tokio::spawn(scheduler::run(deps.clone(), instance, attempts.clone(), stop.clone()));
        let beating = tokio::spawn(node::run(deps.clone(), instance, stop.clone()));
        let cancelling = tokio::spawn(cancel_on_signal(deps.clone(), run, signals));
        deps.hints.notify(Hint::Job);
        let shown = show::until_the_end(deps, run, asked.logs).await;
        // Every attempt has ended; what is left are removals.
        let clean = clean(deps).await;
        cancelling.abort();
        stop.cancel();
        attempts.close();
        attempts.wait().await;
        let _ended = tokio::join!(scheduling, beating);
        let state = shown?;
        clean?;
        Ok(Some((run, state)))
    }
}

/// Takes the commit out of the person's repository and stores its run.
async fn planned(deps: &Deps, tree: &Tree, asked: &Asked<'_>) -> miette::Result<RunId> {
    let repository = tree.repository();
    let adopted = deps.source.adopt(&repository, &tree.worktree, &tree.head).await;
    adopted.map_err(report)?;
    let commit = if asked.dirty {
        let made = deps.source.snapshot(&repository, &tree.worktree, &tree.head).await;
        let made = made.map_err(report)?;
        for folder in &made.left_out {
            let folder = folder.display();
            eprintln!("note: {folder} is a repository of its own; its files do not run");
        }
        made.commit
    } else {
        if tree.worktree.is_changed().await.map_err(report)? {
            eprintln!("note: changes that are not committed do not run; --dirty includes them");
        }
        tree.head.clone()
    };
    let file = pick(deps, &repository, &commit, tree, asked).await?;
    let message = deps
        .source
        .objects(&repository)
        .message(&commit)
        .await
        .map_err(report)?;
    let title = foreign_text::title(&message);
    let (event, mut new) = plan(deps, file, tree, &commit)?;
    if let Some(commits) = deps.source.cut_history(&repository, &commit).await.map_err(report)?
        && within(&mut new, commits)
    {
        eprintln!("note: `fetch-depth: 0` gets {commits} commit(s), as this clone does not have all of its history");
    }
    store_run(deps, tree, &commit, event, title, new).await
}

/// Has checkouts that ask for all history ask for what is there: git takes nothing from a repository that is cut off
/// unless a depth is named. Whether there was one.
fn within(run: &mut NewRun, commits: u32) -> bool {
    let mut any = false;
    for step in run
        .plan
        .iter_mut()
        .flat_map(|run| &mut run.plan.jobs)
        .flat_map(|job| &mut job.steps)
    {
        let Action::Uses { action, inputs, .. } = &mut step.action else {
            continue;
        };
        for (name, depth) in inputs {
            let all = depth.value(String::new).is_ok_and(|depth| depth == "0");
            if action == CHECKOUT && name == "fetch-depth" && all {
                *depth = Template::default_of(commits.max(1).to_string());
                any = true;
            }
        }
    }
    any
}

/// The file to run, as it is in the commit.
async fn pick(
    deps: &Deps,
    repository: &Repository,
    commit: &CommitSha,
    tree: &Tree,
    asked: &Asked<'_>,
) -> miette::Result<WorkflowFile> {
    let mut objects = deps.source.objects(repository);
    let path = match asked.file {
        Some(file) => {
            let path = tree.relative(file)?;
            let there = objects.list(commit, &[&path]).await.map_err(report)?;
            if !there.contains(&path) {
                return Err(tree.absent(file, &path, commit, asked.dirty));
            }
            path
        }
        None => default_file(&mut objects, commit).await?,
    };
    let text = objects.read(commit, &path, workflow::MAX_FILE).await.map_err(report)?;
    Ok(WorkflowFile { path, text: Ok(text) })
}

/// The one file that a push would run. Repositories of this machine have no forge; their workflows are found as on
/// Forgejo.
async fn default_file(objects: &mut Objects, commit: &CommitSha) -> miette::Result<String> {
    let places = workflow::listed(FORGEJO_WORKFLOWS);
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let files = objects.list(commit, &places).await.map_err(report)?;
    let picked = workflow::pick(FORGEJO_WORKFLOWS, files.iter().map(String::as_str));
    match picked.map(|pick| pick.files).unwrap_or_default().as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(miette!(
            help = "commit one, for example .forgejo/workflows/ci.yml or .jci/run.sh, or use --dirty",
            "the commit {} has no workflow file",
            commit.short()
        )),
        several => Err(miette!(
            help = "name the one to run: `helios-ci run FILE`",
            "there are several workflow files: {}",
            several.join(", ")
        )),
    }
}

/// What a push would run; else what a person may start.
fn plan(deps: &Deps, file: WorkflowFile, tree: &Tree, commit: &CommitSha) -> miette::Result<(Event, NewRun)> {
    let push = Event::push(tree.ref_name.clone(), commit.clone(), None);
    let files = [file];
    let manual = Event::Ref(RefEvent {
        ref_name: tree.ref_name.clone(),
        cause: RefCause::Manual {
            commit: Some(commit.clone()),
            as_push: false,
            workflow: None,
        },
    });
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
        let defaults = Defaults {
            job_timeout_minutes: deps.config.limits.job_timeout_minutes,
        };
        // A plan holds the first ones only.
        let all = workflow::validate(&run.path, run.source.as_bytes(), &defaults).err();
        let all = all.filter(|all| all.len() > complaints.len());
        return Err(Complaints::new(&run.path, &run.source, all.as_ref().unwrap_or(complaints)).into());
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
        actor: tree.person.clone(),
        title: title.clone(),
        payload: None,
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

/// Ctrl-C and SIGTERM, both of which ask for the run's end.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> miette::Result<Self> {
        let of = |kind| signal(kind).map_err(|e| miette!("cannot wait for signals: {e}"));
        Ok(Self(of(SignalKind::interrupt())?, of(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// Each signal asks for the run's end again.
async fn cancel_on_signal(deps: Deps, run: RunId, mut signals: Signals) {
    loop {
        signals.next().await;
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
