//! The sealed checkpoint of an attempt.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::progress::{CHECKPOINT_VERSION, Progress, ProgressV1};
use crate::{
    logs::LogState,
    model::ids::AttemptId,
    seal::{SealError, SealKey},
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
struct Stored<P> {
    progress: P,
    masks: Vec<String>,
    log: LogState,
}

/// What is read first. Every version of a checkpoint says its number here, however else it may look.
#[derive(Deserialize)]
struct Head {
    progress: HeadOfProgress,
}

#[derive(Deserialize)]
struct HeadOfProgress {
    version: u32,
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
    /// A newer daemon wrote it; its shape may be another.
    #[error(
        "the checkpoint of attempt {attempt} has version {found}, and this version of helios-ci knows up to \
         {CHECKPOINT_VERSION}: only a newer helios-ci can go on with it"
    )]
    Newer {
        /// Whose.
        attempt: AttemptId,
        /// Its version.
        found: u32,
    },
    /// The text inside.
    #[error("the checkpoint of attempt {attempt} cannot be written or read")]
    Text {
        /// Whose.
        attempt: AttemptId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Checkpoint {
    /// What is stored of it.
    pub fn seal(&self, key: &SealKey, attempt: AttemptId) -> Result<Vec<u8>, CheckpointError> {
        let stored = Stored {
            progress: self.progress.clone(),
            masks: self.masks.iter().map(|mask| mask.expose().to_owned()).collect(),
            log: self.log.clone(),
        };
        let text = serde_json::to_vec(&stored).map_err(|source| CheckpointError::Text { attempt, source })?;
        Ok(key.seal(attempt, text)?)
    }

    /// Reads the newest; `None` when none was ever written.
    pub async fn load(store: &Store, key: &SealKey, attempt: AttemptId) -> Result<Option<Self>, CheckpointError> {
        let Some(sealed) = store.load_checkpoint(attempt).await? else {
            return Ok(None);
        };
        let text = key.open_sealed(attempt, &sealed)?;
        Self::read(attempt, &text).map(Some)
    }

    fn read(attempt: AttemptId, text: &[u8]) -> Result<Self, CheckpointError> {
        let unreadable = |source| CheckpointError::Text { attempt, source };
        let head: Head = serde_json::from_slice(text).map_err(unreadable)?;
        match head.progress.version {
            0 | 1 => parse::<ProgressV1>(text),
            CHECKPOINT_VERSION => parse::<Progress>(text),
            found => return Err(CheckpointError::Newer { attempt, found }),
        }
        .map_err(unreadable)
    }
}

fn parse<P: DeserializeOwned + Into<Progress>>(text: &[u8]) -> Result<Checkpoint, serde_json::Error> {
    let stored: Stored<P> = serde_json::from_slice(text)?;
    Ok(Checkpoint {
        progress: stored.progress.into(),
        masks: stored.masks.into_iter().map(Secret::new).collect(),
        log: stored.log,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_newer_checkpoint_is_refused_by_its_version_whatever_its_shape() {
        let attempt = AttemptId::new();
        let read = |value: serde_json::Value| Checkpoint::read(attempt, value.to_string().as_bytes());
        let newer = json!({"progress": {"version": CHECKPOINT_VERSION + 1, "phase": ["of", "the", "future"]}});
        let error = read(newer).unwrap_err();
        assert!(
            matches!(error, CheckpointError::Newer { found, .. } if found == CHECKPOINT_VERSION + 1),
            "{error}"
        );
        let same = json!({"progress": {"version": CHECKPOINT_VERSION, "phase": ["of", "the", "future"]}});
        assert!(matches!(read(same), Err(CheckpointError::Text { .. })));
        assert!(matches!(read(json!({"masks": []})), Err(CheckpointError::Text { .. })));
    }

    /// As version 1 wrote it; never to be changed.
    #[test]
    fn a_frozen_checkpoint_of_version_1_is_read_with_its_masks_and_its_log() {
        let frozen = br#"{"progress":{"version":1,"phase":"booting","steps":[
            {"state":"pending","exit_code":null,"message":null,"started_ms":null,"ended_ms":null}],
            "running":null,"next_exec":1,"job_ms":5,"silent_ms":0,"cancelled":null,"survivors":false},
            "masks":["hunter22"],"log":{"acknowledged":7,"left_out":3}}"#;
        let checkpoint = Checkpoint::read(AttemptId::new(), frozen).unwrap();
        assert_eq!(checkpoint.progress.version, CHECKPOINT_VERSION);
        assert_eq!(checkpoint.progress.interpreter.steps().len(), 1);
        assert_eq!(checkpoint.masks[0].expose(), "hunter22");
        assert_eq!((checkpoint.log.acknowledged, checkpoint.log.left_out), (7, 3));
    }
}
