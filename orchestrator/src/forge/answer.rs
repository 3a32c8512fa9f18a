//! What an answer of a forge means for us: taken, absent, later, or never like this.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ForgeError, LONGEST_PAUSE, http::SendError};
use crate::{clock, foreign_text::one_line};

/// A secondary rate limit names no time; GitHub asks for at least a minute.
const UNNAMED_WAIT: Duration = Duration::from_secs(60);

/// Which call of which forge; for messages, without secrets.
#[derive(Debug, Clone)]
pub struct Call {
    /// The forge's address.
    pub forge: String,
    /// Method and path.
    pub call: String,
}

impl Call {
    /// Another try may help.
    pub fn later(&self, reason: impl Into<String>, retry_after: Option<Duration>) -> ForgeError {
        ForgeError::Later {
            forge: self.forge.clone(),
            call: self.call.clone(),
            reason: reason.into(),
            retry_after,
        }
    }

    /// The forge does not know us.
    pub fn unauthorized(&self, reason: impl Into<String>) -> ForgeError {
        ForgeError::Unauthorized {
            forge: self.forge.clone(),
            call: self.call.clone(),
            reason: reason.into(),
        }
    }

    /// No call helps now.
    pub fn away(&self, reason: impl Into<String>, retry_after: Option<Duration>) -> ForgeError {
        ForgeError::Away {
            forge: self.forge.clone(),
            call: self.call.clone(),
            reason: reason.into(),
            retry_after,
        }
    }

    /// A right is missing.
    pub fn forbidden(&self, reason: impl Into<String>) -> ForgeError {
        ForgeError::Forbidden {
            forge: self.forge.clone(),
            call: self.call.clone(),
            reason: reason.into(),
        }
    }

    /// No try like this will help.
    pub fn refused(&self, reason: impl Into<String>) -> ForgeError {
        ForgeError::Refused {
            forge: self.forge.clone(),
            call: self.call.clone(),
            reason: reason.into(),
        }
    }

    /// The request got no answer.
    pub fn failed(&self, error: &SendError) -> ForgeError {
        match error {
            SendError::TooLarge => self.refused(error.to_string()),
            // A name that resolves to another address for a while is an outage like others.
            SendError::Blocked { .. } | SendError::Deadline(_) | SendError::Transport(_) => {
                self.away(error.to_string(), None)
            }
        }
    }
}

/// An answer of status 2xx or 404. Everything else has become an error.
#[derive(Debug)]
pub struct Answer {
    call: Call,
    /// None for 404.
    body: Option<Bytes>,
    /// What the forge said with a 404.
    absent: String,
}

impl Answer {
    /// Judges a response.
    ///
    /// # Errors
    /// [`ForgeError::Away`] for rate limits, 502 to 504 and 520 to 530, which Cloudflare answers for a server that is
    /// away; [`ForgeError::Later`] for 408, 425 and every other 5xx;
    /// [`ForgeError::Unauthorized`] for 401; [`ForgeError::Forbidden`] for 403; [`ForgeError::Refused`] for redirects and
    /// every other 4xx except 404.
    pub fn judge(call: Call, response: Response<Bytes>) -> Result<Self, ForgeError> {
        let (parts, body) = response.into_parts();
        let status = parts.status;
        if status.is_success() {
            return Ok(Self {
                call,
                body: Some(body),
                absent: String::new(),
            });
        }
        let reason = reason(status, &body);
        if status == StatusCode::NOT_FOUND {
            return Ok(Self {
                call,
                body: None,
                absent: reason,
            });
        }
        if let Some(wait) = rate_limit(status, &parts.headers, &reason, clock::now_ms()) {
            return Err(call.away(reason, Some(wait)));
        }
        if matches!(status.as_u16(), 502..=504 | 520..=530) {
            return Err(call.away(reason, retry_after(&parts.headers, clock::now_ms())));
        }
        if status.is_server_error() || matches!(status.as_u16(), 408 | 425) {
            return Err(call.later(reason, retry_after(&parts.headers, clock::now_ms())));
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(call.unauthorized(reason));
        }
        if status == StatusCode::FORBIDDEN {
            return Err(call.forbidden(reason));
        }
        if status.is_redirection() {
            return Err(call.refused(format!(
                "{reason}: redirects are not followed; the repository or the forge has moved, so correct the \
                 connection's address or wait for the next push"
            )));
        }
        Err(call.refused(reason))
    }

    /// Whether the answer was 404.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.body.is_none()
    }

    /// The body, or none when the answer was 404.
    #[must_use]
    pub fn found(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// The parsed body, or none when the answer was 404.
    ///
    /// # Errors
    /// [`ForgeError::Later`] when the body is not the expected JSON: a proxy's page in between is
    /// the usual cause, and it goes away.
    pub fn json<T: DeserializeOwned>(&self) -> Result<Option<T>, ForgeError> {
        let Some(body) = &self.body else { return Ok(None) };
        serde_json::from_slice(body).map(Some).map_err(|error| {
            self.call
                .later(format!("the answer is not the expected JSON: {error}"), None)
        })
    }

    /// An answer that says something else than what was asked.
    pub fn later(&self, reason: impl Into<String>) -> ForgeError {
        self.call.later(reason, None)
    }

    /// As [`Answer::json`], where 404 means that we may not or that it is gone.
    ///
    /// # Errors
    /// As [`Answer::json`], and [`ForgeError::Forbidden`] with this help for 404.
    pub fn needed<T: DeserializeOwned>(&self, help: &str) -> Result<T, ForgeError> {
        self.json()?
            .ok_or_else(|| self.call.forbidden(format!("{}: {help}", self.absent)))
    }
}

/// `403: Resource not accessible by integration`: one line of the body's own message, never more.
fn reason(status: StatusCode, body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let message = parsed
        .as_ref()
        .and_then(|v| v.get("message"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let detail = parsed
        .as_ref()
        .and_then(|v| v.get("errors")?.get(0))
        .and_then(|e| e.as_str().or_else(|| e.get("message")?.as_str()))
        .unwrap_or_default();
    let words = match (message.is_empty(), detail.is_empty()) {
        (true, _) => status.canonical_reason().unwrap_or("unknown status").to_owned(),
        (false, true) => message.to_owned(),
        (false, false) => format!("{message} ({detail})"),
    };
    format!("{}: {}", status.as_u16(), one_line(&words, 200))
}

/// How long a rate limit asks us to wait; none when the answer is not one.
fn rate_limit(status: StatusCode, headers: &HeaderMap, reason: &str, now_ms: i64) -> Option<Duration> {
    let asked = retry_after(headers, now_ms);
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let exhausted = number("x-ratelimit-remaining") == Some(0);
    let limited = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => {
            headers.contains_key(header::RETRY_AFTER) || exhausted || reason.to_ascii_lowercase().contains("rate limit")
        }
        _ => false,
    };
    if !limited {
        return None;
    }
    let reset = number("x-ratelimit-reset")
        .filter(|_| exhausted)
        .and_then(|at| wait_until(at.saturating_mul(1000), now_ms));
    Some(asked.or(reset).unwrap_or(UNNAMED_WAIT).min(LONGEST_PAUSE))
}

/// `Retry-After` in either of its forms; none when that time is over: whoever believed it would ask without a pause.
fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(0) => return None,
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => wait_until(
            chrono::DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis(),
            now_ms,
        )?,
    };
    Some(wait.min(LONGEST_PAUSE))
}

/// A second at least; none when it is over.
fn wait_until(at_ms: i64, now_ms: i64) -> Option<Duration> {
    let wait = u64::try_from(at_ms.saturating_sub(now_ms)).ok().filter(|ms| *ms > 0)?;
    Some(Duration::from_millis(wait.max(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Answer, ForgeError> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let call = Call {
            forge: "https://forge.example".to_owned(),
            call: "GET /x".to_owned(),
        };
        Answer::judge(call, response.body(Bytes::copy_from_slice(body.as_bytes())).unwrap())
    }

    fn wait(result: Result<Answer, ForgeError>) -> Option<u64> {
        match result.unwrap_err() {
            ForgeError::Later { retry_after, .. } | ForgeError::Away { retry_after, .. } => {
                retry_after.map(|d| d.as_secs())
            }
            refused => panic!("{refused}"),
        }
    }

    #[test]
    fn limits_are_recognised_in_all_their_forms() {
        assert_eq!(wait(judge(429, &[("retry-after", "7")], "")), Some(7));
        assert_eq!(wait(judge(429, &[], "")), Some(60));
        assert_eq!(wait(judge(403, &[("retry-after", "999999")], "")), Some(3600));
        assert_eq!(
            wait(judge(
                403,
                &[],
                r#"{"message":"You have exceeded a secondary rate limit."}"#
            )),
            Some(60)
        );
        assert_eq!(wait(judge(503, &[("retry-after", "3")], "")), Some(3));
        assert_eq!(wait(judge(502, &[], "<html>")), None);
        let soon = (clock::now_ms() / 1000 + 120).to_string();
        let waited = wait(judge(
            403,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &soon)],
            "",
        ))
        .unwrap();
        assert!((100..=120).contains(&waited), "{waited}");
    }

    #[test]
    fn an_http_date_counts_from_now() {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, "Wed, 21 Oct 2015 07:28:10 GMT".parse().unwrap())]);
        assert_eq!(retry_after(&headers, 1_445_412_480_000), Some(Duration::from_secs(10)));
        assert_eq!(retry_after(&headers, 1_445_412_489_999), Some(Duration::from_secs(1)));
        assert_eq!(retry_after(&headers, 1_445_412_490_000), None);
        assert_eq!(retry_after(&headers, 1_545_412_480_000), None);
    }

    #[test]
    fn a_pause_that_is_over_already_is_none_that_was_asked_for() {
        const PAST: &str = "Wed, 21 Oct 2015 07:28:10 GMT";
        let exhausted = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1445412490")];
        let limits: [(u16, &[(&str, &str)]); 6] = [
            (429, &[("retry-after", "0")]),
            (429, &[("retry-after", PAST)]),
            (403, &[("retry-after", "0")]),
            (403, &[("retry-after", PAST)]),
            (429, &exhausted),
            (403, &exhausted),
        ];
        for (status, headers) in limits {
            let waited = wait(judge(status, headers, ""));
            assert_eq!(waited, Some(UNNAMED_WAIT.as_secs()), "{status} {headers:?}");
        }
        for status in [500, 502, 503, 520] {
            for time in ["0", PAST] {
                assert_eq!(wait(judge(status, &[("retry-after", time)], "")), None, "{status}");
            }
        }
    }

    #[test]
    fn a_forge_is_away_also_behind_a_proxy_of_others_and_at_an_address_that_may_not_be_meant() {
        for (status, away) in [
            (500, false),
            (507, false),
            (519, false),
            (520, true),
            (530, true),
            (531, false),
        ] {
            let error = judge(status, &[], "").unwrap_err();
            assert_eq!(matches!(error, ForgeError::Away { .. }), away, "{error}");
        }
        let call = Call {
            forge: "https://forge.example".to_owned(),
            call: "GET /x".to_owned(),
        };
        let blocked = call.failed(&SendError::Blocked {
            host: "forge.example".to_owned(),
            address: [127, 0, 0, 1].into(),
        });
        assert!(
            matches!(blocked, ForgeError::Away { retry_after: None, .. }),
            "{blocked}"
        );
    }

    #[test]
    fn refusals_carry_one_line_of_the_message_and_never_the_body() {
        let body = format!(
            r#"{{"message":"no\nway {}","errors":[{{"message":"field"}}]}}"#,
            "x".repeat(1000)
        );
        let error = judge(422, &[], &body).unwrap_err();
        let text = error.to_string();
        assert!(
            !error.is_retryable() && text.len() < 300 && text.contains("422: no way"),
            "{text}"
        );
        assert!(
            judge(403, &[], r#"{"message":"Resource not accessible by integration"}"#)
                .is_err_and(|e| !e.is_retryable())
        );
        assert!(judge(301, &[], "").unwrap_err().to_string().contains("not followed"));
    }

    #[test]
    fn only_401_says_that_the_forge_does_not_know_us() {
        for status in [400, 401, 403, 409, 410, 422] {
            let error = judge(status, &[], r#"{"message":"no"}"#).unwrap_err();
            let unknown = matches!(error, ForgeError::Unauthorized { .. });
            assert_eq!(
                (unknown, error.is_retryable()),
                (status == 401, status == 401),
                "{error}"
            );
        }
    }

    #[test]
    fn absence_is_an_answer() {
        let answer = judge(404, &[], r#"{"message":"Not Found"}"#).unwrap();
        assert!(answer.is_absent());
        assert_eq!(answer.json::<Value>().unwrap(), None);
        let error = answer.needed::<Value>("install the App on it").unwrap_err();
        assert!(
            error.to_string().ends_with("404: Not Found: install the App on it"),
            "{error}"
        );
        assert!(
            judge(200, &[], "<html>")
                .unwrap()
                .json::<Value>()
                .unwrap_err()
                .is_retryable()
        );
    }
}
