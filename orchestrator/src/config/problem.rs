//! What is wrong with a configuration, where, and what to do.

use std::{fmt, io, path::PathBuf};

use miette::{Diagnostic, NamedSource, SourceSpan};

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    pub(super) offset: usize,
    pub(super) length: usize,
}

impl Place {
    pub(super) fn start() -> Self {
        Self {
            line: 1,
            column: 1,
            offset: 0,
            length: 0,
        }
    }
}

/// One problem or warning. Its text never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.place.line, self.place.column, self.message
        )
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let span = SourceSpan::from((self.place.offset, self.place.length));
        Some(Box::new(std::iter::once(miette::LabeledSpan::new_with_span(
            Some("here".to_owned()),
            span,
        ))))
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}")]
    #[diagnostic(help("name another file with --config or HELIOS_CI_CONFIG"))]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// It was read and cannot be used.
    #[error("the configuration {path} cannot be used; problems: {}", .problems.len())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// The text, in which everything that could be a secret is replaced by asterisks.
        #[source_code]
        text: NamedSource<String>,
        /// Everything that is wrong, in the order of the text.
        #[related]
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Every problem, in the order of the text; none when the file could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}
