//! Numbers as text, both ways. The rules are those of .NET, in which GitHub's evaluator is written.

/// The number that a text means; not a number (NaN) where it means none. Blanks around it do not count, and nothing at
/// all is 0.
pub(super) fn parse(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "Infinity" {
        let infinity = f64::INFINITY;
        return if text.starts_with('-') { -infinity } else { infinity };
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return integer(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return integer(digits, 8);
    }
    // Rust knows more words (`inf`, `nan`) than the language does.
    let is_decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if is_decimal {
        text.parse().unwrap_or(f64::NAN)
    } else {
        f64::NAN
    }
}

/// Of 32 bits, the highest of which is the sign.
fn integer(digits: &str, radix: u32) -> f64 {
    // The sign, which Rust would take.
    if digits.starts_with('+') {
        return f64::NAN;
    }
    u32::from_str_radix(digits, radix).map_or(f64::NAN, |n| f64::from(n.cast_signed()))
}

/// Digits that a number's text has at most.
const PRECISION: u16 = 15;

/// As .NET's format `G15`: 15 significant digits, with an exponent where the number is very large or small.
pub(super) fn text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    // Minus zero, too.
    if number == 0.0 {
        return "0".into();
    }
    let scientific = format!("{:.*e}", usize::from(PRECISION - 1), number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    let sign = if number < 0.0 { "-" } else { "" };
    if (-4..0).contains(&exponent) {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    if (0..i32::from(PRECISION)).contains(&exponent) {
        let whole = exponent.unsigned_abs() as usize + 1;
        if digits.len() <= whole {
            return format!("{sign}{digits:0<whole$}");
        }
        let (whole, fraction) = digits.split_at(whole);
        return format!("{sign}{whole}.{fraction}");
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let direction = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}E{direction}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_fifteen_digits() {
        for (number, wanted) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (120.0, "120"),
            (0.012, "0.012"),
            (0.1 + 0.2, "0.3"),
            (1.0 / 3.0, "0.333333333333333"),
            (2.0 / 3.0, "0.666666666666667"),
            (0.0001, "0.0001"),
            (0.000_012_34, "1.234E-05"),
            (1e14, "100000000000000"),
            (1e15, "1E+15"),
            (123_456_789_012_345_678.0, "1.23456789012346E+17"),
            (999_999_999_999_999.9, "1E+15"),
            (99_999_999_999_999.9, "99999999999999.9"),
            (1e100, "1E+100"),
            (-5e-324, "-4.94065645841247E-324"),
            (f64::MAX, "1.79769313486232E+308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text(number), wanted);
        }
    }

    #[test]
    fn texts_that_mean_numbers() {
        for (text, wanted) in [
            ("", 0.0),
            (" \t\u{a0}", 0.0),
            (" 12.5 ", 12.5),
            ("+.5", 0.5),
            ("5.", 5.0),
            ("-1e-2", -0.01),
            ("1e400", f64::INFINITY),
            ("0xff", 255.0),
            ("0xFFFFFFFF", -1.0),
            ("0o10", 8.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
        for text in [
            "abc",
            "inf",
            "nan",
            "NaN",
            "infinity",
            "-inf",
            "1,0",
            "1_0",
            "0x",
            "0xg",
            "0x+1",
            "-0x1",
            "0X1",
            "0o8",
            "0x100000000",
            "1 2",
            "--1",
            ".",
            "e1",
            "1e",
        ] {
            assert!(parse(text).is_nan(), "{text:?}");
        }
    }

    proptest::proptest! {
        /// What is written is read as the nearest number of 15 digits.
        #[test]
        fn a_number_is_read_as_it_was_written(bits: u64) {
            let number = f64::from_bits(bits);
            let again = parse(&text(number));
            if number.is_nan() {
                // Its text is no number either.
                proptest::prop_assert!(again.is_nan());
            } else if number.is_finite() && number != 0.0 {
                let wanted: f64 = format!("{number:.14e}").parse().unwrap();
                proptest::prop_assert_eq!(again, wanted);
            } else {
                proptest::prop_assert_eq!(again, number);
            }
        }
    }
}
