//! Pushes that wait for their connection to be accepted, or for a right to their repository: their commit says so.

use super::outbox::CheckTarget;
use crate::{
    model::trigger::{Event, RefCause, RefEvent, Trigger},
    store::{
        StoreError,
        engine::tx::{Tx, args},
    },
};

/// A push that waits.
pub(super) struct HeldPush {
    /// What it waits for, in words for everybody.
    pub(super) reason: String,
    pub(super) created_ms: i64,
}

/// Where a trigger that waits is shown: at the commit of a branch. What a tag names may be a tag object, which carries no
/// checks, and nobody can look into it before the right is there.
pub(in crate::store) fn target(trigger: &Trigger) -> Option<CheckTarget> {
    let Event::Ref(RefEvent { ref_name, cause }) = &trigger.event;
    match cause {
        RefCause::Push { commit, .. } if ref_name.branch().is_some() && !commit.is_zero() => {
            Some(CheckTarget::of(trigger, commit))
        }
        RefCause::Push { .. } | RefCause::Manual { .. } => None,
    }
}

/// The oldest push of a commit that waits; none when none does.
pub(super) async fn of(tx: &mut Tx, target: &CheckTarget) -> Result<Option<HeldPush>, StoreError> {
    let row = tx
        .row(
            "SELECT reason, created_ms FROM triggers WHERE state = 'received' AND connection = $1
                 AND repository_id = $2 AND claimed_sha = $3 AND refusals > 0 AND ref_name LIKE 'refs/heads/%'
             ORDER BY seq LIMIT 1",
            args![&target.repository.connection, &target.repository.id, &target.commit],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(HeldPush {
        reason: row.opt_text("reason")?.unwrap_or_default(),
        created_ms: row.int("created_ms")?,
    }))
}
