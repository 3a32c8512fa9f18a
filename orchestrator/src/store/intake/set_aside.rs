//! Deliveries and triggers that cannot be read: they end as failed, so that they keep nobody from those behind them.

use crate::{
    foreign_text::clip,
    model::{state::IntakeState, trigger::Retry},
    store::{
        StoreError,
        engine::{
            transitions::{predecessors, transition_sql},
            tx::{Tx, args},
        },
    },
};

/// What a claim found.
pub(super) struct Claimed<T> {
    pub(super) claimed: T,
    /// What is wrong with those that it passed over.
    pub(super) unreadable: Vec<StoreError>,
}

/// How many rows that cannot be read one claim passes over, so that its transaction is short; the next goes on.
pub(super) const UNREADABLE_AT_ONCE: usize = 64;

/// Ends the row with this number; what was asked for by it may come again. `sql` is the table's statement: `$1` the
/// number, `$2` the state, `$3` the reason, `$4` whether it may come again.
pub(super) async fn set_aside(tx: &mut Tx, sql: &str, seq: i64, error: &StoreError) -> Result<(), StoreError> {
    let to = IntakeState::Failed;
    let (reason, retry) = (error.to_string(), Retry::OnRequest.as_str());
    tx.execute(
        transition_sql(sql, &predecessors(to), to),
        args![seq, to, clip(&reason, 2000), retry],
    )
    .await
    .map(drop)
}
