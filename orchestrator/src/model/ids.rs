//! Identities. Every id of ours is a ULID, written in lower case so that it can be part of a zone,
//! dataset or file name as it is; ids order by creation time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// Text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not {kind}: expected 26 letters and digits, the first from 0 to 7, such as 01k9zk6x0f5t3b8w2q7m4d1c0e"
)]
pub struct BadId {
    kind: &'static str,
    text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub struct $name(Ulid);

        impl $name {
            /// A new id, later in order than every id made in an earlier millisecond.
            #[allow(clippy::new_without_default)]
            #[must_use]
            pub fn new() -> Self {
                Self(Ulid::generate())
            }

            /// When the id was made, in milliseconds since 1970.
            #[must_use]
            pub fn created_ms(self) -> i64 {
                i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.to_string().to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { kind: $kind, text: text.chars().take(64).collect() };
                // The first of 26 digits has three bits: more would wrap to another id.
                if text.len() != 26 || !(b'0'..=b'7').contains(&text.as_bytes()[0]) {
                    return Err(bad());
                }
                Ulid::from_string(&text.to_ascii_uppercase()).map(Self).map_err(|_| bad())
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    )*};
}

ids! {
    /// One stored webhook.
    DeliveryId, "a delivery id";
    /// One normalised event: a push, a request through the API, a re-delivery.
    TriggerId, "a trigger id";
    /// One workflow file for one trigger.
    RunId, "a run id";
    /// One job of one run attempt.
    JobId, "a job id";
    /// One try of a job: one machine, one fencing epoch.
    AttemptId, "an attempt id";
    /// One row of the outbox.
    ReportId, "a report id";
    /// An API or login token.
    TokenId, "a token id";
    /// One start of the daemon: what tells two daemons of one node name apart.
    InstanceId, "an instance id";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_in_lower_case() {
        let id = JobId::new();
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text, text.to_ascii_lowercase());
        assert_eq!(text.parse::<JobId>().unwrap(), id);
        assert_eq!(text.to_ascii_uppercase().parse::<JobId>().unwrap(), id);
    }

    #[test]
    fn the_largest_id_is_read_as_itself() {
        let text = "7zzzzzzzzzzzzzzzzzzzzzzzzz";
        assert_eq!(text.parse::<AttemptId>().unwrap().to_string(), text);
    }

    #[test]
    fn foreign_text_is_refused_whole() {
        for text in [
            "",
            "x",
            "../../etc/passwd",
            "01k9zk6x0f5t3b8w2q7m4d1c0",
            "01k9zk6x0f5t3b8w2q7m4d1c0u!",
            "zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "80000000000000000000000000",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
