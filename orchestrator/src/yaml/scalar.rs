//! What a plain scalar is, by YAML 1.2's core schema, and how GitHub prints numbers.

/// The type and value of a scalar; a text's value is what was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text,
}

/// Types a plain scalar by the core schema alone: `yes` and `on` are texts, `010` is ten.
/// `Err` for a hexadecimal or octal number that does not fit into 32 bits.
pub(super) fn resolve(text: &str) -> Result<Kind, ()> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Kind::Number(f64::NAN),
        _ => match infinity(text).or_else(|| decimal(text)) {
            Some(number) => Kind::Number(number),
            None => match radix(text) {
                Some(number) => Kind::Number(f64::from(number?)),
                None => Kind::Text,
            },
        },
    })
}

fn infinity(text: &str) -> Option<f64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    matches!(rest, ".inf" | ".Inf" | ".INF").then_some(sign * f64::INFINITY)
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let sound = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e));
    sound.then(|| text.parse().ok()).flatten()
}

fn radix(text: &str) -> Option<Result<i32, ()>> {
    let (digits, base) = match text.get(..2)? {
        "0x" => (&text[2..], 16),
        "0o" => (&text[2..], 8),
        _ => return None,
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    // GitHub reads the bit pattern: 0xffffffff is -1.
    Some(u32::from_str_radix(digits, base).map(u32::cast_signed).map_err(|_| ()))
}

/// Fifteen significant digits without trailing zeros, as GitHub prints numbers (`G15`).
pub(super) fn number_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{value:.14e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-5..15).contains(&exponent) {
        let decimals = usize::try_from(14 - exponent).unwrap_or(0);
        let text = format!("{value:.decimals$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        return if text == "-0" { "0".into() } else { text.into() };
    }
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}E{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Scalar;

    fn as_text(text: &str) -> String {
        let scalar = Scalar {
            kind: resolve(text).unwrap(),
            written: text.to_owned(),
            plain: true,
            bytes: 0..0,
        };
        scalar.text().into_owned()
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for (text, expected) in [
            ("yes", "yes"),
            ("on", "on"),
            ("True", "true"),
            ("~", ""),
            ("010", "10"),
            ("3.10", "3.1"),
            ("1e3", "1000"),
            ("1_000", "1_000"),
            ("0x1F", "31"),
            ("0xffffffff", "-1"),
            ("0o17", "15"),
            ("0b11", "0b11"),
            ("+12", "12"),
            ("-.inf", "-Infinity"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1.2.3", "1.2.3"),
            ("1e", "1e"),
            (".", "."),
            ("-", "-"),
            ("1E400", "Infinity"),
            ("123456789012345678", "1.23456789012346E+17"),
            ("0.000001", "1E-06"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(as_text(text), expected, "{text}");
        }
        assert!(resolve("0x100000000").is_err());
    }
}
