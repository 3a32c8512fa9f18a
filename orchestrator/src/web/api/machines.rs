//! Machines that are kept for a person, and consoles. A machine is named by its own name, or by its job's id,
//! which means the machine of the job's newest try. Keeping and letting go are intents in the store; the machine's
//! own node acts on them. Only consoles are read and typed on directly, and by their own node alone.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
};
use base64::Engine as _;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    clock::now_ms,
    config::Backend,
    foreign_text::printable,
    machine::{INPUT_LIMIT, MachineError, process},
    model::{names::MachineName, state::MachineState, trigger::Repository},
    queue::Hint,
    store::{Keep, KeepOutcome, MachineRow, ReleaseOutcome},
    web::{
        AppState,
        api::types::{self, KeepBody, ListedMachine, MachineList},
        authorize::Action,
        http::problem::Problem,
        identity::Caller,
        lookup::{self, JobMachine, store_failed},
        pages::view::{self, rfc3339},
    },
};

/// The longest that an answer about a console waits for something to say.
const LONGEST_WAIT: u64 = 20;
/// How often a silent console is read meanwhile.
const POLL_CONSOLE: Duration = Duration::from_millis(100);
/// How often the machine's row is.
const POLL_ROW: Duration = Duration::from_secs(1);

/// How a person reaches the console of a kept machine past the daemon; none while that is not possible.
pub(in crate::web) fn attach_line(name: &MachineName, keep: &Keep) -> Option<String> {
    match keep.backend.as_deref()? {
        "zone" if keep.console_by.is_none() => Some(format!("zlogin -C {name}")),
        "zone" => None,
        _ => Some(format!("helios-ci console {name}")),
    }
}

/// What is said of a machine that is kept, or is to be.
pub(in crate::web) fn keep_of(row: &MachineRow, now: i64) -> Option<types::Keep> {
    let keep = row.keep.as_ref().filter(|_| !row.state.is_terminal())?;
    Some(types::Keep {
        machine: None,
        by: view::person(&keep.by),
        asked: rfc3339(keep.asked_ms),
        for_s: keep.for_ms / 1000,
        until: keep.until_ms.map(rfc3339),
        backend: keep.backend.clone(),
        console_by: keep.console_by.as_deref().map(view::person),
        console_free: Some(keep.backend.is_some() && keep.console_by.is_none() && !keep.console_release),
        attach: (row.state == MachineState::Kept)
            .then(|| attach_line(&row.name, keep))
            .flatten(),
        words: keep_text(row, keep, now),
    })
}

/// `kept until 12:03:00 UTC (in 27 min) by ann`.
fn keep_text(row: &MachineRow, keep: &Keep, now: i64) -> String {
    let by = view::person(&keep.by);
    match (row.state, keep.until_ms) {
        (MachineState::Kept, Some(until)) => format!(
            "kept until {} ({}) by {by}",
            view::moment(until),
            view::ahead(until, now),
        ),
        (MachineState::Preparing | MachineState::Running, _) => {
            format!("to be kept for {} after its job by {by}", view::duration(keep.for_ms))
        }
        _ => "being removed".to_owned(),
    }
}

fn machine_of(machine: &JobMachine) -> types::Machine {
    let row = &machine.row;
    types::Machine {
        name: row.name.clone(),
        attempt: row.attempt,
        job: machine.job,
        node: row.node.clone(),
        state: row.state,
        created: rfc3339(row.created_ms),
        keep: keep_of(row, now_ms()),
    }
}

/// `GET /api/v1/machines`: the kept machines of the node that answers.
pub async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<MachineList>, Problem> {
    caller.may(&state, Action::Machines, None)?;
    let now = now_ms();
    let node = state.config().node.clone();
    let rows = state.store().machines_of(&node).await.map_err(store_failed)?;
    let machines = rows.into_iter().map(|row| ListedMachine {
        keep: keep_of(&row, now),
        name: row.name,
        state: row.state,
    });
    Ok(Json(MachineList {
        machines: machines.collect(),
        node,
    }))
}

/// `GET /api/v1/machines/{id}`
pub async fn one(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<types::Machine>, Problem> {
    Ok(Json(machine_of(
        &lookup::machine(&state, &caller, Action::Watch, &id).await?,
    )))
}

/// How long a machine is to be kept.
fn wanted(state: &AppState, for_s: Option<u64>) -> Result<Duration, Problem> {
    let keep = &state.config().keep;
    let most = Duration::from_secs(u64::from(keep.max_minutes) * 60);
    let time = match for_s {
        None => Duration::from_secs(u64::from(keep.default_minutes) * 60),
        Some(seconds) => Duration::from_secs(seconds),
    };
    if time.is_zero() || time > most {
        return Err(Problem::unprocessable(
            "bad_time",
            format!(
                "A machine is kept for 1 s to {} min (keep.max_minutes of the configuration). Ask again later to \
                 keep it longer.",
                keep.max_minutes
            ),
        ));
    }
    Ok(time)
}

/// Keeps a machine. The caller was authorized.
async fn keep_one(state: &AppState, caller: &Caller, row: &MachineRow, time: Duration) -> Result<KeepOutcome, Problem> {
    if row.node == state.config().node && state.config().backend == Backend::Process {
        return Err(Problem::conflict(
            "cannot_keep",
            format!("This machine cannot be kept: {}.", process::NOTHING_TO_KEEP),
        ));
    }
    let subject = format!("{} for {} s", row.name, time.as_secs());
    caller.audit(state, "keep machine", &subject).await?;
    let outcome = state
        .store()
        .keep_machine(&row.name, &caller.identity.who(), time)
        .await
        .map_err(store_failed)?;
    state.notify([Hint::Kept]);
    match outcome {
        KeepOutcome::AtItsEnd | KeepOutcome::Until { .. } => Ok(outcome),
        KeepOutcome::TooLate => Err(Problem::conflict(
            "too_late",
            "The machine is being removed, or gone. Ask while its job runs; run the job again to have another.",
        )),
        KeepOutcome::Unknown => Err(Problem::not_found()),
    }
}

/// `POST /api/v1/machines/{id}/keep`
pub async fn keep(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<types::Kept>, Problem> {
    let machine = lookup::machine(&state, &caller, Action::Keep, &id).await?;
    let body: KeepBody = match body.is_empty() {
        true => KeepBody::default(),
        false => serde_json::from_slice(&body)
            .map_err(|e| Problem::bad_request(format!("the body is not understood: {e}")))?,
    };
    let time = wanted(&state, body.for_s)?;
    let outcome = match keep_one(&state, &caller, &machine.row, time).await? {
        KeepOutcome::Until { .. } => types::KeepOutcome::Kept,
        _ => types::KeepOutcome::AtItsEnd,
    };
    let machine = lookup::machine(&state, &caller, Action::Keep, &id).await?;
    Ok(Json(types::Kept {
        outcome,
        machine: machine_of(&machine),
    }))
}

/// Ends a keep. The caller was authorized.
async fn release_one(state: &AppState, caller: &Caller, row: &MachineRow) -> Result<ReleaseOutcome, Problem> {
    caller.audit(state, "release machine", row.name.as_str()).await?;
    let outcome = state.store().release_machine(&row.name).await.map_err(store_failed)?;
    state.notify([Hint::Kept]);
    Ok(outcome)
}

fn released(outcome: ReleaseOutcome) -> Result<types::ReleaseOutcome, Problem> {
    match outcome {
        ReleaseOutcome::Withdrawn => Ok(types::ReleaseOutcome::Withdrawn),
        ReleaseOutcome::Removing => Ok(types::ReleaseOutcome::Removing),
        ReleaseOutcome::Gone => Ok(types::ReleaseOutcome::Gone),
        ReleaseOutcome::Live => Err(Problem::conflict(
            "not_kept",
            "The machine is not kept: its job runs, and it goes with the job.",
        )),
        ReleaseOutcome::Unknown => Err(Problem::not_found()),
    }
}

/// `POST /api/v1/machines/{id}/release`
pub async fn release(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<types::Released>, Problem> {
    let machine = lookup::machine(&state, &caller, Action::Keep, &id).await?;
    let outcome = released(release_one(&state, &caller, &machine.row).await?)?;
    Ok(Json(types::Released {
        machine: machine.row.name,
        outcome,
    }))
}

/// `POST /api/v1/machines/{id}/destroy`: of a machine whose job has ended; one that works is refused.
pub async fn destroy(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<types::Released>, Problem> {
    let machine = lookup::machine(&state, &caller, Action::Keep, &id).await?;
    if matches!(machine.row.state, MachineState::Preparing | MachineState::Running) {
        return Err(Problem::conflict(
            "live",
            format!(
                "The machine works on job {}. Cancel the job, and the machine goes with it; or keep it to look into it \
                 after the job.",
                machine.job
            ),
        ));
    }
    let outcome = released(release_one(&state, &caller, &machine.row).await?)?;
    Ok(Json(types::Released {
        machine: machine.row.name,
        outcome,
    }))
}

/// The console of a machine is with its node.
fn here(state: &AppState, row: &MachineRow) -> Result<(), Problem> {
    if row.node == state.config().node {
        return Ok(());
    }
    Err(Problem::conflict(
        "other_node",
        format!(
            "The machine is on node {}: ask the daemon of that node (--server).",
            row.node
        ),
    ))
}

/// A back end's message, which may quote a guest's.
fn machine_failed(error: &MachineError) -> Problem {
    Problem::conflict("machine", printable(&error.to_string()))
}

/// `?from=0&wait_s=10`
#[derive(Debug, Deserialize)]
pub struct ConsoleQuery {
    #[serde(default)]
    from: u64,
    #[serde(default)]
    wait_s: u64,
}

/// `GET /api/v1/machines/{id}/console`: what the guest has said since a position. With `wait_s` a silent console
/// is waited for, at most 20 s; a change of the machine's state ends the waiting too.
pub async fn console(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<ConsoleQuery>,
) -> Result<Json<types::ConsoleRead>, Problem> {
    let machine = lookup::machine(&state, &caller, Action::Watch, &id).await?;
    let mut row = machine.row;
    here(&state, &row)?;
    let began = row.state;
    let until = Instant::now() + Duration::from_secs(query.wait_s.min(LONGEST_WAIT));
    let mut poll_row = Instant::now() + POLL_ROW;
    loop {
        let over = matches!(row.state, MachineState::Draining | MachineState::Gone);
        let read = match state.machines().console(&row.name, query.from).await {
            Ok(read) => Some(read),
            // What is being made or removed has no console to read.
            Err(_) if over || row.state == MachineState::Preparing => None,
            Err(error) => return Err(machine_failed(&error)),
        };
        let said = read.as_ref().is_some_and(|read| !read.bytes.is_empty());
        let stop = over || row.state != began || state.draining().is_cancelled();
        if said || stop || Instant::now() >= until {
            let bytes = read.as_ref().map_or(&[][..], |read| &read.bytes);
            return Ok(Json(types::ConsoleRead {
                base64: base64::engine::general_purpose::STANDARD.encode(bytes),
                next: read.as_ref().map_or(query.from, |read| read.next),
                state: row.state,
            }));
        }
        tokio::time::sleep(POLL_CONSOLE).await;
        if Instant::now() >= poll_row {
            poll_row = Instant::now() + POLL_ROW;
            let now = state.store().machine(&row.name).await.map_err(store_failed)?;
            row = now.ok_or_else(Problem::not_found)?;
        }
    }
}

/// `POST /api/v1/machines/{id}/console`: types the body, once. An empty body takes the console.
pub async fn write(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<types::ConsoleTyped>, Problem> {
    let machine = lookup::machine(&state, &caller, Action::Type, &id).await?;
    let row = machine.row;
    here(&state, &row)?;
    if body.len() > INPUT_LIMIT {
        return Err(Problem::bad_request(format!(
            "At most {INPUT_LIMIT} bytes are typed in one call."
        )));
    }
    let not_open = || {
        Problem::conflict(
            "not_kept",
            "Typing is possible only on the console of a kept machine, after its job has ended and until the console \
             is released.",
        )
    };
    let keep = row.keep.as_ref().filter(|_| row.state == MachineState::Kept);
    let keep = keep.ok_or_else(not_open)?;
    let who = caller.identity.who();
    if keep.console_by.as_ref() != Some(&who) {
        caller.audit(&state, "console input", row.name.as_str()).await?;
    }
    let taken = state
        .store()
        .take_console(&row.name, &who)
        .await
        .map_err(store_failed)?;
    taken.ok_or_else(not_open)?;
    if let Err(error) = state.machines().write_console(&row.name, &body).await {
        if taken == Some(true) && body.is_empty() {
            // It was not to be had, so nobody has it.
            state.store().console_free(&row.name).await.map_err(store_failed)?;
        }
        return Err(machine_failed(&error));
    }
    Ok(Json(types::ConsoleTyped {
        machine: row.name,
        bytes: body.len(),
    }))
}

/// `POST /api/v1/machines/{id}/console/release`: the machine's node lets go of its console.
pub async fn release_console(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<types::Machine>, Problem> {
    let machine = lookup::machine(&state, &caller, Action::Type, &id).await?;
    caller
        .audit(&state, "release console", machine.row.name.as_str())
        .await?;
    let asked = state
        .store()
        .release_console(&machine.row.name)
        .await
        .map_err(store_failed)?;
    if !asked {
        return Err(Problem::conflict(
            "not_kept",
            "The machine is not kept. While its job runs its console is read by its node alone.",
        ));
    }
    state.notify([Hint::Kept]);
    Ok(Json(machine_of(
        &lookup::machine(&state, &caller, Action::Type, &id).await?,
    )))
}

/// What the page of a job says about its machine, and what may be done.
pub(in crate::web) struct KeepView {
    /// `kept until … by …`; none when nobody asked for it.
    pub words: Option<String>,
    /// It is kept now.
    pub kept: bool,
    /// The reader may know the way to its console.
    pub watches: bool,
    /// The line that attaches to its console.
    pub attach: Option<String>,
    /// Who types on its console.
    pub console_by: Option<String>,
    /// Where it is.
    pub node: String,
    /// The button that keeps it may be shown.
    pub may_keep: bool,
    /// The button that lets it go may be shown.
    pub may_release: bool,
}

/// About the machine of a job's newest try.
pub(in crate::web) async fn keep_view(
    state: &AppState,
    caller: &Caller,
    repository: &Repository,
    name: &MachineName,
) -> Result<Option<KeepView>, Problem> {
    let may = caller.sees_button(state, Action::Keep, repository);
    let watches = caller.may(state, Action::Watch, Some(repository)).is_ok();
    let row = state.store().machine(name).await.map_err(store_failed)?;
    let Some(row) = row.filter(|row| !matches!(row.state, MachineState::Draining | MachineState::Gone)) else {
        return Ok(None);
    };
    let keep = row.keep.as_ref();
    let kept = row.state == MachineState::Kept;
    let possible = row.node != state.config().node || state.config().backend != Backend::Process;
    Ok(Some(KeepView {
        words: keep.map(|keep| keep_text(&row, keep, now_ms())),
        kept,
        attach: keep
            .filter(|_| kept && watches)
            .and_then(|keep| attach_line(&row.name, keep)),
        console_by: keep
            .filter(|_| watches)
            .and_then(|keep| keep.console_by.as_deref().map(view::person)),
        watches,
        node: row.node.to_string(),
        may_keep: may && possible,
        may_release: may && keep.is_some(),
    }))
}

/// Keeps the machine of a job for the configured time: the page's button.
pub(in crate::web) async fn keep_of_job(state: &AppState, caller: &Caller, job: &str) -> Result<(), Problem> {
    let machine = lookup::machine(state, caller, Action::Keep, job).await?;
    keep_one(state, caller, &machine.row, wanted(state, None)?)
        .await
        .map(drop)
}

/// Lets the machine of a job go: the page's button.
pub(in crate::web) async fn release_of_job(state: &AppState, caller: &Caller, job: &str) -> Result<(), Problem> {
    let machine = lookup::machine(state, caller, Action::Keep, job).await?;
    released(release_one(state, caller, &machine.row).await?).map(drop)
}
