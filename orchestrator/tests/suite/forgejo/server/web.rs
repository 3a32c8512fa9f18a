//! Forgejo's pages, for what its API has not: the deliveries of a hook, and the button that sends one again.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response, header};

use super::{Answer, api::PASSWORD, deadline};

/// A person at a browser who has logged in.
pub struct Session {
    client: reqwest::Client,
    url: String,
    /// Name and value of each.
    cookies: Vec<(String, String)>,
}

impl Session {
    /// Logs in.
    pub async fn new(url: &str, login: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(deadline::PROMPT)
            .build()
            .expect("a client");
        let mut session = Self {
            client,
            url: url.to_owned(),
            cookies: Vec::new(),
        };
        session.send(session.client.get(format!("{url}/user/login"))).await;
        let answer = session
            .post("/user/login", &[("user_name", login), ("password", PASSWORD)])
            .await;
        assert_eq!(answer.status().as_u16(), 303, "{login} logs in");
        session
    }

    /// Sends a form, with what shows that one of its own pages was its origin.
    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let token = self.cookies.iter().find(|(name, _)| name == "_csrf");
        let token = token.map(|(_, value)| decoded(value)).unwrap_or_default();
        let mut fields = fields.to_vec();
        fields.push(("_csrf", &token));
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let form: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, &self.url)
            .header(header::REFERER, format!("{}{path}", self.url))
            .body(form.join("&"));
        self.send(request).await
    }

    async fn send(&mut self, request: RequestBuilder) -> Response {
        let cookies: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let request = request
            .header(header::COOKIE, cookies.join("; "))
            .header(header::ACCEPT_LANGUAGE, "en");
        let answer = request.send().await.expect("a page");
        for set in answer.headers().get_all(header::SET_COOKIE) {
            let set = set.to_str().expect("a cookie");
            let pair = set.split(';').next().and_then(|pair| pair.split_once('='));
            let (name, value) = pair.expect("a cookie");
            self.cookies.retain(|(known, _)| known != name);
            // One that is taken back is empty.
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    /// The deliveries on a hook's page that have an answer, newest first.
    pub async fn answers(&mut self, repository: &str, hook: i64) -> Vec<Answer> {
        let page = format!("{}/{repository}/settings/hooks/{hook}", self.url);
        let answer = self.send(self.client.get(&page)).await;
        assert_eq!(answer.status().as_u16(), 200, "{page}");
        deliveries(&answer.text().await.expect("its text"))
    }

    /// Presses the button of a delivery.
    pub async fn redeliver(&mut self, repository: &str, hook: i64, delivery: &str) {
        let path = format!("/{repository}/settings/hooks/{hook}/replay/{delivery}");
        let answer = self.post(&path, &[]).await;
        assert_eq!(answer.status().as_u16(), 303, "{path}");
    }
}

/// Cookies hold what a form encodes once more.
fn decoded(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8_lossy()
        .into_owned()
}

/// What a page of a hook says of its deliveries.
fn deliveries(page: &str) -> Vec<Answer> {
    let between = |text: &str, start: &str, end: &str| -> Option<String> {
        let (_, rest) = text.split_once(start)?;
        Some(rest.split_once(end)?.0.to_owned())
    };
    let parts = page.split("class=\"info ").skip(1);
    let found = parts.filter_map(|part| {
        // The tabs come before both panes; the answer's is the second.
        let (tabs, panes) = part.split_once("tab segment")?;
        let status = between(tabs, "label\">", "</span>")?.trim().parse().ok()?;
        let (sent, answered) = panes.split_once("data-tab=\"response-")?;
        Some(Answer {
            delivery: between(tabs, "/replay/", "\"")?,
            event: between(sent, "X-Gitea-Event:</strong>", "\n")?.trim().to_owned(),
            status,
            body: plain(&between(answered, "<code>", "</code>")?),
        })
    });
    found.collect()
}

/// Text that stood in a page.
fn plain(html: &str) -> String {
    let mut text = html.to_owned();
    for (escaped, character) in [
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#43;", "+"),
        ("&amp;", "&"),
    ] {
        text = text.replace(escaped, character);
    }
    text
}
