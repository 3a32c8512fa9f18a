//! From a claimed job to a started machine that can be listened to.

use std::sync::Arc;

use futures::StreamExt;
use ring::rand::{SecureRandom, SystemRandom};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    job::{Job, JobStep, Limits},
    resolve::Resolved,
};
use crate::{
    agent_api::Link,
    clock::now_ms,
    config::{Backend, Config, GuestKind},
    daemon::Deps,
    digest::sha256,
    failpoint::{self, Point},
    machine::{Endpoints, MachineSpec, Seed, listen},
    model::{
        names::{Label, MachineName},
        plan::Env,
    },
    secret::Secret,
    store::{AttemptRow, JobDetail, StoreError},
    workflow,
};

/// Why an attempt could not begin. Every case is ours, not the user's.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The back end.
    #[error(transparent)]
    Machine(#[from] crate::machine::MachineError),
    /// The machine's sockets.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// The machine of an attempt that an earlier daemon began.
    #[error("machine {machine} {how}")]
    Gone {
        /// Which.
        machine: String,
        /// What became of it.
        how: String,
    },
    /// The system.
    #[error("the system gave no random bytes for a join token")]
    Random,
    /// Another daemon owns the attempt.
    #[error("another daemon took the attempt over")]
    Fenced,
}

/// What the guest's side may reach while the attempt lives; dropping it closes everything.
#[derive(Debug)]
pub(super) struct Doors {
    /// The agent's events.
    pub link: Link,
    _git: DropGuard,
}

/// Makes the machine, listens for it, and starts it.
pub(super) async fn start(deps: &Deps, attempt: &AttemptRow) -> Result<(Endpoints, Doors), PrepareError> {
    let name = MachineName::of(attempt.id);
    let token = join_token()?;
    if !deps
        .store
        .set_join_token(attempt.id, attempt.epoch, &sha256(token.expose().as_bytes()))
        .await?
    {
        return Err(PrepareError::Fenced);
    }
    let spec = MachineSpec {
        name: name.clone(),
        node: deps.config.node.clone(),
        image: attempt.label.clone(),
        cpus: attempt.size.cpus,
        memory_mib: attempt.size.memory_mib,
        disk_gib: attempt.size.disk_gib,
        seed: Seed {
            fingerprint: deps.agents.fingerprint().to_owned(),
            token,
            time_ms: now_ms(),
        },
    };
    let endpoints = deps.machines.prepare(&spec).await?;
    failpoint::hit(Point::MachinePrepared);
    let doors = open(deps, attempt, &endpoints).await?;
    deps.machines.start(&name).await?;
    failpoint::hit(Point::MachineStarted);
    Ok((endpoints, doors))
}

/// Listens at the endpoints of a machine that exists.
pub(super) async fn open(deps: &Deps, attempt: &AttemptRow, endpoints: &Endpoints) -> Result<Doors, PrepareError> {
    let link = deps.agents.listen(attempt.id, &endpoints.agent).await?;
    let mut connections = listen::accept(&endpoints.git).await?;
    let (source, id) = (deps.source.clone(), attempt.id);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let serve = async {
            while let Some(connection) = connections.next().await {
                let Ok(connection) = connection else { continue };
                let source = source.clone();
                let stopped = stopped.clone();
                tokio::spawn(async move {
                    let served = stopped.run_until_cancelled(source.serve(connection, id)).await;
                    if let Some(Err(error)) = served {
                        tracing::info!(attempt = %id, error = &error as &dyn std::error::Error, "a machine's git request failed");
                    }
                });
            }
        };
        stopped.run_until_cancelled(serve).await;
    });
    Ok(Doors {
        link,
        _git: stop.drop_guard(),
    })
}

/// Where programs are looked for in a Linux guest, unless the workflow says otherwise.
const LINUX_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As much in an illumos guest, in the order of OmniOS's default profile: GNU tools first, as most build scripts mean
/// them by names like `sed`, `tar` and `install`, then the system's own; packages that are not part of the system
/// (`/opt/ooce`) last, so that they hide nothing of it.
const ILLUMOS_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/gnu/bin:/usr/bin:/usr/sbin:/sbin:/opt/ooce/bin:/opt/ooce/sbin";

/// The PATH of steps on an image. A process has this machine's system, whatever the image says.
fn guest_path(config: &Config, label: &Label) -> &'static str {
    let illumos = match config.backend {
        Backend::Process => cfg!(target_os = "illumos"),
        Backend::Qemu | Backend::Zone => config
            .images
            .get(label)
            .is_some_and(|image| image.kind == GuestKind::Illumos),
    };
    if illumos { ILLUMOS_PATH } else { LINUX_PATH }
}

/// What the attempt has to do, from the stored plan, the configuration and the machine.
pub(super) fn job(
    deps: &Deps,
    attempt: &AttemptRow,
    detail: &JobDetail,
    resolved: Resolved,
    endpoints: &Endpoints,
) -> Arc<Job> {
    let limits = &deps.config.limits;
    let boot_s = deps
        .config
        .images
        .get(&attempt.label)
        .map_or(120, |image| image.boot_timeout_s);
    let workspace = format!("{}/workspace", endpoints.home);
    let context = workflow::JobContext {
        workflow: &detail.run.workflow,
        job: &detail.plan,
        job_id: attempt.job,
        repository: &attempt.repository.path,
        event: &attempt.event,
        ref_name: &attempt.ref_name,
        commit: &attempt.commit,
        run: attempt.run,
        run_attempt: attempt.run_attempt,
        workspace: &workspace,
    };
    let path = guest_path(&deps.config, &attempt.label);
    let base = [("PATH", path), ("HOME", &endpoints.home), ("LANG", "C.UTF-8")];
    let steps = resolved.steps.into_iter().map(|step| {
        let own = workflow::environment(&context, [&resolved.workflow_env, &resolved.env, &step.env]);
        let missing = base
            .iter()
            .filter(|(name, _)| !own.iter().any(|(known, _)| known == name));
        let mut env: Env = missing
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        env.extend(own);
        JobStep { env, ..step }
    });
    Arc::new(Job {
        steps: steps.collect(),
        commit: attempt.commit.clone(),
        ref_name: attempt.ref_name.clone(),
        git_url: format!("git://{}/repo", endpoints.git_authority),
        workspace,
        limits: Limits {
            boot_ms: boot_s * 1000,
            job_ms: u64::from(resolved.timeout_minutes) * 60_000,
            idle_ms: u64::from(limits.idle_timeout_minutes) * 60_000,
            cancel_ms: limits.cancel_grace_s * 1000,
            silence_ms: limits.agent_silence_s * 1000,
        },
    })
}

fn join_token() -> Result<Secret, PrepareError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PrepareError::Random)?;
    Ok(Secret::new(format!("hjt_{}", hex::encode(bytes))))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::LoadOptions;

    #[test]
    fn steps_find_the_programs_of_their_guests_system() {
        let text = "node: n\nimages:\n  debian: {disk: /d.qcow2}\n  omnios: {disk: /o.qcow2, kind: illumos}\n";
        let config = Config::parse(Path::new("config.yaml"), text, LoadOptions::default()).unwrap();
        let path = |label: &str| guest_path(&config.config, &label.parse().unwrap());
        assert_eq!(
            path("debian"),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        );
        let dirs: Vec<&str> = path("omnios").split(':').collect();
        let at = |dir: &str| {
            dirs.iter()
                .position(|d| *d == dir)
                .unwrap_or_else(|| panic!("no {dir}"))
        };
        assert!(
            at("/usr/gnu/bin") < at("/usr/bin") && at("/usr/bin") < at("/opt/ooce/bin"),
            "{dirs:?}"
        );
    }
}
