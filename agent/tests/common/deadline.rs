//! How long the agent's tests wait at most. A deadline of a test only ends a hang, so each is at least ten times what
//! the thing takes on an idle machine; `orchestrator/tests/suite/tidy/deadlines.rs` sees to it that every wait of a test is
//! bounded by one of these.

use std::time::Duration;

/// What takes a second or less: a session, a step, a process that ends, an event that arrives.
pub const PROMPT: Duration = Duration::from_secs(90);
