//! What can be wrong with a configuration. Every error is found before any is shown.

use std::{fmt, path::PathBuf};

use super::{Layer, ValueError};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The command line could not be read.
    #[error("{0}")]
    Usage(String),
    /// A value was refused.
    #[error("{setting}: {value:?} ({layer}) {reason}")]
    Value {
        /// The variable's name.
        setting: &'static str,
        /// What was given, `***` for a secret.
        value: String,
        /// Where it was given.
        layer: Layer,
        /// What is wrong with it.
        reason: ValueError,
    },
    /// A setting that others make mandatory is absent.
    #[error("{setting}: must be set when {because}")]
    Missing {
        /// The variable's name.
        setting: &'static str,
        /// What makes it mandatory.
        because: &'static str,
    },
    /// The authentication is of a kind that does not exist.
    #[error("{setting}: {value:?} is not supported; `bearer` is")]
    AuthType {
        /// The variable's name.
        setting: &'static str,
        /// What was given.
        value: String,
    },
    /// A setting makes no sense beside another.
    #[error("{setting}: {reason}")]
    Conflict {
        /// The variable's name.
        setting: &'static str,
        /// Beside which, and what to do.
        reason: &'static str,
    },
    /// Two listeners of one protocol want one port.
    #[error("{first} and {second}: both listen on {protocol} port {port}")]
    PortClash {
        /// One variable.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// What they share.
        port: u16,
    },
    /// A UDP listener takes a port that media is to be sent from.
    #[error("{setting}: port {port} lies in the source ports ({ports}); change one of them")]
    SourcePortClash {
        /// The listener's variable.
        setting: &'static str,
        /// Its port.
        port: u16,
        /// The variable of the range.
        ports: &'static str,
    },
    /// The process would be ended before it has waited.
    #[error("PROXY_GRACE_QUIT_TIMEOUT must be shorter than PROXY_FORCE_QUIT_TIMEOUT, which begins with it")]
    NoGrace,
    /// The TOML file could not be read.
    #[error("failed to read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The TOML file has a key that no setting has.
    #[error("{}: unknown key {key:?}; did you mean {nearest:?}?", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The known key most like it.
        nearest: &'static str,
    },
    /// A TOML value of a type that no setting has.
    #[error("{}: {key:?} must be a string, a whole number, true or false, or a list of these", path.display())]
    KeyType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

/// Everything that is wrong, in the order of the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// The exit status of a process that was told nonsense (`EX_USAGE`).
    pub const EXIT_CODE: u8 = 64;
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [ConfigError::Usage(message)] = self.0.as_slice() {
            return f.write_str(message.trim_end());
        }
        write!(f, "invalid configuration:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}
