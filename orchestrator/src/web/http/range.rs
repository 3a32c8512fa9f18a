//! `Range: bytes=…` of a single range (RFC 9110, section 14). Several ranges, other units and
//! nonsense are ignored, as the standard allows: the whole is served.
//!
//! By hand and not with `http-range-header`: that refuses a last position of more digits than 64 bits hold, which the
//! standard takes for the end, and what is left to do with its answer is as long as this.

/// What a `Range` header asks of something `len` bytes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Everything.
    Whole,
    /// These bytes, never empty and never past the end.
    Part(std::ops::Range<u64>),
    /// Nothing of it is there: 416.
    Unsatisfiable,
}

/// Reads the header's value.
#[must_use]
pub fn parse(value: Option<&str>, len: u64) -> Asked {
    let Some(spec) = value.and_then(|v| v.trim().strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Asked::Whole;
    };
    let number = |text: &str| -> Option<Option<u64>> {
        match text {
            "" => Some(None),
            // More digits than fit mean "past any end".
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
            _ => None,
        }
    };
    match (number(first.trim()), number(last.trim())) {
        (Some(Some(first)), Some(Some(last))) if first > last => Asked::Whole,
        (Some(Some(first)), Some(last)) => {
            if first >= len {
                return Asked::Unsatisfiable;
            }
            Asked::Part(first..last.map_or(len, |l| l.saturating_add(1).min(len)))
        }
        (Some(None), Some(Some(suffix))) => {
            if suffix == 0 || len == 0 {
                return Asked::Unsatisfiable;
            }
            Asked::Part(len.saturating_sub(suffix)..len)
        }
        _ => Asked::Whole,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_the_standard() {
        for (value, len, want) in [
            ("bytes=0-0", 10, Asked::Part(0..1)),
            ("bytes=2-4", 10, Asked::Part(2..5)),
            ("bytes=2-", 10, Asked::Part(2..10)),
            ("bytes=-3", 10, Asked::Part(7..10)),
            ("bytes=-30", 10, Asked::Part(0..10)),
            ("bytes=9-99999999999999999999999", 10, Asked::Part(9..10)),
            ("bytes=10-", 10, Asked::Unsatisfiable),
            ("bytes=-0", 10, Asked::Unsatisfiable),
            ("bytes=0-", 0, Asked::Unsatisfiable),
            ("bytes=4-2", 10, Asked::Whole),
            ("bytes=0-1,4-5", 10, Asked::Whole),
            ("lines=0-1", 10, Asked::Whole),
            ("bytes=x-1", 10, Asked::Whole),
            ("bytes=-", 10, Asked::Whole),
        ] {
            assert_eq!(parse(Some(value), len), want, "{value} of {len}");
        }
        assert_eq!(parse(None, 10), Asked::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_past_the_end(value in "(bytes=)?[0-9x,-]{0,30}", len in 0u64..100) {
            if let Asked::Part(range) = parse(Some(&value), len) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
