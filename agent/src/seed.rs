//! The seed disk: where the node is, how to know it, and the token that proves this machine once.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// The file on the seed disk.
pub const FILE: &str = "helios.json";

/// The format this agent reads.
const VERSION: u32 = 1;

/// A seed is a few hundred bytes; anything much larger is not one.
const MAX_BYTES: u64 = 64 * 1024;

/// A seed that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The file cannot be read.
    #[error("cannot read the seed {path}: is the seed disk mounted there?")]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is far larger than any seed.
    #[error("the seed {path} has {bytes} bytes, more than the {MAX_BYTES} a seed may have")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not the JSON object a seed is.
    #[error("the seed {path} is not a helios.json of version {VERSION}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// One field holds something that cannot be right.
    #[error("the seed's `{field}` {problem}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// Where the node listens for this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address of the guest's network.
    Tcp(SocketAddr),
    /// A UNIX socket, for machines that are processes.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The single-use join token. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token itself, for the join message alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A validated seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The attempt this machine serves for its whole life.
    pub attempt: String,
    /// Where the node listens for the agent.
    pub agent: Address,
    /// SHA-256 of the node's certificate in DER: the only one that is accepted.
    pub fingerprint: [u8; 32],
    /// Proof of identity, useless after the join.
    pub token: Token,
    /// The node's time when the seed was written, in milliseconds since 1970.
    pub time_ms: i64,
    /// A private directory for scripts and for output that does not fit into memory.
    pub state_dir: PathBuf,
    /// This is a real machine: the agent may set its clock, mount cgroups and turn it off.
    pub power_off: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    attempt: String,
    agent: String,
    #[serde(default)]
    git: Option<String>,
    fingerprint: String,
    token: String,
    time_ms: i64,
    state_dir: PathBuf,
    power_off: bool,
}

impl Seed {
    /// Reads and validates `helios.json` in `dir`.
    pub fn read(dir: &Path) -> Result<Self, SeedError> {
        let path = dir.join(FILE);
        let read = |source| SeedError::Read {
            path: path.clone(),
            source,
        };
        let bytes = fs::metadata(&path).map_err(read)?.len();
        if bytes > MAX_BYTES {
            return Err(SeedError::TooLarge { path, bytes });
        }
        let text = fs::read(&path).map_err(read)?;
        let raw = serde_json::from_slice(&text).map_err(|source| SeedError::Parse { path, source })?;
        Self::validate(raw)
    }

    fn validate(raw: Raw) -> Result<Self, SeedError> {
        let wrong = |field, problem: &str| SeedError::Field {
            field,
            problem: problem.to_owned(),
        };
        if raw.version != VERSION {
            return Err(wrong(
                "version",
                &format!("is {}; this agent reads version {VERSION}", raw.version),
            ));
        }
        // A ULID: 26 characters of Crockford's base 32.
        let base32 = |byte: u8| byte.is_ascii_alphanumeric() && !b"ILOUilou".contains(&byte);
        if raw.attempt.len() != 26 || !raw.attempt.bytes().all(base32) {
            return Err(wrong("attempt", "is not a ULID (26 characters of Crockford's base 32)"));
        }
        let agent = address(&raw.agent).map_err(|problem| SeedError::Field {
            field: "agent",
            problem,
        })?;
        if let Some(git) = &raw.git {
            // The agent does not use it (workflows learn it through their environment), yet a seed
            // with a broken one was made wrongly and is better refused here than met by a checkout.
            git.parse::<SocketAddr>()
                .map_err(|_| wrong("git", "is not ADDRESS:PORT"))?;
        }
        let mut fingerprint = [0; 32];
        hex::decode_to_slice(&raw.fingerprint, &mut fingerprint)
            .map_err(|_| wrong("fingerprint", "is not the 64 hexadecimal digits of a SHA-256"))?;
        // Looked at by what it must not be: it travels in a protobuf string and in nothing else.
        let printable = raw.token.bytes().all(|byte| byte.is_ascii_graphic());
        if !raw.token.starts_with("hjt_") || raw.token.len() < 20 || raw.token.len() > 512 || !printable {
            return Err(wrong("token", "is not a join token (hjt_…)"));
        }
        if raw.time_ms <= 0 {
            return Err(wrong("time_ms", "is not a time after 1970"));
        }
        if !raw.state_dir.is_absolute() {
            return Err(wrong("state_dir", "is not an absolute path"));
        }
        Ok(Self {
            attempt: raw.attempt,
            agent,
            fingerprint,
            token: Token(raw.token),
            time_ms: raw.time_ms,
            state_dir: raw.state_dir,
            power_off: raw.power_off,
        })
    }
}

fn address(text: &str) -> Result<Address, String> {
    if let Some(tcp) = text.strip_prefix("tcp:") {
        let address = tcp
            .parse()
            .map_err(|_| format!("names `{tcp}`, which is not ADDRESS:PORT"))?;
        return Ok(Address::Tcp(address));
    }
    match text.strip_prefix("unix:").map(Path::new) {
        Some(path) if path.is_absolute() => Ok(Address::Unix(path.to_owned())),
        Some(_) => Err("names a socket that is not an absolute path".to_owned()),
        None => Err("is neither tcp:ADDRESS:PORT nor unix:/PATH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({
            "version": 1, "attempt": "01J9ZP7Q3V8Y2M4N6R5T0W1X2Y", "agent": "tcp:10.0.2.100:9417",
            "git": "10.0.2.100:9418", "fingerprint": "ab".repeat(32),
            "token": "hjt_0123456789abcdefghij", "time_ms": 1_790_000_000_000_i64,
            "state_dir": "/var/lib/helios-agent", "power_off": true,
        })
    }

    fn read(value: &Value) -> Result<Seed, SeedError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), value.to_string()).unwrap();
        Seed::read(dir.path())
    }

    #[test]
    fn a_good_seed_is_read() {
        let seed = read(&good()).unwrap();
        assert_eq!(seed.agent, Address::Tcp("10.0.2.100:9417".parse().unwrap()));
        assert_eq!(seed.fingerprint, [0xab; 32]);
        assert_eq!(seed.token.expose(), "hjt_0123456789abcdefghij");
        assert!(seed.power_off);
        assert!(
            !format!("{seed:?}").contains("0123456789abcdefghij"),
            "the token is shown"
        );
    }

    #[test]
    fn each_bad_field_is_named() {
        let bad = [
            ("version", json!(2)),
            ("attempt", json!("../../etc/passwd")),
            ("attempt", json!("01J9ZP7Q3V8Y2M4N6R5T0W1X2U")),
            ("agent", json!("10.0.2.100:9417")),
            ("agent", json!("tcp:node:9417")),
            ("agent", json!("unix:agent.sock")),
            ("git", json!("10.0.2.100")),
            ("fingerprint", json!("abcd")),
            ("token", json!("hjt_short")),
            ("token", json!("xxx_0123456789abcdefghij")),
            ("time_ms", json!(0)),
            ("state_dir", json!("var/lib")),
        ];
        for (field, value) in bad {
            let mut seed = good();
            seed[field] = value;
            let message = read(&seed).unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{field}: {message}");
        }
    }

    #[test]
    fn unknown_fields_and_oversized_files_are_refused() {
        let mut seed = good();
        seed["surprise"] = json!(1);
        assert!(matches!(read(&seed), Err(SeedError::Parse { .. })));
        seed["surprise"] = json!("x".repeat(70_000));
        assert!(matches!(read(&seed), Err(SeedError::TooLarge { .. })));
        assert!(matches!(
            Seed::read(Path::new("/nonexistent")),
            Err(SeedError::Read { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_seed_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), bytes).unwrap();
            prop_assert!(Seed::read(dir.path()).is_err());
        }

        #[test]
        fn any_address_parses_or_says_why(text in ".{0,60}") {
            if let Ok(parsed) = address(&text) {
                prop_assert_eq!(address(&parsed.to_string()), Ok(parsed));
            }
        }
    }
}
