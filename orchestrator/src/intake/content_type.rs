//! What kind of body a delivery says it has. This is looked at before the signature: a webhook that sends forms may sign
//! something else than the bytes it sends, as Forgejo's does, and its secret is not what is wrong.

use http::{HeaderMap, header};

use super::refusal::Refusal;

/// Lets through what says that it is JSON, and what says nothing: its bytes are parsed anyway.
///
/// # Errors
/// With the setting to change.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let shown = String::from_utf8_lossy(value.as_bytes());
    let essence = shown.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    Err(Refusal::wrong_type(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(value: &[u8]) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.try_into().unwrap());
        check(&headers).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn json_and_silence_pass_and_all_else_is_named() {
        assert!(check(&HeaderMap::new()).is_ok());
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.forge+json",
        ] {
            assert_eq!(check_one(json.as_bytes()), Ok(()), "{json}");
        }
        for other in [
            "application/x-www-form-urlencoded",
            "text/plain",
            "",
            "application/jsonp",
            "text/html; a=application/json",
        ] {
            let reason = check_one(other.as_bytes()).unwrap_err();
            assert!(
                reason.contains(other) && reason.contains("to application/json"),
                "{reason}"
            );
        }
        let long = check_one(&[0xff; 500]).unwrap_err();
        assert!(long.chars().count() < 300, "{long}");
    }
}
