//! One complaint about a workflow file, with its line, for a terminal.

use std::{fmt, sync::Arc};

use miette::{LabeledSpan, NamedSource, Severity as Shade, SourceCode};

use crate::{
    foreign_text::printable,
    model::diagnostic::{Diagnostic, Severity},
};

/// A file's text as a terminal may be shown it.
#[derive(Debug, Clone)]
pub(super) struct ShownFile(Arc<NamedSource<String>>);

impl ShownFile {
    pub fn new(file: &str, text: &str) -> Self {
        // A terminal obeys what it is shown. The byte order mark is no character of the file.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text: String = text
            .chars()
            .flat_map(|c| {
                let (shown, times) = match c {
                    '\n' | '\t' => (c, 1),
                    c if c.is_control() => ('?', c.len_utf8()),
                    c => (c, 1),
                };
                std::iter::repeat_n(shown, times)
            })
            .collect();
        Self(Arc::new(NamedSource::new(printable(file), text)))
    }
}

/// A complaint that miette can render.
#[derive(Debug)]
pub(super) struct Complaint {
    message: String,
    code: String,
    severity: Severity,
    help: Option<String>,
    at: Option<LabeledSpan>,
    source: Option<ShownFile>,
}

impl Complaint {
    pub fn new(one: &Diagnostic, file: &ShownFile) -> Self {
        let text = file.0.inner();
        let begin = offset(text, one.line, one.column);
        // Within the line: a mark over many lines says nothing.
        let line = text[begin..].split('\n').next().unwrap_or_default();
        let mut length = (one.length as usize).min(line.trim_end().len());
        while !line.is_char_boundary(length) {
            length -= 1;
        }
        Self {
            message: format!(
                "{}:{}:{}: {}",
                printable(&one.file),
                one.line,
                one.column,
                printable(&one.message)
            ),
            code: one.code.clone(),
            severity: one.severity,
            help: one.help.as_deref().map(printable),
            at: Some(LabeledSpan::new(None, begin, length)),
            source: Some(file.clone()),
        }
    }

    /// Says how many are not shown.
    pub fn more(count: usize) -> Self {
        Self {
            message: format!("{count} more"),
            code: String::new(),
            severity: Severity::Error,
            help: None,
            at: None,
            source: None,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Complaint {}

impl miette::Diagnostic for Complaint {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.code.is_empty()).then(|| Box::new(&self.code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<Shade> {
        Some(match self.severity {
            Severity::Error => Shade::Error,
            Severity::Unsupported | Severity::Warning => Shade::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|file| &*file.0 as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.at
            .clone()
            .map(|at| Box::new(std::iter::once(at)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

/// Where a character stands in a text, in bytes; behind the end at most.
fn offset(text: &str, line: u32, column: u32) -> usize {
    let (line, column) = (line.max(1) as usize, column.max(1) as usize);
    let before: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = &text[before..];
    let rest = rest.split('\n').next().unwrap_or(rest);
    before + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at)
}
