//! Values of a workflow file that are known, or that an expression gives later.

use serde::{Deserialize, Serialize};

/// Where something is written in a workflow file. Stored as `[line, column, start, end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 4]", into = "[u32; 4]")]
pub struct PlanSpan {
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
    /// Its first byte in the file's text, which is without a byte order mark.
    pub start: u32,
    /// The byte after its last one; equal to `start` where only line and column are known, as of lists, of mappings and
    /// of everything in a plan of version 1.
    pub end: u32,
}

/// A value, or the text of an expression (`${{ … }}`) that gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Template<T> {
    /// The value.
    Literal {
        /// As it is used.
        value: T,
        /// Absent for what the file does not say: a default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        span: Option<PlanSpan>,
    },
    /// Text that must be evaluated first.
    Expression {
        /// As it is written, unevaluated.
        text: String,
        /// Of the whole text.
        span: PlanSpan,
    },
}

/// An expression was asked for its value, which only evaluating it gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} is an expression (line {}, column {}), and this version of helios-ci cannot evaluate it: write the value \
     itself, or run it on a newer server",
    span.line,
    span.column
)]
pub struct Unevaluated {
    /// The key of the workflow file, and whose: `timeout-minutes of the job build`.
    pub what: String,
    /// Where the expression is written.
    pub span: PlanSpan,
}

impl PlanSpan {
    /// A position whose bytes are not known.
    #[must_use]
    pub fn at(line: u32, column: u32) -> Self {
        Self {
            line,
            column,
            start: 0,
            end: 0,
        }
    }
}

impl From<[u32; 4]> for PlanSpan {
    fn from([line, column, start, end]: [u32; 4]) -> Self {
        Self {
            line,
            column,
            start,
            end,
        }
    }
}

impl From<PlanSpan> for [u32; 4] {
    fn from(span: PlanSpan) -> Self {
        [span.line, span.column, span.start, span.end]
    }
}

impl<T> Template<T> {
    /// A value that the file does not say.
    pub fn default_of(value: T) -> Self {
        Self::Literal { value, span: None }
    }

    /// A value that the file says there.
    pub fn literal(value: T, span: PlanSpan) -> Self {
        Self::Literal {
            value,
            span: Some(span),
        }
    }

    /// Where it is written.
    #[must_use]
    pub fn span(&self) -> Option<PlanSpan> {
        match self {
            Self::Literal { span, .. } => *span,
            Self::Expression { span, .. } => Some(*span),
        }
    }

    /// The value. `what` names it in the error: a key of the file, and whose it is.
    ///
    /// # Errors
    /// When it is an expression.
    pub fn value(&self, what: impl FnOnce() -> String) -> Result<&T, Unevaluated> {
        match self {
            Self::Literal { value, .. } => Ok(value),
            Self::Expression { span, .. } => Err(Unevaluated {
                what: what(),
                span: *span,
            }),
        }
    }
}

impl Template<String> {
    /// What people are shown: the value, or the expression as it is written.
    #[must_use]
    pub fn shown(&self) -> &str {
        match self {
            Self::Literal { value, .. } => value,
            Self::Expression { text, .. } => text,
        }
    }
}

/// The values of an `env:` or a `with:`. `what` names one of them in the error, from its key.
///
/// # Errors
/// When one is an expression.
pub fn values(
    pairs: &[(String, Template<String>)],
    what: impl Fn(&str) -> String,
) -> Result<Vec<(String, String)>, Unevaluated> {
    let value = |(key, template): &(String, Template<String>)| {
        let value = template.value(|| what(key))?;
        Ok((key.clone(), value.clone()))
    };
    pairs.iter().map(value).collect()
}

/// A part of a workflow file that is data of any shape, such as a matrix. Expressions stand where they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// One value: null, a truth value, a number or a text.
    Scalar(Template<serde_json::Value>),
    /// A list.
    Sequence(Vec<Data>),
    /// A mapping in the order of the file.
    Mapping(Vec<(String, Data)>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_gives_no_value_and_says_where_it_stands() {
        let span = PlanSpan {
            line: 7,
            column: 24,
            start: 90,
            end: 105,
        };
        let expression: Template<u32> = Template::Expression {
            text: "${{ inputs.m }}".into(),
            span,
        };
        let error = expression
            .value(|| "`timeout-minutes` of the job `build`".into())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`timeout-minutes` of the job `build` is an expression (line 7, column 24), and this version of helios-ci \
             cannot evaluate it: write the value itself, or run it on a newer server"
        );
        let stored = serde_json::to_string(&expression).unwrap();
        assert_eq!(
            stored,
            r#"{"expression":{"text":"${{ inputs.m }}","span":[7,24,90,105]}}"#
        );
        assert_eq!(serde_json::from_str::<Template<u32>>(&stored).unwrap(), expression);
    }

    #[test]
    fn a_value_is_stored_with_its_place_where_it_has_one() {
        let written = Template::literal(5_u32, PlanSpan::at(3, 4));
        assert_eq!(written.value(String::new), Ok(&5));
        for (template, stored) in [
            (written, r#"{"literal":{"value":5,"span":[3,4,0,0]}}"#),
            (Template::default_of(5), r#"{"literal":{"value":5}}"#),
        ] {
            assert_eq!(serde_json::to_string(&template).unwrap(), stored);
            assert_eq!(serde_json::from_str::<Template<u32>>(stored).unwrap(), template);
        }
    }
}
