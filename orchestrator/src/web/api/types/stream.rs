//! The events of `GET /api/v1/jobs/{id}/logs/stream`, each with the name of its type: `log`, `resync`, `end`.

use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::model::{ids::AttemptId, state::JobState};

/// `log`: one record of the log. The event's id is the `Last-Event-ID` with which the stream goes on behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogRecord {
    /// Where it lies: the `from` with which the stream begins at it.
    pub position: String,
    /// The step that it belongs to, from 0.
    pub step: u32,
    /// `stdout` or `stderr` of the step; `system` for helios-ci's own lines.
    pub channel: String,
    /// When the node received it.
    pub time: String,
    /// Its text. A character that is cut between two records belongs to the second.
    pub text: String,
    /// Its bytes in base64 (RFC 4648, section 4), where they are not those of `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl LogRecord {
    /// The record of these bytes, of which `text` is what a reader of text is shown.
    #[must_use]
    pub fn with_bytes(self, bytes: &[u8]) -> Self {
        let differs = self.text.as_bytes() != bytes;
        Self {
            base64: differs.then(|| STANDARD.encode(bytes)),
            ..self
        }
    }

    /// The record's bytes, exactly as the step wrote them.
    ///
    /// # Errors
    /// When `base64` is not base64.
    pub fn bytes(&self) -> Result<Vec<u8>, DecodeError> {
        match &self.base64 {
            Some(text) => STANDARD.decode(text),
            None => Ok(self.text.as_bytes().to_vec()),
        }
    }
}

/// `resync`: what was read no longer holds, or the log cannot be read here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Resync {
    /// Where this stream goes on; without it the stream ends, and a new one must be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// `end`: the log has ended, and the stream with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogEnd {
    /// The attempt whose log it was; none when the job was never tried.
    pub attempt: Option<AttemptId>,
    /// Where the job stands; after a failure of the infrastructure another attempt follows.
    pub state: Option<JobState>,
}
