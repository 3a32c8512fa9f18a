//! Where a disk is fetched from.

use std::{fmt, str::FromStr, sync::Arc};

use http::Uri;
use percent_encoding::percent_decode_str;
use url::Url;

/// Longest part of a file's name that comes from an address, in bytes.
const NAME: usize = 80;

/// An address that nothing is fetched from. No text of it is shown, because it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address at all.
    #[error("this is not an address: {0}; write it as https://HOST/PATH")]
    NotAUrl(String),
    /// Another way of fetching.
    #[error("nothing is fetched by `{0}`: give an http or https address, or a file")]
    Scheme(String),
    /// A user's name or a password is in it.
    #[error(
        "the address of {0} holds a user's name or password, which others could read: fetch the file by other means, and import it"
    )]
    Credentials(String),
    /// Sent from where nobody can listen to where everybody can.
    #[error("{from} leads to {to}: from https nothing is fetched by http; ask for another address")]
    Downgrade {
        /// Who said so.
        from: String,
        /// Where to.
        to: String,
    },
}

/// An `http` or `https` address without a user's name or password. It is shown without what follows `?`, as that may
/// be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Arc<Parsed>);

/// The same address as its two users want it.
#[derive(PartialEq, Eq)]
struct Parsed {
    url: Url,
    uri: Uri,
}

impl Address {
    fn new(mut url: Url) -> Result<Self, AddressError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(AddressError::Scheme(url.scheme().chars().take(20).collect()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Credentials(url.host_str().unwrap_or_default().to_owned()));
        }
        url.set_fragment(None);
        let uri = url.as_str().parse().map_err(|e| not_a_url(&e))?;
        Ok(Self(Arc::new(Parsed { url, uri })))
    }

    /// Whether this is meant for us, rather than a file's name.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.split_once("://").is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        })
    }

    /// What is asked for.
    pub(super) fn uri(&self) -> &Uri {
        &self.0.uri
    }

    /// Whether nobody can listen.
    pub(super) fn is_https(&self) -> bool {
        self.0.url.scheme() == "https"
    }

    /// Where an answer from here leads to.
    pub(super) fn follow(&self, location: &str) -> Result<Self, AddressError> {
        let next = Self::new(self.0.url.join(location).map_err(|e| not_a_url(&e))?)?;
        if self.is_https() && !next.is_https() {
            return Err(AddressError::Downgrade {
                from: self.to_string(),
                to: next.to_string(),
            });
        }
        Ok(next)
    }

    /// The name of the file that this address is fetched into: another one for every address, and for people to
    /// recognise.
    pub(super) fn part_name(&self) -> String {
        let last = self
            .0
            .url
            .path_segments()
            .and_then(|mut all| all.next_back())
            .unwrap_or_default();
        let last = percent_decode_str(last).decode_utf8_lossy().into_owned();
        let safe = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name: String = last.chars().filter(safe).take(NAME).collect();
        let name = match name.trim_start_matches('.') {
            "" => "disk",
            name => name,
        };
        let key = crate::digest::sha256_hex(self.0.url.as_str());
        format!("{name}.{}.part", &key[..16])
    }
}

fn not_a_url(reason: &dyn fmt::Display) -> AddressError {
    AddressError::NotAUrl(reason.to_string())
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::new(Url::parse(text).map_err(|e| not_a_url(&e))?)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.url.clone();
        shown.set_query(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn only_addresses_without_a_secret_for_all_to_read_are_taken() {
        for (text, word) in [
            ("ftp://example.org/disk", "nothing is fetched by `ftp`"),
            ("file:///etc/passwd", "nothing is fetched by `file`"),
            ("https://", "not an address"),
            ("https://ada:geheim@example.org/disk", "example.org holds a user's name"),
            ("https://ada@example.org/disk", "user's name"),
            ("https://:geheim@example.org/disk", "password"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("geheim"), "{text}: {error}");
        }
        let signed = address("HTTPS://Example.org/a/disk.qcow2?token=geheim#there");
        for shown in [signed.to_string(), format!("{signed:?}")] {
            assert!(
                shown.contains("https://example.org/a/disk.qcow2") && !shown.contains("geheim"),
                "{shown}"
            );
        }
        assert_eq!(
            signed.uri().to_string(),
            "https://example.org/a/disk.qcow2?token=geheim"
        );
        assert!(Address::is_meant("ftp://x/y") && Address::is_meant("HTTP://x"));
        assert!(!Address::is_meant("disk.qcow2") && !Address::is_meant("./a://b") && !Address::is_meant("://x"));
    }

    #[test]
    fn an_answer_never_leads_out_of_https() {
        let (plain, tls) = (address("http://one/a/b?c"), address("https://one/a/b?c"));
        assert_eq!(plain.follow("../d").unwrap(), address("http://one/d"));
        assert_eq!(tls.follow("//two/d?e").unwrap(), address("https://two/d?e"));
        assert_eq!(plain.follow("https://two/").unwrap(), address("https://two/"));
        assert!(matches!(
            tls.follow("http://one/a/b?c"),
            Err(AddressError::Downgrade { .. })
        ));
        assert!(matches!(tls.follow("HTTP://two/"), Err(AddressError::Downgrade { .. })));
        assert!(matches!(
            tls.follow("https://ada:x@one/"),
            Err(AddressError::Credentials(_))
        ));
        assert!(matches!(tls.follow("file:///disk"), Err(AddressError::Scheme(_))));
    }

    #[test]
    fn files_are_named_so_that_a_person_knows_them() {
        let one = address("https://example.org/debian-13.qcow2").part_name();
        assert!(one.starts_with("debian-13.qcow2.") && one.ends_with(".part"), "{one}");
        assert_ne!(one, address("https://example.net/debian-13.qcow2").part_name());
        assert_ne!(one, address("https://example.org/debian-13.qcow2?v=2").part_name());
        assert_eq!(one, address("https://example.org/debian-13.qcow2#x").part_name());
        assert!(address("https://example.org").part_name().starts_with("disk."));
    }

    proptest! {
        #[test]
        fn no_address_names_a_file_elsewhere(path in "[ -~]{0,120}", query in "[ -~]{0,20}") {
            if let Ok(address) = format!("https://example.org/{path}?geheim{query}").parse::<Address>() {
                let name = address.part_name();
                prop_assert!(!name.contains(['/', '\0']) && !name.starts_with('.') && name.len() < 128, "{}", name);
                prop_assert!(name.ends_with(".part"));
                prop_assert_eq!(address.uri().host(), Some("example.org"));
                prop_assert!(path.contains("geheim") || !address.to_string().contains("?"));
            }
        }

        #[test]
        fn any_text_is_an_address_or_is_refused(text in "\\PC{0,60}", location in "\\PC{0,60}") {
            let _either = text.parse::<Address>();
            if let Ok(next) = address("https://one/").follow(&location) {
                prop_assert!(next.is_https() && next.uri().scheme_str() == Some("https"));
            }
        }
    }
}
