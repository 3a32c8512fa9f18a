//! What every payload has, and whom it is sent to.

use serde_json::{Value, json};

use crate::{
    Error,
    delivery::Hook,
    shapes,
    state::{Repository, Shared},
};

/// Runs blocking work off the executor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Git {
            command: "in the background".to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// What every payload has: repository, sender and, from GitHub, the installation.
pub(crate) fn common(shared: &Shared, repository: &Repository, actor: &str) -> Value {
    let mut state = shared.state();
    let mut body = json!({
        "repository": shapes::repository(&mut state, &shared.url, repository),
        "sender": shapes::user(&mut state, repository.kind, &shared.url, actor),
    });
    if let Some(id) = repository.installation {
        body["installation"] = json!({"id": id, "node_id": format!("I_{id}")});
    }
    body
}

/// Queues one delivery for each hook of the repository that is sent the event, and answers with their ids.
pub(crate) fn send(
    shared: &Shared,
    repository: &Repository,
    event: &str,
    event_type: &str,
    body: &Value,
) -> Vec<String> {
    let hooks: Vec<Hook> = {
        let state = shared.state();
        let wants = |h: &&Hook| h.repository == repository.id && h.wants(event, event_type);
        state.hooks.values().filter(wants).cloned().collect()
    };
    let send = |hook: &Hook| send_to(shared, repository, hook, (event, event_type), body);
    hooks.iter().map(send).collect()
}

/// Queues a delivery for one hook. Its id.
pub(crate) fn send_to(
    shared: &Shared,
    repository: &Repository,
    hook: &Hook,
    event: (&str, &str),
    body: &Value,
) -> String {
    let id = shared.new_delivery(hook, repository.kind, event, body.to_string().into());
    if !shared.state().hold {
        // The receiver lives as long as the forge; after its end nothing is to be sent.
        let _ = shared.outgoing.send(id.clone());
    }
    id
}
