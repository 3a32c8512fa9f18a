//! Text without regard to upper and lower case, as GitHub compares it: character by character, never by language.

use std::cmp::Ordering;

/// A character's capital, where it has one that is one character. The dotless `ı` keeps to itself.
fn capital(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    let mut capitals = c.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) if c != 'ı' => capital,
        _ => c,
    }
}

/// The text in capitals.
pub(super) fn capitals(text: &str) -> String {
    if text.is_ascii() {
        text.to_ascii_uppercase()
    } else {
        text.chars().map(capital).collect()
    }
}

/// Whether two texts are one.
pub(super) fn equal(left: &str, right: &str) -> bool {
    if left.is_ascii() && right.is_ascii() {
        return left.eq_ignore_ascii_case(right);
    }
    left.chars().map(capital).eq(right.chars().map(capital))
}

/// Which comes first, by the code units of UTF-16: those of characters beyond 16 bits are lower than the last of 16 bits.
pub(super) fn order(left: &str, right: &str) -> Ordering {
    let unit = |c: char| match u32::from(capital(c)) {
        beyond @ 0x1_0000.. => (0xD800, beyond),
        unit => (unit, 0),
    };
    left.chars().map(unit).cmp(right.chars().map(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_one_sound_are_equal_in_every_case_but_the_dotless_i() {
        for (left, right, wanted) in [
            ("abc", "ABC", true),
            ("ς", "Σ", true),
            ("ς", "σ", true),
            ("Straße", "STRASSE", false),
            ("Straße", "STRAßE", true),
            ("ı", "I", false),
            ("İ", "i", false),
            ("ǆ", "Ǆ", true),
            ("a", "ab", false),
        ] {
            assert_eq!(equal(left, right), wanted, "{left} {right}");
            assert_eq!(capitals(left) == capitals(right), wanted, "{left} {right}");
            assert_eq!(order(left, right) == Ordering::Equal, wanted, "{left} {right}");
        }
    }

    #[test]
    fn the_order_is_that_of_utf_16() {
        assert_eq!(order("a", "["), Ordering::Less);
        assert_eq!(order("I", "ı"), Ordering::Less);
        assert_eq!(order("\u{10000}", "\u{ffff}"), Ordering::Less);
        assert_eq!(order("\u{10000}", "\u{10001}"), Ordering::Less);
        assert_eq!(order("ab", "A"), Ordering::Greater);
    }
}
