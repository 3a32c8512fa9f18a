//! Words of a text as a shell splits it: what the attributes `extraN` go through.

/// The words of a text.
///
/// # Errors
/// A quotation or an escape that does not end.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => {
                let escaped = chars.next().ok_or("ValueError: No escaped character")?;
                word.get_or_insert_default().push(escaped);
            }
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Up to the closing quote. Only double quotes know escapes, and only of themselves and of the escape.
fn quoted(quote: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next().ok_or("ValueError: No closing quotation")? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => {
                let escaped = chars.next().ok_or("ValueError: No escaped character")?;
                if !['"', '\\'].contains(&escaped) {
                    word.push('\\');
                }
                word.push(escaped);
            }
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_and_escapes_are_a_shells() {
        for (text, words) in [
            ("-o a=b  -W", &["-o", "a=b", "-W"][..]),
            ("", &[]),
            ("'a b'c \"d \\\" \\x\" e\\ f ''", &["a bc", "d \" \\x", "e f", ""]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert_eq!(split("'a").unwrap_err(), "ValueError: No closing quotation");
        assert_eq!(split("a\\").unwrap_err(), "ValueError: No escaped character");
    }
}
