//! Who did something, as it is stored and as it is shown.

/// Who did something, as anybody may read it: the person's name, never a token's id or a user's number on this host.
/// What is stored, and what the audit log says, names both.
#[must_use]
pub fn person(stored: &str) -> String {
    let name = stored.split(" (token ").next().unwrap_or_default();
    match name.strip_prefix("uid ") {
        Some(number) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            "the command line".to_owned()
        }
        _ => name.to_owned(),
    }
}

/// `cancelled by ada: the wrong branch`, as anybody may read it.
#[must_use]
pub fn cancelled_by(stored: &str, reason: &str) -> String {
    let name = person(stored);
    if reason.is_empty() {
        format!("cancelled by {name}")
    } else {
        format!("cancelled by {name}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reads_a_users_number_or_a_tokens_id() {
        for (stored, shown) in [
            ("uid 0 (token 01k9)", "the command line"),
            ("uid 1000", "the command line"),
            ("ada (token 01k9)", "ada"),
            ("ada", "ada"),
            ("uid", "uid"),
            ("uid x", "uid x"),
        ] {
            assert_eq!(person(stored), shown);
        }
    }
}
