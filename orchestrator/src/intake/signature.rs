//! Webhook signatures: HMAC-SHA256 over the raw bytes, compared in constant time. SHA-1 signatures
//! (`X-Hub-Signature`) are never read, and an empty secret never signs anything.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

use crate::config::WebhookSecret;

/// The signature a delivery shows in one of these headers of its forge's dialect, of which the first that is present
/// counts; none when it shows none that could be right.
#[must_use]
pub fn presented(of_forge: &[(&str, &str)], headers: &HeaderMap) -> Option<[u8; 32]> {
    let (name, prefix) = of_forge.iter().find(|(name, _)| headers.contains_key(*name))?;
    // A header given twice is ambiguous, and no forge does it.
    let mut values = headers.get_all(*name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let mut signature = [0; 32];
    hex::decode_to_slice(value.strip_prefix(prefix)?, &mut signature).ok()?;
    Some(signature)
}

/// The secrets of this connection that made the signature. More than one only where the same secret
/// is configured for several repositories.
pub fn signers<'a>(
    secrets: &'a [WebhookSecret],
    signature: &'a [u8; 32],
    body: &'a [u8],
) -> impl Iterator<Item = &'a WebhookSecret> {
    secrets
        .iter()
        .filter(move |secret| verifies(secret.secret.expose(), signature, body))
}

fn verifies(secret: &str, signature: &[u8; 32], body: &[u8]) -> bool {
    if secret.is_empty() {
        return false;
    }
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.update(body);
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        forge::{Dialect, FORGEJO, GITHUB},
        secret::Secret,
    };

    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const GOOD: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn secrets(all: &[&str]) -> Vec<WebhookSecret> {
        all.iter()
            .map(|s| WebhookSecret {
                secret: Secret::new(*s),
                repository_id: None,
            })
            .collect()
    }

    fn accepted(dialect: &Dialect, headers: &[(&'static str, &str)], with: &[&str]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let headers = map;
        presented(dialect.signature_headers, &headers)
            .is_some_and(|s| signers(&secrets(with), &s, BODY).next().is_some())
    }

    #[test]
    fn the_known_vector_verifies_on_both_kinds() {
        let prefixed = format!("sha256={GOOD}");
        assert!(accepted(&GITHUB, &[("x-hub-signature-256", &prefixed)], &[SECRET]));
        assert!(accepted(&FORGEJO, &[("x-hub-signature-256", &prefixed)], &[SECRET]));
        assert!(accepted(&FORGEJO, &[("x-gitea-signature", GOOD)], &[SECRET]));
        assert!(accepted(&FORGEJO, &[("x-forgejo-signature", GOOD)], &["other", SECRET]));
    }

    #[test]
    fn everything_else_is_refused() {
        let prefixed = format!("sha256={GOOD}");
        let wrong = format!("sha256={}", GOOD.replace('7', "8"));
        for (why, headers, with) in [
            ("no signature", vec![], vec![SECRET]),
            ("empty signature", vec![("x-hub-signature-256", "")], vec![SECRET]),
            (
                "empty after the prefix",
                vec![("x-hub-signature-256", "sha256=")],
                vec![SECRET],
            ),
            (
                "another algorithm's header",
                vec![("x-hub-signature", prefixed.as_str())],
                vec![SECRET],
            ),
            (
                "sha1 in the right header",
                vec![("x-hub-signature-256", "sha1=d03207e4b030cf234e3447bac4d93add4c6643d8")],
                vec![SECRET],
            ),
            ("no prefix", vec![("x-hub-signature-256", GOOD)], vec![SECRET]),
            (
                "another forge's header",
                vec![("x-gitea-signature", GOOD)],
                vec![SECRET],
            ),
            (
                "a wrong digit",
                vec![("x-hub-signature-256", wrong.as_str())],
                vec![SECRET],
            ),
            (
                "cut short",
                vec![("x-hub-signature-256", &prefixed[..70])],
                vec![SECRET],
            ),
            (
                "longer",
                vec![(
                    "x-hub-signature-256",
                    "sha256=00757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
                )],
                vec![SECRET],
            ),
            (
                "another secret",
                vec![("x-hub-signature-256", prefixed.as_str())],
                vec!["it's"],
            ),
            ("no secret", vec![("x-hub-signature-256", prefixed.as_str())], vec![]),
        ] {
            assert!(!accepted(&GITHUB, &headers, &with), "{why}");
        }
        assert!(!accepted(
            &FORGEJO,
            &[("x-forgejo-signature", ""), ("x-gitea-signature", GOOD)],
            &[SECRET]
        ));
    }

    #[test]
    fn an_empty_secret_signs_nothing_even_correctly() {
        let mac = Hmac::<Sha256>::new_from_slice(b"")
            .unwrap()
            .chain_update(BODY)
            .finalize()
            .into_bytes();
        assert!(!accepted(&FORGEJO, &[("x-gitea-signature", &hex::encode(mac))], &[""]));
    }

    #[test]
    fn a_header_given_twice_is_refused() {
        let prefixed = format!("sha256={GOOD}");
        let twice = [
            ("x-hub-signature-256", prefixed.as_str()),
            ("x-hub-signature-256", prefixed.as_str()),
        ];
        assert!(!accepted(&GITHUB, &twice, &[SECRET]));
    }
}
