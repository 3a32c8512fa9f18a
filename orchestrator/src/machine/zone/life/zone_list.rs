//! One poll of all zones, shared by all calls that wait for one: twenty machines that boot cost one `zoneadm list` a
//! second and not twenty. A call that acts queries the host itself.

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

/// The oldest list that is still given out.
pub(in crate::machine::zone) const MAX_AGE: Duration = Duration::from_secs(1);

/// The newest list, and when its poll began.
#[derive(Debug, Default)]
pub(in crate::machine::zone) struct ZoneList(tokio::sync::Mutex<Option<(Instant, Arc<Vec<Zone>>)>>);

impl ZoneList {
    /// Every zone of the host, as it was at most [`MAX_AGE`] ago. Callers during a poll share its result.
    pub(in crate::machine::zone) async fn zones(&self, host: &Host) -> Result<Arc<Vec<Zone>>, StepError> {
        let mut newest = self.0.lock().await;
        if let Some((begun, zones)) = newest.as_ref().filter(|(begun, _)| begun.elapsed() < MAX_AGE) {
            tracing::trace!(age = ?begun.elapsed(), "an earlier list of the zones is new enough");
            return Ok(Arc::clone(zones));
        }
        let begun = Instant::now();
        let zones = Arc::new(host.zones().await?);
        *newest = Some((begun, Arc::clone(&zones)));
        Ok(zones)
    }

    /// The state of one zone at most [`MAX_AGE`] ago.
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

    /// Drops the list, because the caller has changed a zone.
    pub(in crate::machine::zone) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
