//! Webhooks, and what a person does on the forge's pages.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Error, FakeForge, api,
    delivery::{self, Hook, NewHook, Try},
    hooks, pushes,
    state::Kind,
};

/// How long an answer to a raw post is waited for: longer than any forge would.
const RAW_TIMEOUT: Duration = Duration::from_secs(60);

impl FakeForge {
    /// Configures a webhook for all events and answers with its number.
    pub fn add_hook(&self, repository: i64, url: &str, secret: &str) -> i64 {
        self.add_hook_with(repository, NewHook::new(url, secret))
    }

    /// Configures any webhook and answers with its number.
    pub fn add_hook_with(&self, repository: i64, new: NewHook) -> i64 {
        self.shared.change(|state| {
            let id = state.number();
            state.hooks.insert(id, Hook::new(id, repository, new));
            id
        })
    }

    /// Configures a webhook anew, as a person does who corrects it.
    ///
    /// # Errors
    /// When there is no such webhook.
    pub fn replace_hook(&self, hook: i64, new: NewHook) -> Result<(), Error> {
        let known = self.hook(hook)?;
        self.shared
            .change(|state| state.hooks.insert(hook, Hook::new(hook, known.repository, new)));
        Ok(())
    }

    fn hook(&self, id: i64) -> Result<Hook, Error> {
        let found = self.shared.state().hooks.get(&id).cloned();
        found.ok_or_else(|| Error::Unknown {
            what: "webhook",
            id: id.to_string(),
        })
    }

    /// How long a receiver of webhooks may take from now on. Unset, it is the forges' own time: five seconds on Forgejo.
    pub fn set_delivery_timeout(&self, limit: Duration) {
        self.shared.change(|state| state.delivery_timeout = Some(limit));
    }

    /// Holds deliveries back (`true`): they are made and listed, but only [`FakeForge::release`] sends them. For lost,
    /// late and reordered deliveries.
    pub fn hold_deliveries(&self, hold: bool) {
        self.shared.change(|state| state.hold = hold);
    }

    /// Sends a delivery that was held, for the first time, and waits for the answer: called in any order, deliveries
    /// come in that order.
    ///
    /// # Errors
    /// When there is no such delivery.
    pub async fn release(&self, id: &str) -> Result<Try, Error> {
        let tried = self.shared.attempt(&self.client, id).await;
        tried.ok_or_else(|| unknown_delivery(id))
    }

    /// A person asks for a delivery once more; waits for the answer. On GitHub it is the same delivery, byte for byte
    /// and with the same id. On Forgejo it is another one with a new id ([`Try::delivery`]) and the same payload, sent
    /// as its webhook is configured now.
    ///
    /// # Errors
    /// When there is no such delivery, or its webhook is gone.
    pub async fn redeliver(&self, id: &str) -> Result<Try, Error> {
        let delivery = self.shared.delivery(id).ok_or_else(|| unknown_delivery(id))?;
        if delivery.forge == Kind::Github {
            return self.release(id).await;
        }
        let hook = self.hook(delivery.hook)?;
        let event = (delivery.event.as_str(), delivery.event_type.as_str());
        let again = self.shared.new_delivery(&hook, delivery.forge, event, delivery.payload);
        self.release(&again).await
    }

    /// A person presses "Test delivery" on a Forgejo webhook, which sends a push of the default branch that moves
    /// nothing. The delivery's id.
    ///
    /// # Errors
    /// When there is no such webhook, or the repository is empty.
    pub async fn test_hook(&self, hook: i64) -> Result<String, Error> {
        let hook = self.hook(hook)?;
        let repository = self.shared.repository(hook.repository)?;
        let body = pushes::test_push(&self.shared, &repository, None, "alice").await?;
        Ok(hooks::send_to(
            &self.shared,
            &repository,
            &hook,
            ("push", "push"),
            &body,
        ))
    }

    /// Posts any bytes with any headers, as an attacker can. The answer's status, or why none came.
    ///
    /// # Errors
    /// The transport's reason, as text, when there is no answer.
    pub async fn deliver_raw(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: impl Into<Bytes>,
    ) -> Result<u16, String> {
        let answered = delivery::post(&self.client, url, headers, body.into(), RAW_TIMEOUT).await;
        answered.map(|(status, _)| status)
    }

    /// Queues an event of any name and body (the common fields are added where missing), signed for
    /// every hook of the repository. The deliveries' ids.
    ///
    /// # Errors
    /// When the repository does not exist.
    pub fn deliver_event(&self, repository: i64, event: &str, body: Value) -> Result<Vec<String>, Error> {
        let found = self.shared.repository(repository)?;
        let mut whole = hooks::common(&self.shared, &found, "alice");
        if let (Some(whole), Value::Object(body)) = (whole.as_object_mut(), body) {
            whole.extend(body);
        }
        Ok(hooks::send(&self.shared, &found, event, event, &whole))
    }

    /// A person pressed "Re-run" on a check run, or with `identifier` one of its own buttons.
    ///
    /// # Errors
    /// When there is no such check run.
    pub fn press(&self, check_run: i64, identifier: Option<&str>) -> Result<Vec<String>, Error> {
        let unknown = || Error::Unknown {
            what: "check run",
            id: check_run.to_string(),
        };
        let repository = self.shared.state().checks.get(&check_run).map(|run| run.repository);
        let repository = self.shared.repository(repository.ok_or_else(unknown)?)?;
        let shape = api::checks::shape(&self.shared, &repository, check_run).map_err(|_| unknown())?;
        let body = match identifier {
            None => json!({"action": "rerequested", "check_run": shape}),
            Some(identifier) => json!({
                "action": "requested_action", "check_run": shape, "requested_action": {"identifier": identifier},
            }),
        };
        self.deliver_event(repository.id, "check_run", body)
    }
}

fn unknown_delivery(id: &str) -> Error {
    Error::Unknown {
        what: "delivery",
        id: id.to_owned(),
    }
}
