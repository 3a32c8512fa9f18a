//! Webhooks and their deliveries: which there are, and how one is sent. A receiver has a few seconds; a delivery that
//! failed is not sent again unless a person asks for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    envelope::{self, Envelope},
    state::{Kind, Shared},
    time::now_ms,
};

/// How long a Forgejo waits for an answer.
const FORGEJO_DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long GitHub does.
const GITHUB_DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a Forgejo webhook speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookType {
    /// The payload as it is.
    Forgejo,
    /// The same.
    Gitea,
    /// The same.
    Gogs,
    /// A message for a Slack channel; `ref`, `after` and so on are not in it.
    Slack,
    /// A message for a Microsoft Teams channel; as little is in it.
    MsTeams,
}

impl HookType {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Forgejo, Self::Gitea, Self::Gogs, Self::Slack, Self::MsTeams];

    /// The API's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
            Self::Gogs => "gogs",
            Self::Slack => "slack",
            Self::MsTeams => "msteams",
        }
    }
}

/// How a payload is put into a delivery's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// As it is.
    Json,
    /// As the field `payload` of a form; signed is the JSON and not the form.
    Form,
}

impl Content {
    /// The API's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
        }
    }
}

/// A webhook to be made.
#[derive(Debug, Clone)]
pub struct NewHook {
    pub url: String,
    pub secret: String,
    pub kind: HookType,
    pub content: Content,
    /// Whether it is sent anything at all.
    pub active: bool,
    /// The events it is sent, in the API's words (`push`, `pull_request`, `pull_request_sync`…); every one when empty.
    pub events: Vec<String>,
    /// What its deliveries have as header `Authorization`; none when empty.
    pub authorization_header: String,
}

impl NewHook {
    /// One for everything, as a person makes it who follows our instructions.
    #[must_use]
    pub fn new(url: &str, secret: &str) -> Self {
        Self {
            url: url.to_owned(),
            secret: secret.to_owned(),
            kind: HookType::Forgejo,
            content: Content::Json,
            active: true,
            events: Vec::new(),
            authorization_header: String::new(),
        }
    }
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct Hook {
    pub id: i64,
    /// The repository it belongs to.
    pub repository: i64,
    pub url: String,
    pub(crate) secret: String,
    /// What it speaks; GitHub's speak GitHub's own.
    pub kind: HookType,
    pub content: Content,
    pub active: bool,
    /// The events it is sent; every one when empty.
    pub events: Vec<String>,
    pub(crate) authorization_header: String,
}

impl Hook {
    pub(crate) fn new(id: i64, repository: i64, new: NewHook) -> Self {
        Self {
            id,
            repository,
            url: new.url,
            secret: new.secret,
            kind: new.kind,
            content: new.content,
            active: new.active,
            events: new.events,
            authorization_header: new.authorization_header,
        }
    }

    /// Whether it is sent this event, of this finer name: `pull_request` means every kind of it, and
    /// `pull_request_only` what has no finer name of its own.
    pub(crate) fn wants(&self, event: &str, event_type: &str) -> bool {
        let wants = |wanted: &String| match wanted.as_str() {
            "pull_request_only" => event_type == "pull_request",
            wanted => wanted == event || wanted == event_type,
        };
        self.active && (self.events.is_empty() || self.events.iter().any(wants))
    }
}

/// One delivery: what is (or would be) sent, and what came of each try.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The value of `X-…-Delivery`.
    pub id: String,
    /// The hook it is for.
    pub hook: i64,
    /// The event's name, such as `push`.
    pub event: String,
    pub url: String,
    /// Every header, signature included.
    pub headers: Vec<(String, String)>,
    /// The exact bytes that are sent.
    pub body: Bytes,
    /// One entry per try, in order. Empty while it waits or is held.
    pub tries: Vec<Try>,
    pub(crate) forge: Kind,
    /// The finer name of the event, such as `pull_request_sync`.
    pub(crate) event_type: String,
    /// What happened, whatever form the hook has it in.
    pub(crate) payload: Bytes,
}

/// What came of sending a delivery once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    pub at_ms: i64,
    /// The id it was sent under.
    pub delivery: String,
    /// The receiver's status code, or why there was none.
    pub outcome: Result<u16, String>,
    /// What it answered, as forges show it on the page of the delivery.
    pub answer: String,
}

impl Shared {
    /// Makes a delivery for a hook and writes it down, not sent yet. Its id, which is new.
    pub(crate) fn new_delivery(
        &self,
        hook: &Hook,
        forge: Kind,
        (event, event_type): (&str, &str),
        payload: Bytes,
    ) -> String {
        let id = envelope::uuid();
        let Envelope { headers, body } = match forge {
            Kind::Forgejo => envelope::forgejo(hook, &id, (event, event_type), &payload),
            Kind::Github => envelope::github(hook, &id, event, &payload, self.app.id),
        };
        let delivery = Delivery {
            id: id.clone(),
            hook: hook.id,
            event: event.to_owned(),
            url: hook.url.clone(),
            headers,
            body,
            tries: Vec::new(),
            forge,
            event_type: event_type.to_owned(),
            payload,
        };
        self.change(|state| state.deliveries.push(delivery));
        id
    }

    /// A delivery as it stands.
    pub(crate) fn delivery(&self, id: &str) -> Option<Delivery> {
        self.state().deliveries.iter().find(|d| d.id == id).cloned()
    }

    /// Sends a delivery now, and writes down what came of it; `None` when there is no such delivery.
    pub(crate) async fn attempt(&self, client: &reqwest::Client, id: &str) -> Option<Try> {
        let delivery = self.delivery(id)?;
        let limit = self.state().delivery_timeout.unwrap_or(match delivery.forge {
            Kind::Forgejo => FORGEJO_DELIVERY_TIMEOUT,
            Kind::Github => GITHUB_DELIVERY_TIMEOUT,
        });
        let answered = post(client, &delivery.url, &delivery.headers, delivery.body, limit).await;
        let (outcome, answer) = match answered {
            Ok((status, answer)) => (Ok(status), answer),
            Err(why) => (Err(why), String::new()),
        };
        let tried = Try {
            at_ms: now_ms(),
            delivery: id.to_owned(),
            outcome,
            answer,
        };
        self.change(|state| {
            if let Some(delivery) = state.deliveries.iter_mut().find(|d| d.id == id) {
                delivery.tries.push(tried.clone());
            }
        });
        Some(tried)
    }
}

/// Posts bytes with headers; the answer's status and text, or why there was none.
pub(crate) async fn post(
    client: &reqwest::Client,
    url: &str,
    headers: &[(String, String)],
    body: Bytes,
    limit: Duration,
) -> Result<(u16, String), String> {
    let mut request = client.post(url).timeout(limit).body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answered = async {
        let response = request.send().await?;
        Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
    };
    match answered.await {
        Ok(answered) => Ok(answered),
        Err(error) if error.is_timeout() => Err(format!("timeout: no answer within {} ms", limit.as_millis())),
        Err(error) => Err(error.without_url().to_string()),
    }
}

/// Sends what is queued, one after the other, each once.
pub(crate) async fn courier(
    shared: Arc<Shared>,
    mut outgoing: mpsc::UnboundedReceiver<String>,
    client: reqwest::Client,
) {
    while let Some(id) = outgoing.recv().await {
        shared.attempt(&client, &id).await;
    }
}
