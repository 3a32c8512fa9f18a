//! What a call is answered that was refused or failed.

use serde::{Deserialize, Serialize};

/// What every refusal and failure answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// The one thing that went wrong.
    pub error: FailureText,
}

/// Why a call was refused or failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailureText {
    /// For programs: `not_found`, `still_active` …
    pub code: String,
    /// For people.
    pub message: String,
}
