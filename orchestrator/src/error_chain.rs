//! An error together with its causes, as one line for logs and reports.

use std::error::Error;

/// The error, then each of its causes, parted by colons. The texts are as their errors print them: whoever shows them
/// to strangers passes them through [`crate::foreign_text`].
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The text of the last cause, which says what really happened.
#[must_use]
pub fn innermost(error: &dyn Error) -> String {
    causes(error)
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// The causes of an error, the nearest first.
fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk cannot be read")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_stand_behind_their_error() {
        let error = Outer(std::io::Error::other("input/output error"));
        assert_eq!(chain(&error), "the disk cannot be read: input/output error");
        assert_eq!(innermost(&error), "input/output error");
        assert_eq!(innermost(&error.0), "input/output error");
    }
}
