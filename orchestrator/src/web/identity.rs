//! From a request to its [`Caller`]: a bearer token, a session's cookie, or nobody. Tokens and
//! session ids are looked up by their SHA-256; the database holds nothing that could be replayed.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use subtle::ConstantTimeEq;

use super::{
    AppState,
    authorize::{Action, Decision, Identity, RepositoryRef, authorize},
};
use crate::{
    digest::sha256,
    model::trigger::Repository,
    secret::Secret,
    store::{AuditEntry, Exchange, StoreError, TokenRow},
    web::http::{headers::RequestId, problem::Problem},
};

/// What a token begins with.
pub const TOKEN_PREFIX: &str = "hci_";
const TOKEN_LEN: usize = TOKEN_PREFIX.len() + 64;
/// The scope that makes its holder a site admin.
pub const ADMIN_SCOPE: &str = "admin";
/// The scope of a token that opens one session of a site admin and proves nothing else: the code of a login link.
pub const LOGIN_SCOPE: &str = "login";

/// The address at the other end of the connection, put there by [`crate::web::http::serve`].
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// A new token of 256 random bits, to be shown once.
#[must_use]
pub fn new_token() -> Secret {
    Secret::new(format!("{TOKEN_PREFIX}{}", random_hex()))
}

/// What the store keeps of a token; `None` for text that is no token of ours.
#[must_use]
pub fn token_hash(token: &str) -> Option<[u8; 32]> {
    let digits = token.strip_prefix(TOKEN_PREFIX)?;
    let shaped = token.len() == TOKEN_LEN && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    shaped.then(|| sha256(token.as_bytes()))
}

/// 32 random bytes in hexadecimal.
#[must_use]
pub fn random_hex() -> String {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes);
    hex::encode(bytes)
}

/// An open session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The hash of its id.
    pub hash: [u8; 32],
    /// What its forms carry.
    pub csrf: String,
}

/// Who sent the request, from where, and how they proved it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// The session, where a cookie proved it.
    pub session: Option<Session>,
    /// Where from.
    pub address: IpAddr,
    /// The request's id.
    pub request_id: String,
}

impl Caller {
    /// Asks [`authorize`] and words its refusal.
    ///
    /// # Errors
    /// The very answer an absent thing gets, or that a login is needed.
    pub fn may(&self, state: &AppState, action: Action, repository: Option<&Repository>) -> Result<(), Problem> {
        let repository = repository.map(|r| RepositoryRef::of(r, state.config()));
        match authorize(&self.identity, action, repository.as_ref()) {
            Decision::Allow => Ok(()),
            Decision::Deny => Err(Problem::unauthorized()),
            Decision::Hide => Err(Problem::not_found()),
        }
    }

    /// Whether buttons for this action are worth showing.
    #[must_use]
    pub fn sees_button(&self, state: &AppState, action: Action, repository: &Repository) -> bool {
        self.session.is_some() && self.may(state, action, Some(repository)).is_ok()
    }

    /// Whether the caller is a site admin.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        matches!(self.identity, Identity::SiteAdmin { .. })
    }

    /// The answer for what does not exist: the truth for whoever may see everything, the same words as for what is
    /// hidden for everybody else.
    #[must_use]
    pub fn absent(&self, truth: impl FnOnce() -> String) -> Problem {
        if self.is_admin() {
            Problem::absent(truth())
        } else {
            Problem::not_found()
        }
    }

    /// The name to show in the page's header.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.identity {
            Identity::Anonymous => None,
            Identity::SiteAdmin { owner, .. } => Some(owner),
        }
    }

    /// The token that the session's forms must carry; empty without one.
    #[must_use]
    pub fn csrf(&self) -> &str {
        self.session.as_ref().map_or("", |s| &s.csrf)
    }

    /// A form of this session: its token must be the session's own. The origin was checked before.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_csrf(&self, given: &str) -> Result<(), Problem> {
        let known = self
            .session
            .as_ref()
            .is_some_and(|s| bool::from(s.csrf.as_bytes().ct_eq(given.as_bytes())));
        if known {
            Ok(())
        } else {
            Err(Problem::forbidden(
                "This form is stale or was not ours. Go back, reload the page and try again.",
            ))
        }
    }

    /// Writes a row of the audit log.
    ///
    /// # Errors
    /// When it cannot be written: what it would have recorded must not happen unrecorded.
    pub async fn audit(&self, state: &AppState, action: &str, subject: &str) -> Result<(), Problem> {
        state
            .store()
            .audit(self.act(action, subject))
            .await
            .map_err(|e| Problem::internal("writing the audit log", e))
    }

    /// That row, for what the store does in the transaction that writes it.
    #[must_use]
    pub fn act(&self, action: &str, subject: &str) -> AuditEntry {
        let proof = if self.session.is_some() { "session" } else { "token" };
        AuditEntry {
            who: self.identity.who(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            evidence: format!("{proof} from {}", self.address),
            request_id: self.request_id.clone(),
        }
    }
}

/// The identity that a valid token stands for.
#[must_use]
pub fn identity_of(token: &TokenRow) -> Option<Identity> {
    let admin = token.scopes.iter().any(|s| s == ADMIN_SCOPE);
    admin.then(|| Identity::SiteAdmin {
        token: token.id,
        owner: token.owner.clone(),
    })
}

/// Uses up the code of a login link. The row becomes the token of the session that it opens, of a value that nobody
/// knows: whoever revokes it ends the session, and no header proves anything with it.
///
/// # Errors
/// When the store fails.
pub async fn redeem(state: &AppState, code: [u8; 32]) -> Result<Option<TokenRow>, StoreError> {
    let exchange = Exchange {
        shown: code,
        scope: LOGIN_SCOPE.to_owned(),
        hash: sha256(random_hex().as_bytes()),
        scopes: vec![ADMIN_SCOPE.to_owned()],
    };
    state.store().exchange_token(exchange).await
}

/// The value of one cookie. Ours are hexadecimal digits, so there is nothing to unquote or decode that would need a
/// library.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// A request that changes something through a page must come from a page of ours.
///
/// # Errors
/// When its `Origin` is missing or another than that of `public_url`.
pub fn check_origin(state: &AppState, headers: &HeaderMap) -> Result<(), Problem> {
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    if origin == Some(state.origin()) {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "This form did not come from {}. Open the page under that address and try again.",
        state.origin()
    )))
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let mut caller = Self {
            identity: Identity::Anonymous,
            session: None,
            address: parts
                .extensions
                .get::<Peer>()
                .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |p| p.0),
            request_id: parts
                .extensions
                .get::<RequestId>()
                .map(|id| id.0.clone())
                .unwrap_or_default(),
        };
        let failed = |e| Problem::internal("looking up who is asking", e);
        if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
            let hash = value
                .to_str()
                .ok()
                .and_then(|v| v.strip_prefix("Bearer "))
                .and_then(|t| token_hash(t.trim()));
            let Some(hash) = hash else {
                return Err(Problem::unauthorized());
            };
            let token = state.store().find_token(&hash).await.map_err(failed)?;
            caller.identity = token.as_ref().and_then(identity_of).ok_or_else(Problem::unauthorized)?;
        } else if !parts.uri.path().starts_with("/api/") {
            // The API takes tokens only, so no foreign page can make a browser call it.
            let Some(id) = cookie(&parts.headers, state.session_cookie()) else {
                return Ok(caller);
            };
            if id.len() != 64 {
                return Ok(caller);
            }
            let hash = sha256(id.as_bytes());
            let found = state.store().find_session(&hash).await.map_err(failed)?;
            if let Some((row, identity)) = found.and_then(|row| identity_of(&row.token).map(|i| (row, i))) {
                caller.identity = identity;
                caller.session = Some(Session { hash, csrf: row.csrf });
            }
        }
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_shape() {
        let token = new_token();
        assert!(token_hash(token.expose()).is_some());
        assert_ne!(token_hash(token.expose()), token_hash(new_token().expose()));
        for bad in [
            "",
            "hci_",
            &token.expose()[4..],
            &format!("{}0", token.expose()),
            &token.expose().to_uppercase(),
        ] {
            assert!(token_hash(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "x__Host-helios=1; a=b".parse().unwrap());
        headers.append(header::COOKIE, "__Host-helios=2".parse().unwrap());
        assert_eq!(cookie(&headers, "__Host-helios"), Some("2"));
        assert_eq!(cookie(&headers, "helios"), None);
    }
}
