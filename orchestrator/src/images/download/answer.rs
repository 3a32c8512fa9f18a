//! What a server's answer means for what is there already. Pure.

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// Longest validator that is remembered, in bytes.
const LONGEST_VALIDATOR: usize = 1024;

/// What an earlier call left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Bytes that are there.
    pub bytes: u64,
    /// What the server called the file that they are of.
    pub validator: Validator,
}

/// A server's word for one state of a file, and no other: a strong `ETag`, else `Last-Modified`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validator(HeaderValue);

impl Validator {
    /// What was remembered, or answered.
    pub(super) fn new(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        // A weak tag may stand for other bytes.
        let usable = !text.is_empty() && text.len() <= LONGEST_VALIDATOR && !text.starts_with("W/");
        HeaderValue::from_str(text).ok().filter(|_| usable).map(Self)
    }

    fn of(headers: &HeaderMap) -> Option<Self> {
        [header::ETAG, header::LAST_MODIFIED]
            .iter()
            .find_map(|name| Self::new(headers.get(name)?.as_bytes()))
    }

    /// As it is sent.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.0
    }
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of the file follows.
    Whole {
        /// Its length, when said.
        total: Option<u64>,
        /// What to call it.
        validator: Option<Validator>,
    },
    /// What is missing follows.
    Rest {
        /// The length of all of it, when said.
        total: Option<u64>,
    },
    /// All of it is there.
    Complete,
    /// What is there does not go with what the server has: it is asked for all of it.
    StartOver,
    /// It is elsewhere.
    Elsewhere(String),
    /// It is not given.
    Refused,
}

/// Reads the head of an answer to a request for all of a file, or for the rest of it.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, length: Option<u64>, kept: Option<&Kept>) -> Answer {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let range = text(header::CONTENT_RANGE).and_then(content_range);
    // Who answers a request for the rest should know that the file is the same.
    let same = |kept: &Kept| Validator::of(headers).is_none_or(|validator| validator == kept.validator);
    match (status, kept) {
        (StatusCode::OK, _) => Answer::Whole {
            total: length,
            validator: Validator::of(headers),
        },
        (StatusCode::PARTIAL_CONTENT, Some(kept)) => match range {
            Some(Range::Of { first, total }) if first == kept.bytes && same(kept) => Answer::Rest {
                total: total.or_else(|| first.checked_add(length?)),
            },
            _ => Answer::StartOver,
        },
        (StatusCode::RANGE_NOT_SATISFIABLE, Some(kept)) => match range {
            Some(Range::None { total }) if total == kept.bytes && same(kept) => Answer::Complete,
            _ => Answer::StartOver,
        },
        (
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT,
            _,
        ) => text(header::LOCATION).map_or(Answer::Refused, |to| Answer::Elsewhere(to.to_owned())),
        _ => Answer::Refused,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Range {
    /// These bytes follow.
    Of { first: u64, total: Option<u64> },
    /// None follow.
    None { total: u64 },
}

/// `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10` (RFC 9110, 14.4).
fn content_range(text: &str) -> Option<Range> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.split_once('/')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if range == "*" {
        return Some(Range::None { total: number(total)? });
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = match total {
        "*" => None,
        total => Some(number(total)?),
    };
    (first <= last && total.is_none_or(|total| last < total)).then_some(Range::Of { first, total })
}

fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], kept: Option<u64>) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let kept = kept.map(|bytes| Kept {
            bytes,
            validator: Validator::new(b"\"a\"").unwrap(),
        });
        read(StatusCode::from_u16(status).unwrap(), &headers, Some(7), kept.as_ref())
    }

    #[test]
    fn what_goes_with_what_is_there_continues_and_all_else_begins_anew() {
        let rest = |total| Answer::Rest { total };
        for (status, headers, wanted) in [
            (206, &[("content-range", "bytes 5-11/12")][..], rest(Some(12))),
            (
                206,
                &[("content-range", "BYTES 5-11/*"), ("etag", "\"a\"")],
                rest(Some(12)),
            ),
            (
                206,
                &[("content-range", "bytes 5-11/12"), ("etag", "\"b\"")],
                Answer::StartOver,
            ),
            (206, &[("content-range", "bytes 4-11/12")], Answer::StartOver),
            (206, &[("content-range", "bytes 5-11/11")], Answer::StartOver),
            (206, &[], Answer::StartOver),
            (206, &[("content-type", "multipart/byteranges")], Answer::StartOver),
            (416, &[("content-range", "bytes */5")], Answer::Complete),
            (
                416,
                &[("content-range", "bytes */5"), ("etag", "\"b\"")],
                Answer::StartOver,
            ),
            (416, &[("content-range", "bytes */4")], Answer::StartOver),
            (416, &[], Answer::StartOver),
            (404, &[], Answer::Refused),
            (304, &[], Answer::Refused),
            (302, &[], Answer::Refused),
            (302, &[("location", "/there")], Answer::Elsewhere("/there".to_owned())),
        ] {
            assert_eq!(answer(status, headers, Some(5)), wanted, "{status} {headers:?}");
        }
        for status in [206, 416] {
            assert_eq!(
                answer(status, &[("content-range", "bytes 0-6/7")], None),
                Answer::Refused
            );
        }
    }

    #[test]
    fn a_file_is_known_again_only_by_a_mark_of_its_bytes() {
        let validator = |headers: &[(&'static str, &str)]| match answer(200, headers, Some(5)) {
            Answer::Whole {
                total: Some(7),
                validator,
            } => validator.map(|validator| validator.header().to_str().unwrap().to_owned()),
            other => panic!("{other:?}"),
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(
            validator(&[("etag", "\"x\""), ("last-modified", date)]).unwrap(),
            "\"x\""
        );
        assert_eq!(
            validator(&[("etag", "W/\"x\""), ("last-modified", date)]).unwrap(),
            date
        );
        assert_eq!(validator(&[("etag", "W/\"x\"")]), None);
        assert_eq!(validator(&[("etag", &"x".repeat(2000))]), None);
    }

    proptest! {
        #[test]
        fn ranges_are_read_as_they_are_written(first: u32, more: u32, beyond in 1u64..9) {
            let last = u64::from(first) + u64::from(more);
            let (first, total) = (u64::from(first), last + beyond);
            let wanted = Range::Of { first, total: Some(total) };
            prop_assert_eq!(content_range(&format!("bytes {first}-{last}/{total}")), Some(wanted));
            prop_assert_eq!(content_range(&format!("bytes */{total}")), Some(Range::None { total }));
            prop_assert_eq!(content_range(&format!("bytes {}-{last}/{total}", last + 1)), None);
            prop_assert_eq!(content_range(&format!("bytes +{first}-{last}/{total}")), None);
        }

        #[test]
        fn any_text_is_a_range_or_none(text in "(bytes )?[0-9*/+ -]{0,60}", other in "\\PC{0,40}") {
            let _either = content_range(&text);
            let _neither = content_range(&other);
        }
    }
}
