//! Takes a machine and everything of it away.

use crate::{
    daemon::Deps,
    error_chain::chain,
    failpoint::{self, Point},
    model::{names::MachineName, state::MachineState},
    queue::Hint,
};

/// One try to destroy a machine and everything of it; whether nothing is left to be done. A kept machine is
/// left alone.
pub async fn destroy_once(deps: &Deps, name: &MachineName) -> bool {
    let destroyed = async {
        // Whether a machine is kept is decided at the end of its attempt, so what is not kept here never will be.
        let row = deps.store.machine(name).await.map_err(|e| chain(&e))?;
        if row.is_some_and(|row| row.state == MachineState::Kept) {
            return Ok(true);
        }
        deps.machines.destroy(name).await.map_err(|e| chain(&e))?;
        deps.source.drop_grant(name.attempt()).await.map_err(|e| chain(&e))?;
        failpoint::hit(Point::MachineDestroyed);
        deps.store
            .machine_state(name, MachineState::Gone)
            .await
            .map_err(|e| chain(&e))
    };
    match destroyed.await {
        Ok(_) => {
            deps.hints.notify(Hint::Capacity);
            true
        }
        Err(error) => {
            tracing::error!(machine = %name, error, "a machine could not be destroyed; it will be tried again");
            false
        }
    }
}
