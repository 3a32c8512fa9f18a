//! Who is calling: people's tokens, the GitHub App's signed word, and installation tokens.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header::AUTHORIZATION};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::Value;

use crate::{
    Error,
    access::Scopes,
    state::{ForgeState, Kind, Repository},
};

/// The test key. It is public: see the first line of the file.
pub(crate) const TEST_KEY: &str = include_str!("../testkey.pem");

/// What a token may do, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grant {
    /// A person's (or bot's) token.
    Person { login: String, scopes: Scopes },
    /// An App installation's token.
    Installation {
        id: i64,
        permissions: BTreeMap<String, String>,
        expires_ms: i64,
    },
}

/// A token the forge accepts.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) secret: String,
    pub(crate) grant: Grant,
    /// Only these repositories; all when `None`.
    pub(crate) repositories: Option<Vec<i64>>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?})", self.grant)
    }
}

impl Token {
    /// Whether the token covers the repository at all; forges answer 404 where it does not.
    pub(crate) fn covers(&self, repository: &Repository) -> bool {
        let listed = self
            .repositories
            .as_ref()
            .is_none_or(|ids| ids.contains(&repository.id));
        listed
            && match &self.grant {
                Grant::Person { .. } => true,
                Grant::Installation { id, .. } => repository.installation == Some(*id),
            }
    }

    /// Whether it may do this: `permission` is GitHub's word for it (`checks`, `contents`…).
    pub(crate) fn may(&self, permission: &str, write: bool) -> bool {
        match &self.grant {
            Grant::Person { scopes, .. } => scopes.have("repository", write),
            Grant::Installation { permissions, .. } => match permissions.get(permission).map(String::as_str) {
                Some("write" | "admin") => true,
                Some("read") => !write,
                _ => permission == "metadata" && !write,
            },
        }
    }

    /// What it was made for, where it is a person's.
    pub(crate) fn scopes(&self) -> Option<&Scopes> {
        match &self.grant {
            Grant::Person { scopes, .. } => Some(scopes),
            Grant::Installation { .. } => None,
        }
    }

    /// The login that payloads show as sender.
    pub(crate) fn login(&self) -> String {
        match &self.grant {
            Grant::Person { login, .. } => login.clone(),
            Grant::Installation { .. } => "helios-ci[bot]".to_owned(),
        }
    }
}

/// What the `Authorization` header holds.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    None,
    Token(String),
    Jwt(String),
    Basic(String),
}

impl Credential {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(text) = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
            return Self::None;
        };
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" if rest.split('.').count() == 3 => Self::Jwt(rest.to_owned()),
            "bearer" | "token" => Self::Token(rest.to_owned()),
            "basic" => {
                let decoded = STANDARD.decode(rest).ok().and_then(|b| String::from_utf8(b).ok());
                let (user, password) = decoded
                    .as_deref()
                    .and_then(|text| text.split_once(':'))
                    .unwrap_or_default();
                // Forges take a token in either place.
                Self::Basic(if password.is_empty() { user } else { password }.to_owned())
            }
            _ => Self::Token(String::new()),
        }
    }

    /// How the caller authenticated, without the credential.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token(_) => "token",
            Self::Jwt(_) => "jwt",
            Self::Basic(_) => "basic",
        }
    }

    /// The token behind it, if the forge gave it out and it has not expired.
    pub(crate) fn token(&self, state: &ForgeState, kind: Kind, now_ms: i64) -> Option<Token> {
        let (Self::Token(secret) | Self::Basic(secret)) = self else {
            return None;
        };
        let token = state
            .tokens
            .iter()
            .find(|t| !secret.is_empty() && t.secret == *secret)?;
        match token.grant {
            Grant::Installation { expires_ms, .. } if expires_ms <= now_ms || kind != Kind::Github => None,
            _ => Some(token.clone()),
        }
    }
}

pub(crate) struct App {
    pub(crate) id: u64,
    public_key: Vec<u8>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "App({})", self.id)
    }
}

impl App {
    /// The App with the test key.
    pub(crate) fn with_test_key(id: u64) -> Result<Self, Error> {
        let base64: String = TEST_KEY
            .lines()
            .skip_while(|line| !line.starts_with("-----BEGIN"))
            .skip(1)
            .take_while(|line| !line.starts_with("-----END"))
            .collect();
        let der = STANDARD.decode(base64).map_err(|e| Error::TestKey(e.to_string()))?;
        let pair = RsaKeyPair::from_der(&der).map_err(|e| Error::TestKey(e.to_string()))?;
        Ok(Self {
            id,
            public_key: pair.public_key().as_ref().to_vec(),
        })
    }

    /// Checks an App's word as GitHub does: RS256, our id as issuer, issued in the past, at most ten
    /// minutes to live.
    pub(crate) fn verify(&self, jwt: &str, now_ms: i64) -> Result<(), &'static str> {
        const UNREADABLE: &str = "A JSON web token could not be decoded";
        let (signed, signature) = jwt.rsplit_once('.').ok_or(UNREADABLE)?;
        let (header, claims) = signed.split_once('.').ok_or(UNREADABLE)?;
        let json = |part: &str| -> Result<Value, &'static str> {
            let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| UNREADABLE)?;
            serde_json::from_slice(&bytes).map_err(|_| UNREADABLE)
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| UNREADABLE)?;
        if json(header)?["alg"] != "RS256" {
            return Err(UNREADABLE);
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| UNREADABLE)?;
        let claims = json(claims)?;
        let now = now_ms / 1000;
        let issuer = &claims["iss"];
        if issuer.as_u64() != Some(self.id) && issuer.as_str() != Some(&self.id.to_string()) {
            return Err("'Issuer' claim ('iss') must be the App's id");
        }
        let issued = claims["iat"].as_i64().ok_or("Missing 'issued at' claim ('iat')")?;
        if issued > now {
            return Err(
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
            );
        }
        let expires = claims["exp"]
            .as_i64()
            .ok_or("Missing 'expiration time' claim ('exp')")?;
        if expires <= now {
            return Err("'Expiration time' claim ('exp') must be a numeric value representing the future time");
        }
        if expires - now > 600 {
            return Err("'Expiration time' claim ('exp') is too far in the future");
        }
        Ok(())
    }
}

/// A new unguessable secret with this prefix.
pub(crate) fn new_secret(prefix: &str) -> String {
    let bytes: [u8; 20] = rand::random();
    format!("{prefix}{}", hex::encode(bytes))
}
