//! A stub and a guest's VNIC that are made, inspected and removed: whether this host can hold a guest to its
//! addresses at all, tried before a machine depends on it.

use crate::{
    config::Zone,
    exec::{Cmd, Output},
    machine::zone::{
        command::dladm::{self, ShowError},
        owned::Owned,
        setup::SetupError,
    },
    model::{illumos::network::SlotNetwork, names::NodeName},
};

/// Why links cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// A command, a name.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// What was made cannot be inspected.
    #[error(transparent)]
    Show(#[from] ShowError),
    /// The range has no slot.
    #[error("the range {0} has no room for one machine")]
    NoSlot(String),
    /// Protection was set and is not there.
    #[error("link {0} was made and protected, and its protection cannot be read back")]
    Unprotected(String),
}

/// Makes and removes the links of the last slot, which is the last to be used. Needs root.
///
/// # Errors
/// At the first thing that the host does not do; what was made is removed in any case.
pub fn try_links(node: &NodeName, zone: &Zone) -> Result<(), ScratchError> {
    let no_slot = || ScratchError::NoSlot(zone.network.to_string());
    let network = SlotNetwork::of(node, zone.network, zone.network.last_slot())
        .map_err(SetupError::from)?
        .ok_or_else(no_slot)?;
    let run = |command: Cmd| -> Result<Output, ScratchError> { Ok(command.run_blocking().map_err(SetupError::from)?) };
    let done = |output: &Output| dladm::done(output).map_err(SetupError::from);
    // One that exists may be a machine's: nothing of it is touched.
    done(&run(dladm::create_stub(&network.stub))?)?;
    // Made a moment ago, by commands that refuse what exists.
    let (stub, guest) = (
        Owned::by_rule(network.stub.clone()),
        Owned::by_rule(network.guest.clone()),
    );
    let tried = (|| {
        done(&run(dladm::create_vnic(
            &network.stub,
            network.guest_mac,
            &network.guest,
        ))?)?;
        let tried = (|| {
            done(&run(dladm::protect(&network, &zone.bandwidth))?)?;
            let shown = run(dladm::show_protection(&network.guest))?;
            if dladm::is_protected(&network, Some(&zone.bandwidth), &shown)? {
                Ok(())
            } else {
                Err(ScratchError::Unprotected(network.guest.to_string()))
            }
        })();
        let removed = done(&run(dladm::delete_vnic(&guest))?);
        tried.and_then(|()| Ok(removed?))
    })();
    let removed = done(&run(dladm::delete_stub(&stub))?);
    tried.and_then(|()| Ok(removed?))
}
