//! What single values may be: numbers as libc reads them, addresses, names of links, host ids.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::program::dladm::is_link_name;

/// What fits into a buffer of this size with the byte that ends it.
#[must_use]
pub fn cut(text: &str, size: usize) -> &str {
    if text.len() < size {
        return text;
    }
    let end = (0..size).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

fn trimmed(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
}

/// The digits at a text's beginning and what follows.
fn digits(text: &str, radix: u32) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len());
    text.split_at(end)
}

/// A number as zonecfg reads the limits of aliases: nothing at all is 0, a minus is refused wherever it stands.
#[must_use]
pub fn unsigned(text: &str) -> Option<u64> {
    if text.contains('-') {
        return None;
    }
    if text.is_empty() {
        return Some(0);
    }
    let number = trimmed(text);
    let (digits, rest) = digits(number.strip_prefix('+').unwrap_or(number), 10);
    if rest.is_empty() { digits.parse().ok() } else { None }
}

/// Whether an attribute's value is a `uint`.
#[must_use]
pub fn is_unsigned(text: &str) -> bool {
    let text = trimmed(text);
    let positive = text
        .strip_prefix('-')
        .map_or(text, |number| if number == "0" { number } else { text });
    unsigned(positive).is_some()
}

/// Whether an attribute's value is an `int`.
#[must_use]
pub fn is_signed(text: &str) -> bool {
    text.is_empty() || trimmed(text).parse::<i64>().is_ok()
}

/// The limit of a resource control: hexadecimal and octal are read too.
#[must_use]
pub fn limit(text: &str) -> Option<u64> {
    if text.starts_with('-') {
        return None;
    }
    if text.is_empty() {
        return Some(0);
    }
    let number = trimmed(text);
    let number = number.strip_prefix('+').unwrap_or(number);
    let hexadecimal = number.strip_prefix("0x").or_else(|| number.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if number.len() > 1 && number.starts_with('0') => u64::from_str_radix(&number[1..], 8).ok(),
        None => number.parse().ok(),
    }
}

/// The decimal number at a text's beginning and what follows; 0 and all of the text when there is none.
#[must_use]
pub fn leading_number(text: &str) -> (f64, &str) {
    let start = trimmed(text);
    let unsigned = start.strip_prefix(['+', '-']).unwrap_or(start);
    let (whole, mut rest) = digits(unsigned, 10);
    let mut any = !whole.is_empty();
    if let Some(fraction) = rest.strip_prefix('.') {
        let (fraction, after) = digits(fraction, 10);
        if any || !fraction.is_empty() {
            any = true;
            rest = after;
        }
    }
    if !any {
        return (0.0, text);
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let (power, after) = digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent), 10);
        if !power.is_empty() {
            rest = after;
        }
    }
    let number = &start[..start.len() - rest.len()];
    (number.parse().unwrap_or_default(), rest)
}

/// An amount of memory in bytes: a number, possibly a fraction, with a scale or without.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "zonecfg computes it so"
)]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, rest) = leading_number(text);
    if number < 0.0 {
        return None;
    }
    let scale: u64 = match trimmed(rest).to_ascii_uppercase().as_str() {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    // A whole number is exact; a double would round the largest.
    let whole = text[..text.len() - rest.len()].trim().parse::<u64>().ok();
    match whole.and_then(|whole| whole.checked_mul(scale)) {
        Some(bytes) => Some(bytes),
        None => Some((number * scale as f64) as u64),
    }
}

/// An amount of memory as `info` prints it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "it is printed with one digit")]
pub fn scaled(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let (mut number, mut before, mut unit) = (bytes, 0, "");
    for next in ["K", "M", "G", "T"] {
        if number < 1024 {
            break;
        }
        before = number;
        number = (number + 512) >> 10;
        unit = next;
    }
    if before % 1024 != 0 && before >> 10 < 10 {
        format!("{:2.1}{unit}", before as f64 / 1024.0)
    } else {
        format!("{number}{unit}")
    }
}

/// Whether an attribute can have this name.
#[must_use]
pub fn is_attr_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
}

/// What is wrong with a host id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHostId {
    /// It has too many digits.
    TooLong,
    /// It is no number of 32 bits, or the one that means none.
    Invalid,
}

/// Checks a host id.
///
/// # Errors
/// What is wrong with it.
pub fn check_host_id(text: &str) -> Result<(), BadHostId> {
    if text.is_empty() || text.contains(|c: char| c.is_ascii_whitespace()) {
        return Err(BadHostId::Invalid);
    }
    let number = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    let (digits, rest) = digits(number.strip_prefix('+').unwrap_or(number), 16);
    if text.len() - rest.len() >= 11 {
        return Err(BadHostId::TooLong);
    }
    // Nothing after `0x` is 0 to libc.
    match u32::from_str_radix(if number.is_empty() { "0" } else { digits }, 16) {
        Ok(id) if id != u32::MAX && rest.is_empty() => Ok(()),
        _ => Err(BadHostId::Invalid),
    }
}

/// Whether a text is a list of file system types for `fs-allowed`.
#[must_use]
pub fn is_fs_allowed(text: &str) -> bool {
    text.is_empty()
        || text
            .split(',')
            .all(|kind| !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
}

/// Whether a text can be a type of file system: one component of a path.
#[must_use]
pub fn is_fs_type(text: &str) -> bool {
    text.len() < 256 && !text.contains('/') && !matches!(text, "" | "." | "..")
}

/// Whether a text can be a dataset's name: whether there is such a pool is not asked.
#[must_use]
pub fn is_dataset_name(text: &str) -> bool {
    text.len() < 256
        && text
            .split('/')
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.: ".contains(c)))
}

/// What is wrong with an address: the sentence, and whether the forms of addresses follow.
pub type BadAddress = (String, bool);

/// What `atoi` makes of the text after a slash.
fn prefix_length(text: &str) -> i64 {
    let text = trimmed(text);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (digits, _) = digits(unsigned, 10);
    let length = digits.parse().unwrap_or(if digits.is_empty() { 0 } else { i64::MAX });
    if text.starts_with('-') { -length } else { length }
}

/// Checks an address: IPv4 with a prefix length or without, IPv6 with one, or what may be the name of a host, which
/// most mistakes of an IPv4 address are. A router's address needs none.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(text: &str, router: bool) -> Result<(), BadAddress> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (cut(address, 256), Some(prefix_length(prefix))),
        None => (cut(text, 256), None),
    };
    if address.parse::<Ipv6Addr>().is_ok() {
        return match prefix {
            _ if router => Ok(()),
            None => Err((format!("{text}: IPv6 addresses require /prefix-length suffix."), false)),
            Some(0..=128) => Ok(()),
            Some(_) => Err((format!("{text}: IPv6 address prefix lengths must be 0 - 128."), false)),
        };
    }
    if !router && prefix.is_some_and(|length| !(0..=32).contains(&length)) {
        return Err((format!("{text}: IPv4 address prefix lengths must be 0 - 32."), false));
    }
    if address.parse::<Ipv4Addr>().is_ok() || is_attr_name(address) {
        return Ok(());
    }
    Err((format!("{address}: bogus host name or network address syntax"), true))
}

/// Checks the name of an interface.
///
/// # Errors
/// What is wrong with it.
pub fn check_physical(name: &str, exclusive: bool) -> Result<(), String> {
    let invalid = || Err(format!("{name}: invalid physical interface name"));
    if exclusive {
        return match is_link_name(name) {
            true => Ok(()),
            false if name.contains(':') => Err(format!(
                "{name}: physical interface name required; logical interface name not allowed"
            )),
            false => invalid(),
        };
    }
    let (device, logical) = name
        .split_once(':')
        .map_or((name, None), |(device, unit)| (device, Some(unit)));
    let (device, modules) = device
        .split_once('.')
        .map_or((device, None), |(device, rest)| (device, Some(rest)));
    let modules_fit = modules.is_none_or(|modules| modules.split('.').all(|module| !module.is_empty()));
    match logical {
        _ if name.len() >= 32 || !is_link_name(device) || !modules_fit => invalid(),
        Some(unit) if unit.parse::<u32>().is_err() => invalid(),
        Some(_) => Err(format!("{name}: LUNs not allowed in physical interface names")),
        None => Ok(()),
    }
}
