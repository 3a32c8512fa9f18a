//! Installation tokens: each for as little as its use needs, kept until shortly before it expires,
//! and asked for once however many wait for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as AsyncMutex;

use crate::{clock, forge::ForgeError, secret::Secret};

/// A token is replaced this long before it expires, so that none expires under way.
const EARLY_MS: i64 = 5 * 60 * 1000;
/// More slots than this and those without a valid token are forgotten.
const MANY: usize = 1000;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Find a repository by its path.
    Metadata,
    /// Read refs and fetch.
    Read,
    /// Write check runs.
    Checks,
}

/// The permissions of a token, in GitHub's words. `metadata` comes with every token.
#[derive(Debug, Serialize)]
pub struct Permissions {
    metadata: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    contents: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<&'static str>,
}

/// Which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Whose.
    pub installation: u64,
    /// The only repository it is good for.
    pub repository: Option<u64>,
    /// What for.
    pub purpose: Purpose,
}

/// The body that asks for a token.
#[derive(Debug, Serialize)]
pub struct TokenRequest {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    repository_ids: Vec<u64>,
    permissions: Permissions,
}

impl Scope {
    /// The body that asks for it.
    pub fn request(&self) -> TokenRequest {
        let (contents, checks) = match self.purpose {
            Purpose::Metadata => (None, None),
            Purpose::Read => (Some("read"), None),
            Purpose::Checks => (None, Some("write")),
        };
        TokenRequest {
            repository_ids: self.repository.into_iter().collect(),
            permissions: Permissions {
                metadata: "read",
                contents,
                checks,
            },
        }
    }
}

/// What GitHub answers.
#[derive(Deserialize)]
pub struct TokenAnswer {
    token: String,
    expires_at: chrono::DateTime<chrono::FixedOffset>,
}

/// A token and when it ends.
#[derive(Debug, Clone)]
pub struct Token {
    secret: Secret,
    expires_ms: i64,
}

impl From<TokenAnswer> for Token {
    fn from(answer: TokenAnswer) -> Self {
        Self {
            secret: Secret::new(answer.token),
            expires_ms: answer.expires_at.timestamp_millis(),
        }
    }
}

type Slot = Arc<AsyncMutex<Option<Token>>>;

/// The tokens of one App.
#[derive(Debug, Default)]
pub struct Tokens {
    slots: Mutex<HashMap<Scope, Slot>>,
}

impl Tokens {
    /// A valid token of this scope; `mint` is asked when there is none, by one caller at a time.
    ///
    /// # Errors
    /// What `mint` says.
    pub async fn get(
        &self,
        scope: Scope,
        mint: impl AsyncFnOnce() -> Result<Token, ForgeError>,
    ) -> Result<Secret, ForgeError> {
        let slot = self.slot(scope);
        let mut held = slot.lock().await;
        if let Some(token) = held.as_ref().filter(|t| t.expires_ms - EARLY_MS > clock::now_ms()) {
            return Ok(token.secret.clone());
        }
        // A token that is replaced early may still be the only one to be had, but using it when
        // GitHub does not answer would only fail later and less clearly.
        let token = mint().await?;
        let secret = token.secret.clone();
        *held = Some(token);
        Ok(secret)
    }

    /// Forgets a token that GitHub refused, unless it has been replaced since.
    pub async fn forget(&self, scope: Scope, refused: &Secret) {
        let slot = self.slot(scope);
        let mut held = slot.lock().await;
        if held.as_ref().is_some_and(|t| t.secret == *refused) {
            *held = None;
        }
    }

    fn slot(&self, scope: Scope) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MANY && !slots.contains_key(&scope) {
            let now = clock::now_ms();
            // A slot that is locked is in use.
            slots.retain(|_, slot| {
                slot.try_lock()
                    .map_or(true, |t| t.as_ref().is_some_and(|t| t.expires_ms > now))
            });
        }
        slots.entry(scope).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SCOPE: Scope = Scope {
        installation: 1,
        repository: Some(2),
        purpose: Purpose::Checks,
    };

    fn token(text: &str, life_ms: i64) -> Token {
        Token {
            secret: Secret::new(text),
            expires_ms: clock::now_ms() + life_ms,
        }
    }

    #[tokio::test]
    async fn many_callers_at_once_ask_once() {
        let (tokens, asked) = (Tokens::default(), AtomicU32::new(0));
        let gate = tokio::sync::Semaphore::new(0);
        let ask = || async {
            let mint = async || {
                asked.fetch_add(1, Ordering::SeqCst);
                let _held = gate.acquire().await;
                Ok(token("t", 3_600_000))
            };
            tokens.get(SCOPE, mint).await.unwrap()
        };
        let all = futures::future::join_all((0..20).map(|_| ask()));
        let opener = async {
            tokio::task::yield_now().await;
            gate.add_permits(1);
        };
        let (secrets, ()) = tokio::join!(all, opener);
        assert_eq!((secrets.len(), asked.load(Ordering::SeqCst)), (20, 1));
    }

    #[tokio::test]
    async fn a_token_is_replaced_early_and_when_it_was_refused() {
        let tokens = Tokens::default();
        let get = async |text: &'static str, life| {
            tokens
                .get(SCOPE, async || Ok(token(text, life)))
                .await
                .unwrap()
                .expose()
                .to_owned()
        };
        assert_eq!(get("a", EARLY_MS - 1000).await, "a");
        assert_eq!(get("b", 3_600_000).await, "b", "a was too close to its end");
        assert_eq!(get("c", 3_600_000).await, "b");
        tokens.forget(SCOPE, &Secret::new("a")).await;
        assert_eq!(get("d", 3_600_000).await, "b", "a had been replaced already");
        tokens.forget(SCOPE, &Secret::new("b")).await;
        assert_eq!(get("e", 3_600_000).await, "e");
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let tokens = Tokens::default();
        let failing = async || {
            Err(ForgeError::Refused {
                forge: "f".into(),
                call: "c".into(),
                reason: "r".into(),
            })
        };
        assert!(tokens.get(SCOPE, failing).await.is_err());
        assert!(tokens.get(SCOPE, async || Ok(token("t", 3_600_000))).await.is_ok());
    }

    #[tokio::test]
    async fn slots_do_not_pile_up() {
        let tokens = Tokens::default();
        for repository in 0..3 * u64::try_from(MANY).unwrap() {
            let scope = Scope {
                repository: Some(repository),
                ..SCOPE
            };
            tokens.get(scope, async || Ok(token("t", -1))).await.unwrap();
        }
        assert!(tokens.slots.lock().unwrap().len() <= MANY);
    }

    #[test]
    fn a_request_asks_for_no_more_than_its_purpose() {
        let of = |purpose, repository| {
            serde_json::to_value(
                Scope {
                    installation: 1,
                    repository,
                    purpose,
                }
                .request(),
            )
            .unwrap()
        };
        assert_eq!(
            of(Purpose::Checks, Some(7)),
            serde_json::json!({"repository_ids": [7], "permissions": {"metadata": "read", "checks": "write"}})
        );
        assert_eq!(
            of(Purpose::Metadata, None),
            serde_json::json!({"permissions": {"metadata": "read"}})
        );
    }

    #[test]
    fn an_answer_is_read_and_not_shown() {
        let answer: TokenAnswer =
            serde_json::from_str(r#"{"token":"ghs_x","expires_at":"2016-07-11T22:14:10Z","permissions":{}}"#).unwrap();
        let token = Token::from(answer);
        assert_eq!(token.expires_ms, 1_468_275_250_000);
        assert!(!format!("{token:?}").contains("ghs_x"));
    }
}
