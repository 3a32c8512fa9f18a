//! What is wrong with a configuration, where, and what to do.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use miette::{Diagnostic, NamedSource, SourceSpan};

use super::load::DEFAULT_PATH;
use crate::yaml::Span;

/// One problem or warning. Its text never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where in it.
    pub span: Span,
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
            self.file, self.span.line, self.span.column, self.message
        )
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let span = SourceSpan::from((self.span.offset, self.span.length));
        Some(Box::new(std::iter::once(miette::LabeledSpan::new_with_span(
            Some("here".to_owned()),
            span,
        ))))
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// There is none.
    #[error("there is no configuration at {path}")]
    #[diagnostic(help("{}", how_to_begin(path)))]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
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
    /// Every problem, in the order of the text; none when there is no file, or it could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Missing { .. } | Self::Read { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

/// What to do where there is no configuration yet.
fn how_to_begin(path: &Path) -> String {
    let init = match path.to_str() {
        Some(DEFAULT_PATH) => "helios-ci config init".to_owned(),
        _ => format!("helios-ci --config {} config init", path.display()),
    };
    let example = example();
    format!(
        "`{init}` asks a few questions and writes one; {} has every key. Another file: --config or HELIOS_CI_CONFIG",
        example.display()
    )
}

/// The example with every key: where packages put it, or in the sources that this program was built in.
fn example() -> PathBuf {
    let beside = ["share/config.example.yaml", "docs/config.example.yaml"];
    let program = std::env::current_exe().unwrap_or_default();
    let mut places = program.ancestors().flat_map(|dir| beside.map(|file| dir.join(file)));
    places
        .find(|file| file.is_file())
        .unwrap_or_else(|| PathBuf::from("docs/config.example.yaml of helios-ci's sources"))
}
