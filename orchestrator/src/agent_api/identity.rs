//! The node's TLS identity towards its agents: a self-signed certificate made at first start. Agents
//! pin its fingerprint, which their seed disk tells them, so no authority is involved.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::files::write_private;

/// The certificate with what serving it needs.
#[derive(Clone)]
pub struct Identity {
    /// Hex SHA-256 of the certificate's DER form.
    pub fingerprint: String,
    /// Ready for a TLS acceptor.
    pub tls: Arc<ServerConfig>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// The identity could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file under the data directory.
    #[error("cannot {what} {path}: check the owner and mode of the data directory")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// Which file.
        path: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The certificate or key is unusable.
    #[error("{path} holds no usable TLS identity; remove it and restart when no job runs")]
    Unusable {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Identity {
    /// Reads `<data>/agent-tls.der`, or makes it. The file holds certificate and key in one, so that
    /// a crash never leaves one without the other; it must survive restarts because running agents
    /// pin it.
    ///
    /// # Errors
    /// When the file cannot be read, written or used.
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join("agent-tls.der");
        let shown = path.display().to_string();
        let file = |what| {
            let path = shown.clone();
            move |source| IdentityError::File { what, path, source }
        };
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| IdentityError::Unusable {
            path: shown.clone(),
            source,
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = make().map_err(|e| unusable(e.into()))?;
                write_private(&path, &bytes).map_err(file("write"))?;
                bytes
            }
            Err(error) => return Err(file("read")(error)),
        };
        let (certificate, key) = split(&bytes).ok_or_else(|| unusable("it is cut short".into()))?;
        let fingerprint = crate::digest::sha256_hex(&certificate);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|b| {
                b.with_no_client_auth().with_single_cert(
                    vec![CertificateDer::from(certificate)],
                    PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key)),
                )
            })
            .map_err(|e| unusable(e.into()))?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            fingerprint,
            tls: Arc::new(tls),
        })
    }
}

fn make() -> Result<Vec<u8>, rcgen::Error> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["helios-ci-node".to_owned()])?;
    let mut bytes = Vec::new();
    let key = signing_key.serialize_der();
    for part in [cert.der().as_ref(), key.as_slice()] {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

fn split(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (certificate, rest) = part(bytes)?;
    let (key, rest) = part(rest)?;
    rest.is_empty().then(|| (certificate.to_vec(), key.to_vec()))
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_identity_survives_a_restart_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path()).unwrap();
        let second = Identity::open(dir.path()).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(first.fingerprint.len(), 64);
        let mode = fs::metadata(dir.path().join("agent-tls.der"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("agent-tls.der"), [0, 0, 0, 9, 1]).unwrap();
        let error = Identity::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("agent-tls.der"), "{error}");
        assert_eq!(fs::read(dir.path().join("agent-tls.der")).unwrap(), [0, 0, 0, 9, 1]);
    }
}
