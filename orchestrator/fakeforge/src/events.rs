//! Webhooks, and what a person does on the forge's pages.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Error, FakeForge, api, hooks,
    state::{Hook, Try},
    time::now_ms,
};

impl FakeForge {
    /// Configures a webhook for all events and answers with its number.
    pub fn add_hook(&self, repository: i64, url: &str, secret: &str) -> i64 {
        self.shared.change(|state| {
            let id = state.number();
            let hook = Hook {
                id,
                repository,
                url: url.to_owned(),
                secret: secret.to_owned(),
            };
            state.hooks.insert(id, hook);
            id
        })
    }

    /// Holds deliveries back (`true`): they are made and listed, but only [`FakeForge::redeliver`]
    /// sends them. For lost and reordered deliveries.
    pub fn hold_deliveries(&self, hold: bool) {
        self.shared.change(|state| state.hold = hold);
    }

    /// Sends a delivery once more, byte for byte and with the same id, and waits for the answer.
    ///
    /// # Errors
    /// When there is no such delivery.
    pub async fn redeliver(&self, id: &str) -> Result<Try, Error> {
        let found = self.shared.state().deliveries.iter().find(|d| d.id == id).cloned();
        let delivery = found.ok_or_else(|| Error::Unknown {
            what: "delivery",
            id: id.to_owned(),
        })?;
        let outcome = hooks::post(&self.client, &delivery.url, &delivery.headers, delivery.body).await;
        let tried = Try {
            at_ms: now_ms(),
            outcome,
        };
        self.shared.change(|state| {
            if let Some(delivery) = state.deliveries.iter_mut().find(|d| d.id == id) {
                delivery.tries.push(tried.clone());
            }
        });
        Ok(tried)
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
        hooks::post(&self.client, url, headers, body.into()).await
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
        Ok(hooks::send(&self.shared, &found, event, event, whole))
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
