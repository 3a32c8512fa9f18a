//! What runs next on this node. Woken by hints, which `node` repeats for what waits. The database is the
//! queue: this loop only says which classes there is room for, and claims.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Capacity, Config},
    daemon::Deps,
    driver::{self, Start},
    failpoint::{self, Point},
    files::free_bytes,
    model::{
        ids::InstanceId,
        names::{Label, MachineName},
        size::Size,
        state::MachineState,
    },
    queue::Hint,
    store::{MachineUse, QueuedClass, Store, StoreError},
};

/// A machine whose removal takes longer drains the node; a zone that hangs in the kernel needs a reboot.
const REMOVAL_LIMIT: Duration = Duration::from_secs(600);
/// What has been queued for too long is looked for this often at most; `node` wakes the loop while anything waits.
const EXPIRE: Duration = Duration::from_secs(5);

/// Why a job of some class cannot start on this node now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoom {
    /// All machines of the node are in use.
    Machines {
        /// Machines in use.
        used: u32,
        /// Of these, kept for a person after their job.
        kept: u32,
        /// The configured limit.
        most: u32,
    },
    /// All machines of this label are in use.
    Label {
        /// The label that is full.
        label: Label,
        /// Machines in use.
        used: u32,
        /// The configured limit.
        most: u32,
    },
    /// Not enough virtual processors are free.
    Cpus {
        /// CPUs that are free now.
        free: u32,
        /// CPUs that the job needs.
        needed: u32,
    },
    /// Not enough memory is free.
    Memory {
        /// Memory that is free now, in MiB.
        free_mib: u64,
        /// Memory that the job needs, in MiB.
        needed_mib: u64,
    },
    /// The job asks for more than the node can ever give.
    Never {
        /// What it asks for, and what the node has.
        what: String,
    },
    /// A machine cannot be removed. What holds it holds the next one too, so the node starts no more until a person
    /// has mended it.
    RemovalOverdue {
        /// The machine that cannot be removed.
        machine: MachineName,
    },
    /// The data directory is nearly full.
    Disk {
        /// Space that is free now, in bytes.
        free: u64,
        /// The configured reserve, in bytes.
        needed: u64,
    },
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machines { used, kept: 0, most } => write!(f, "{used} of {most} machines of this node are in use"),
            Self::Machines { used, kept, most } => write!(
                f,
                "{used} of {most} machines of this node are in use, {kept} of them kept for a person after their job"
            ),
            Self::Label { label, used, most } => write!(f, "{used} of {most} machines for {label} are in use"),
            Self::Cpus { free, needed } => write!(f, "{needed} CPUs are needed and {free} are free"),
            Self::Memory { free_mib, needed_mib } => {
                write!(f, "{needed_mib} MiB of memory are needed and {free_mib} MiB are free")
            }
            Self::Never { what } => write!(f, "this node can never run it: {what}"),
            Self::RemovalOverdue { machine } => write!(
                f,
                "machine {machine} cannot be removed for {} minutes; `helios-ci doctor` on the node says more",
                REMOVAL_LIMIT.as_secs() / 60
            ),
            Self::Disk { free, needed } => write!(
                f,
                "the node's disk is nearly full: {} MiB are free and {} MiB are kept in reserve",
                free >> 20,
                needed >> 20
            ),
        }
    }
}

/// Whether one more machine of this label and size fits beside those in use. Every limit holds by
/// itself, so a full label never blocks another.
///
/// # Errors
/// The first limit that does not allow it.
pub fn room(capacity: &Capacity, used: &[MachineUse], label: &Label, size: Size) -> Result<(), NoRoom> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    if let Some(most) = capacity.cpus.filter(|most| size.cpus > *most) {
        return Err(NoRoom::Never {
            what: format!("{} CPUs are asked for and it has {most}", size.cpus),
        });
    }
    if let Some(most) = capacity.memory_mib.filter(|most| size.memory_mib > *most) {
        return Err(NoRoom::Never {
            what: format!("{} MiB are asked for and it has {most} MiB", size.memory_mib),
        });
    }
    let machines = number(used.len());
    if machines >= capacity.machines {
        return Err(NoRoom::Machines {
            used: machines,
            kept: number(used.iter().filter(|m| m.state == MachineState::Kept).count()),
            most: capacity.machines,
        });
    }
    if let Some(most) = capacity.labels.get(label) {
        let same = number(used.iter().filter(|m| m.label == *label).count());
        if same >= *most {
            return Err(NoRoom::Label {
                label: label.clone(),
                used: same,
                most: *most,
            });
        }
    }
    if let Some(most) = capacity.cpus {
        let free = most.saturating_sub(used.iter().map(|m| m.size.cpus).sum());
        if size.cpus > free {
            return Err(NoRoom::Cpus {
                free,
                needed: size.cpus,
            });
        }
    }
    if let Some(most) = capacity.memory_mib {
        let free_mib = most.saturating_sub(used.iter().map(|m| m.size.memory_mib).sum());
        if size.memory_mib > free_mib {
            return Err(NoRoom::Memory {
                free_mib,
                needed_mib: size.memory_mib,
            });
        }
    }
    Ok(())
}

/// Whether the data directory has room for another job at all.
///
/// # Errors
/// [`NoRoom::Disk`].
pub fn disk_room(config: &Config) -> Result<(), NoRoom> {
    let needed = config.limits.min_free_bytes;
    match free_bytes(&config.data_dir) {
        Ok(free) if free < needed => Err(NoRoom::Disk { free, needed }),
        // A disk that cannot be asked is judged by the writes that follow.
        _ => Ok(()),
    }
}

/// Whether no removal takes longer than [`REMOVAL_LIMIT`].
async fn no_removal_is_overdue(store: &Store, config: &Config) -> Result<Result<(), NoRoom>, StoreError> {
    let overdue = store.overdue_removal(&config.node, REMOVAL_LIMIT).await?;
    Ok(overdue.map_or(Ok(()), |machine| Err(NoRoom::RemovalOverdue { machine })))
}

/// Why this node would not start a job of this label and size now, in words; none when it would.
///
/// # Errors
/// When the database cannot be read.
pub async fn refusal(store: &Store, config: &Config, label: &Label, size: Size) -> Result<Option<String>, StoreError> {
    if !config.images.contains_key(label) {
        return Ok(Some(format!("this node has no image {label}")));
    }
    let used = store.node_usage(&config.node).await?;
    let free = no_removal_is_overdue(store, config).await?;
    let fits = free
        .and_then(|()| disk_room(config))
        .and_then(|()| room(&config.capacity, &used, label, size));
    Ok(fits.err().map(|no_room| no_room.to_string()))
}

/// Claims and starts jobs until `stop`.
pub async fn run(deps: Deps, instance: InstanceId, attempts: TaskTracker, stop: CancellationToken) {
    let mut hints = deps.hints.subscribe();
    let mut expire_at = Instant::now();
    loop {
        if Instant::now() >= expire_at {
            if let Err(error) = expire(&deps, &stop).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot end jobs that wait for too long"
                );
            }
            expire_at = Instant::now() + EXPIRE;
        }
        match claim(&deps, instance, &attempts, &stop).await {
            Ok(()) => {}
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot claim jobs now"),
        }
        let news = hints.wait_for_news(|hint| matches!(hint, Hint::Job | Hint::Capacity));
        if stop.run_until_cancelled(news).await != Some(true) {
            return;
        }
    }
}

/// Ends jobs that have waited in the queue for too long.
async fn expire(deps: &Deps, stop: &CancellationToken) -> Result<(), StoreError> {
    let limit = Duration::from_secs(u64::from(deps.config.limits.queue_timeout_minutes) * 60);
    while !stop.is_cancelled() {
        let expired = deps.store.expire_queued(limit).await?;
        if expired.is_empty() {
            break;
        }
        tracing::warn!(jobs = expired.len(), "jobs waited in the queue for too long");
        deps.hints.notify(Hint::Report);
    }
    Ok(())
}

/// Claims and starts what there is room for. A look at a node whose machines are all in use is one short statement.
async fn claim(
    deps: &Deps,
    instance: InstanceId,
    attempts: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let (store, config) = (&deps.store, &deps.config);
    let mut used = store.node_usage(&config.node).await?;
    if used.len() >= usize::try_from(config.capacity.machines).unwrap_or(usize::MAX) {
        return Ok(());
    }
    let mut classes = store.queued_classes().await?;
    classes.retain(|class| config.images.contains_key(&class.label));
    let classes = Arc::new(classes);
    while !stop.is_cancelled() && !fitting(&config.capacity, &classes, &used).is_empty() {
        let free = no_removal_is_overdue(store, config).await?;
        if let Err(reason) = free.and_then(|()| disk_room(config)) {
            tracing::error!(%reason, "no new jobs are started");
            return Ok(());
        }
        let (capacity, classes) = (config.capacity.clone(), Arc::clone(&classes));
        let fitting = move |used: &[MachineUse]| fitting(&capacity, &classes, used);
        let claimed = store.claim_jobs(&config.node, instance, used.clone(), fitting).await?;
        if claimed.is_empty() {
            return Ok(());
        }
        failpoint::hit(Point::JobClaimed);
        for attempt in claimed {
            tracing::info!(job = %attempt.job, attempt = %attempt.id, number = attempt.number, "claimed a job");
            deps.hints.notify(Hint::Claimed(attempt.job));
            deps.hints.notify(Hint::Run(attempt.run));
            used.push(MachineUse::of(&attempt));
            attempts.spawn(driver::drive(deps.clone(), attempt, Start::Fresh, stop.clone()));
        }
    }
    Ok(())
}

/// The classes of which one more machine fits beside those in use.
fn fitting(capacity: &Capacity, classes: &[QueuedClass], used: &[MachineUse]) -> Vec<String> {
    let fits = |class: &&QueuedClass| room(capacity, used, &class.label, class.size).is_ok();
    classes.iter().filter(fits).map(|class| class.class.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{ids::AttemptId, names::MachineName};

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    fn used(name: &str, cpus: u32, memory_mib: u64) -> MachineUse {
        MachineUse {
            name: MachineName::of(AttemptId::new()),
            label: label(name),
            size: Size {
                cpus,
                memory_mib,
                disk_gib: None,
            },
            state: MachineState::Running,
        }
    }

    fn capacity() -> Capacity {
        Capacity {
            machines: 4,
            cpus: Some(4),
            memory_mib: Some(4096),
            labels: BTreeMap::from([(label("a"), 1)]),
        }
    }

    const SMALL: Size = Size {
        cpus: 1,
        memory_mib: 1024,
        disk_gib: None,
    };

    #[test]
    fn a_full_label_does_not_block_another() {
        let busy = [used("a", 1, 1024)];
        assert!(matches!(
            room(&capacity(), &busy, &label("a"), SMALL),
            Err(NoRoom::Label { .. })
        ));
        assert_eq!(room(&capacity(), &busy, &label("b"), SMALL), Ok(()));
    }

    #[test]
    fn machines_cpus_and_memory_each_hold_by_themselves() {
        let many: Vec<_> = (0..4).map(|_| used("b", 0, 0)).collect();
        assert!(matches!(
            room(&capacity(), &many, &label("b"), SMALL),
            Err(NoRoom::Machines { .. })
        ));
        let kept: Vec<_> = many
            .iter()
            .cloned()
            .map(|m| MachineUse {
                state: MachineState::Kept,
                ..m
            })
            .collect();
        let words = room(&capacity(), &kept, &label("b"), SMALL).unwrap_err().to_string();
        assert_eq!(
            words,
            "4 of 4 machines of this node are in use, 4 of them kept for a person after their job"
        );
        let cpus = [used("b", 4, 0)];
        assert!(matches!(
            room(&capacity(), &cpus, &label("b"), SMALL),
            Err(NoRoom::Cpus { free: 0, needed: 1 })
        ));
        let memory = [used("b", 0, 3500)];
        assert!(matches!(
            room(&capacity(), &memory, &label("b"), SMALL),
            Err(NoRoom::Memory { free_mib: 596, .. })
        ));
        let huge = Size { cpus: 8, ..SMALL };
        assert!(matches!(
            room(&capacity(), &[], &label("b"), huge),
            Err(NoRoom::Never { .. })
        ));
    }
}
