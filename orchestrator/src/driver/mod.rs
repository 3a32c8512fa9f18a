//! One attempt, from a claimed job to the final result: a pure interpreter of its steps (`interpreter`, with what each
//! does in `actions`) inside a pure state machine of phases, clocks and stops (`progress`), and one task that performs
//! the effects (`task`). The task owns the attempt's log and its agent's link, so nobody else decides anything about it.
//!
//! ```text
//!   agent's messages ─┐                                   ┌─▶ exec, kill, acknowledge   (to the agent)
//!   machine stopped ──┤        Event            Effect    ├─▶ steps, checkpoint          (store)
//!   cancel (hint) ────┼─▶ task ─────▶ progress ─────▶ task┼─▶ lines, masks, end of step  (log)
//!   time passed ──────┘   (one)       (pure)        (one) └─▶ finish: seal, result, destroy
//!                                      │     ▲
//!                       Done, Failed   ▼     │   Command, Record
//!                                   interpreter (pure)
//! ```
//!
//! **Why a pure machine.** A daemon may die between any two lines. `Progress` is therefore a value that is stored whole as
//! the checkpoint: at every border of a step, when a mask is learnt, and every half minute for the clocks. A daemon that
//! takes over loads it, asks what is to be done next, and may do again what its predecessor had begun, since every effect
//! can be repeated: an `exec` with an id that the agent knows is not started twice, a step's row is written with the same
//! values, a log's record that is there already is not appended again.
//!
//! **Who may go on.** Each claim of an attempt has an epoch, and every write of the task shows it. A task whose epoch is
//! old stops in silence (`Stopped::Fenced`); a database that fails for a while stops nothing (`Stopped::Store`): machine and
//! agent go on, and the attempt is adopted from its checkpoint.
//!
//! **What is acknowledged.** Output goes to the log at once and is durable within 10 ms; only then may the agent forget it.
//! A mask is in the checkpoint before the frame that brought it is acknowledged, so no daemon ever shows a secret that its
//! predecessor knew.
//!
//! **How it ends.** The result is committed in this order: the machine's doors are closed, the log gets its end and is
//! synced, the result and what the forge must hear are one transaction, the machine is destroyed or kept. Beside that the
//! log is sealed, which of a large one takes longer and is waited for by nobody. A log that cannot be ended keeps no result
//! back. Dying between two of them leaves what the janitor or the next start finishes; behind the end of its log an attempt
//! never goes on.

pub mod actions;
mod agent_end;
mod checkpoint;
mod console;
mod destroy;
mod fetch;
mod finish;
pub mod interpreter;
pub mod job;
mod keep;
mod prepare;
pub mod progress;
pub mod resolve;
mod sections;
mod stopped;
mod task;

pub use self::{
    destroy::destroy_once,
    keep::check_kept_machines,
    sections::Section,
    task::{Start, drive},
};
