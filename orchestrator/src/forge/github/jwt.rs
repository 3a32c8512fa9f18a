//! The App's JSON Web Token: RS256, signed with `ring`, because octocrab's own signing pulls in an
//! RSA crate with an open advisory.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::json;

use crate::secret::Secret;

/// GitHub refuses tokens that live longer than 10 min; the last of them is left to clocks that differ.
const LIFE_S: i64 = 9 * 60;
/// A token that seems to come from the future is refused too.
const SKEW_S: i64 = 60;

/// A private key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not PEM.
    #[error("the App's private key is not PEM: use the file that GitHub's `Generate a private key` downloads")]
    NotPem,
    /// Not RSA, or of a size that is not taken.
    #[error("the App's private key is not an RSA key of 2048 to 4096 bits ({0})")]
    NotRsa(String),
}

/// An App's key.
pub struct SigningKey {
    app_id: u64,
    pair: RsaKeyPair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a key in PKCS#1 (what GitHub hands out) or PKCS#8.
    ///
    /// # Errors
    /// When it is neither.
    pub fn new(app_id: u64, pem: &Secret) -> Result<Self, BadKey> {
        let der = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| BadKey::NotPem)?;
        let pair = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(BadKey::NotRsa("another kind of key".to_owned())),
        };
        pair.map(|pair| Self { app_id, pair })
            .map_err(|error| BadKey::NotRsa(error.to_string()))
    }

    /// The App's id.
    pub fn app_id(&self) -> u64 {
        self.app_id
    }

    /// A token that is valid now, in seconds since 1970. None when the operating system gives no
    /// random bytes.
    pub fn token(&self, now_s: i64) -> Option<Secret> {
        let claims = json!({
            "iat": now_s - SKEW_S,
            "exp": now_s + LIFE_S,
            "iss": self.app_id.to_string(),
        });
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .ok()?;
        Some(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

#[cfg(test)]
pub mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    /// Made for these tests; no App knows it.
    pub const PKCS1: &str = include_str!("testdata/app.pkcs1.pem");
    const PKCS8: &str = include_str!("testdata/app.pkcs8.pem");

    #[test]
    fn both_encodings_sign_the_same_verifiable_token_at_a_frozen_time() {
        let keys = [PKCS1, PKCS8].map(|pem| SigningKey::new(17, &Secret::new(pem)).unwrap());
        let tokens = keys.each_ref().map(|key| key.token(1_700_000_000).unwrap());
        assert_eq!(tokens[0], tokens[1]);
        let token = tokens[0].expose();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, keys[0].pair.public());
        public
            .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
            .unwrap();
        let part = |n: usize| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').nth(n).unwrap()).unwrap()).unwrap()
        };
        assert_eq!(part(0), json!({"alg": "RS256", "typ": "JWT"}));
        assert_eq!(
            part(1),
            json!({"iat": 1_699_999_940, "exp": 1_700_000_540, "iss": "17"})
        );
        assert!(part(1)["exp"].as_i64().unwrap() - part(1)["iat"].as_i64().unwrap() <= 600);
    }

    #[test]
    fn other_keys_are_refused_without_showing_them() {
        let refuse = |pem: &str| SigningKey::new(1, &Secret::new(pem)).map(|_| ()).unwrap_err();
        assert_eq!(refuse("not a key"), BadKey::NotPem);
        let garbage = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert!(matches!(refuse(garbage), BadKey::NotRsa(_)));
        let key = SigningKey::new(17, &Secret::new(PKCS1)).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { app_id: 17, .. }");
    }
}
