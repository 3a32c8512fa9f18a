//! Places where a test may let the daemon, or an import, die as if by `kill -9`. In a release build they are
//! nothing. `HELIOS_CI_FAILPOINT=<name>` aborts at the first pass, `<name>:<n>` at the n-th.

/// Every place, in the order of an attempt's life, then of an import's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The delivery is durable, the answer not yet sent.
    DeliveryStored,
    /// The delivery has ended, with its triggers if it has any.
    DeliveryRead,
    /// A push that was held is stored once more, nobody told.
    DeliveredAgain,
    /// A trigger is claimed, nothing planned.
    TriggerClaimed,
    /// Runs, jobs and reports are durable.
    RunsPlanned,
    /// A job is claimed: attempt and machine rows exist, nothing on the host.
    JobClaimed,
    /// The machine is made but not started.
    MachinePrepared,
    /// The machine is started, nobody has connected.
    MachineStarted,
    /// The agent has joined.
    AgentJoined,
    /// A checkpoint names a command that was not sent yet.
    BeforeCommand,
    /// A command was sent.
    AfterCommand,
    /// Output is in the log's file, neither synced nor acknowledged.
    OutputWritten,
    /// Output is durable, not acknowledged.
    OutputSynced,
    /// A new mask is in memory, not in the checkpoint.
    MaskFound,
    /// A step's end is known, not checkpointed.
    StepEnded,
    /// All steps are over and the log has its end, the result is not durable.
    BeforeResult,
    /// The result is durable, the machine still exists, and the log is not sealed.
    ResultStored,
    /// The result is durable and the log is sealed, the machine may still exist.
    LogSealed,
    /// The machine is destroyed, its row still says draining.
    MachineDestroyed,
    /// A forge has been told, and the outbox does not know it.
    ReportSent,
    /// A golden disk's volume exists, empty.
    ImageDrafted,
    /// A block of a golden disk is written, others are not.
    ImageBlockWritten,
    /// All of a golden disk was read back; nothing is noted yet.
    ImageReadBack,
    /// A golden disk's digest is noted, and its snapshot exists.
    ImageSnapped,
    /// The snapshot is held, the volume has not got its name.
    ImageHeld,
    /// A golden disk is in use; older ones were not looked at.
    ImageNamed,
}

impl Point {
    /// All of an import's, in their order.
    pub const IMPORT: &'static [Self] = &[
        Self::ImageDrafted,
        Self::ImageBlockWritten,
        Self::ImageReadBack,
        Self::ImageSnapped,
        Self::ImageHeld,
        Self::ImageNamed,
    ];

    /// All of an attempt's, for tests that loop.
    pub const ALL: &'static [Self] = &[
        Self::DeliveryStored,
        Self::DeliveryRead,
        Self::TriggerClaimed,
        Self::RunsPlanned,
        Self::JobClaimed,
        Self::MachinePrepared,
        Self::MachineStarted,
        Self::AgentJoined,
        Self::BeforeCommand,
        Self::AfterCommand,
        Self::OutputWritten,
        Self::OutputSynced,
        Self::MaskFound,
        Self::StepEnded,
        Self::BeforeResult,
        Self::ResultStored,
        Self::LogSealed,
        Self::MachineDestroyed,
        Self::ReportSent,
    ];
}

/// Dies here if a test asked for it.
pub fn hit(point: Point) {
    #[cfg(debug_assertions)]
    armed::hit(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static HITS: AtomicU64 = AtomicU64::new(0);

    pub(super) fn hit(point: super::Point) {
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("HELIOS_CI_FAILPOINT").ok()?;
            let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
            Some((name.to_owned(), count.parse().unwrap_or(1)))
        });
        if let Some((name, count)) = armed
            && *name == format!("{point:?}")
            && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *count
        {
            // SIGKILL to ourselves: no destructor, no flush, exactly what is to be tested.
            let _never_returns = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            std::process::abort();
        }
    }
}
