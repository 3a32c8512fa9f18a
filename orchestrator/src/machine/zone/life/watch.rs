//! One look at all zones for everybody who waits for one: twenty machines that boot cost one `zoneadm list` a
//! second and not twenty. Whoever acts does not ask here but reads for itself.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    machine::{
        step_error::StepError,
        zone::{
            command::zoneadm::{State, Zone},
            host::Host,
        },
    },
    model::names::MachineName,
};

/// How old a look may be.
pub(in crate::machine::zone) const AGE: Duration = Duration::from_secs(1);

/// The newest look, and when it was begun.
#[derive(Debug, Default)]
pub(in crate::machine::zone) struct Watch(tokio::sync::Mutex<Option<(Instant, Arc<Vec<Zone>>)>>);

impl Watch {
    /// Every zone of the host, as it was at most [`AGE`] ago. Those who ask while somebody looks wait for that
    /// look.
    pub(in crate::machine::zone) async fn zones(&self, host: &Host) -> Result<Arc<Vec<Zone>>, StepError> {
        let mut seen = self.0.lock().await;
        if let Some((begun, zones)) = seen.as_ref().filter(|(begun, _)| begun.elapsed() < AGE) {
            tracing::trace!(age = ?begun.elapsed(), "an earlier look at the zones is new enough");
            return Ok(Arc::clone(zones));
        }
        let begun = Instant::now();
        let zones = Arc::new(host.zones().await?);
        *seen = Some((begun, Arc::clone(&zones)));
        Ok(zones)
    }

    /// Where one zone stood at most [`AGE`] ago.
    pub(in crate::machine::zone) async fn state(
        &self,
        host: &Host,
        name: &MachineName,
    ) -> Result<Option<State>, StepError> {
        let zones = self.zones(host).await?;
        Ok(zones
            .iter()
            .find(|zone| zone.name == name.as_str())
            .map(|zone| zone.state.clone()))
    }

    /// What was seen is not so any more: somebody acted.
    pub(in crate::machine::zone) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
