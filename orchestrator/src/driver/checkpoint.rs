//! The sealed checkpoint of an attempt.

use serde::{Deserialize, Serialize};

use super::{
    progress::{CHECKPOINT_VERSION, Progress},
    seal::{SealError, SealKey},
};
use crate::{
    logs::LogState,
    model::ids::AttemptId,
    secret::Secret,
    store::{Store, StoreError},
};

/// What a daemon that takes over needs beyond the stored plan.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// The state machine.
    pub progress: Progress,
    /// What must not appear in the log.
    pub masks: Vec<Secret>,
    /// What the log must know if the disk forgets its end.
    pub log: LogState,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    progress: Progress,
    masks: Vec<String>,
    log: LogState,
}

/// A checkpoint could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The seal.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The text inside.
    #[error("the checkpoint of attempt {attempt} cannot be read: was it written by a newer helios-ci?")]
    Text {
        /// Whose.
        attempt: AttemptId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Checkpoint {
    /// Stores it; `false` when another daemon owns the attempt by now.
    pub async fn store(
        &self,
        store: &Store,
        key: &SealKey,
        attempt: AttemptId,
        epoch: i64,
    ) -> Result<bool, CheckpointError> {
        let stored = Stored {
            progress: self.progress.clone(),
            masks: self.masks.iter().map(|mask| mask.expose().to_owned()).collect(),
            log: self.log,
        };
        let text = serde_json::to_vec(&stored).map_err(|source| CheckpointError::Text { attempt, source })?;
        let sealed = key.seal(attempt, text)?;
        Ok(store.checkpoint(attempt, epoch, &sealed).await?)
    }

    /// Reads the newest; `None` when none was ever written.
    pub async fn load(store: &Store, key: &SealKey, attempt: AttemptId) -> Result<Option<Self>, CheckpointError> {
        let Some(sealed) = store.load_checkpoint(attempt).await? else {
            return Ok(None);
        };
        let text = key.open_sealed(attempt, &sealed)?;
        let stored: Stored =
            serde_json::from_slice(&text).map_err(|source| CheckpointError::Text { attempt, source })?;
        if stored.progress.version > CHECKPOINT_VERSION {
            let source =
                <serde_json::Error as serde::de::Error>::custom(format!("version {}", stored.progress.version));
            return Err(CheckpointError::Text { attempt, source });
        }
        Ok(Some(Self {
            progress: stored.progress,
            masks: stored.masks.into_iter().map(Secret::new).collect(),
            log: stored.log,
        }))
    }
}
