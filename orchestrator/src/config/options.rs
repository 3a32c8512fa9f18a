//! How a configuration is loaded.

/// How to load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Secrets may be `env:NAME`. For development: other processes can read an environment.
    pub dev_env_secrets: bool,
}
