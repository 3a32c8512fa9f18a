//! Seals checkpoints with the node's own key, because they hold masks and environment: who copies
//! the database does not get them.

use std::{io, path::Path};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use crate::{files, model::ids::AttemptId};

/// More than a key has, in bytes; a file of another length is refused.
const KEY_LIMIT: u64 = 1024;

/// The key of this node.
pub struct SealKey(LessSafeKey);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

/// Sealing or opening failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file.
    #[error("cannot use the node's key {path}: check the owner and mode of the data directory")]
    File {
        /// Which file.
        path: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gave no random bytes")]
    Random,
    /// Sealed by another key, for another attempt, or damaged.
    #[error("the checkpoint of attempt {0} was not sealed by this node's key")]
    Foreign(AttemptId),
}

impl SealKey {
    /// Reads `<data>/node.key`, or makes it.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(data_dir: &Path) -> Result<Self, SealError> {
        let path = data_dir.join("node.key");
        let file = |source| SealError::File {
            path: path.display().to_string(),
            source,
        };
        let key = match files::read_bounded(&path, KEY_LIMIT).map_err(file)? {
            Some(key) => key,
            None => {
                let mut key = vec![0; 32];
                SystemRandom::new().fill(&mut key).map_err(|_| SealError::Random)?;
                files::write_private(&path, &key).map_err(file)?;
                key
            }
        };
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| {
            file(io::Error::new(
                io::ErrorKind::InvalidData,
                "it must hold exactly 32 bytes",
            ))
        })?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals bytes for one attempt.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn seal(&self, attempt: AttemptId, mut bytes: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(attempt.to_string()),
                &mut bytes,
            )
            .map_err(|_| SealError::Random)?;
        Ok([nonce.as_slice(), &bytes].concat())
    }

    /// Opens what [`SealKey::seal`] made for the same attempt.
    ///
    /// # Errors
    /// When it was made by another key, for another attempt, or is damaged.
    pub fn open_sealed(&self, attempt: AttemptId, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let foreign = || SealError::Foreign(attempt);
        let (nonce, bytes) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(foreign)?;
        let mut bytes = bytes.to_vec();
        let opened = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(attempt.to_string()),
                &mut bytes,
            )
            .map_err(|_| foreign())?;
        Ok(opened.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_node_and_attempt_can_open() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (AttemptId::new(), AttemptId::new());
        let sealed = SealKey::open(here.path())
            .unwrap()
            .seal(a, b"token=abc".to_vec())
            .unwrap();
        assert!(!sealed.windows(5).any(|w| w == b"token"));
        let again = SealKey::open(here.path()).unwrap();
        assert_eq!(again.open_sealed(a, &sealed).unwrap(), b"token=abc");
        assert!(again.open_sealed(b, &sealed).is_err());
        assert!(SealKey::open(there.path()).unwrap().open_sealed(a, &sealed).is_err());
        assert!(again.open_sealed(a, &sealed[..8]).is_err());
    }
}
