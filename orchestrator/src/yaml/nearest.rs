//! What a misspelt word was meant to be.

/// The candidate most like `text`, when one is like it at all: a slip or two, in any case of letters.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 64 {
        return None;
    }
    let lower = text.to_lowercase();
    // One that is much longer is not like it, and comparing it costs.
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 128)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["runs-on", "steps", "needs", "capacity"];
        assert_eq!(nearest("runs_on", known), Some("runs-on"));
        assert_eq!(nearest("Step", known), Some("steps"));
        assert_eq!(nearest("capcity", known), Some("capacity"));
        assert_eq!(nearest("matrix", known), None);
        assert_eq!(nearest(&"s".repeat(65), known), None);
    }
}
