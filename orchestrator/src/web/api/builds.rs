//! `POST /api/v1/builds`: a person asks for the runs of a branch or tag.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    forge::ForgeError,
    model::{
        names::{CommitSha, ConnectionId, RefName, RepoPath},
        trigger::{Event, RefCause, RefEvent, Repository, Trigger},
    },
    queue::Hint,
    web::{
        AppState,
        api::types::{AskedEvent, BuildCreated, CreateBuild},
        authorize::Action,
        http::problem::Problem,
        identity::Caller,
        lookup::{parse, store_failed},
    },
};

/// The longest name of a workflow file that is taken.
const LONGEST_NAME: usize = 300;

/// The full names that a person may mean: a branch before a tag.
fn meant(text: &str) -> Result<Vec<RefName>, Problem> {
    if text.starts_with("refs/") {
        return Ok(vec![parse(text)?]);
    }
    ["refs/heads/", "refs/tags/"]
        .into_iter()
        .map(|prefix| parse(&format!("{prefix}{text}")))
        .collect()
}

fn workflow_name(text: &str) -> Result<String, Problem> {
    let sound = !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control);
    sound
        .then(|| text.to_owned())
        .ok_or_else(|| Problem::bad_request("`workflow` is the path or the name of a workflow file."))
}

/// The forge's own words are for those who administer this server.
fn forge_failed(caller: &Caller, error: &ForgeError) -> Problem {
    tracing::warn!(%error, "asking a forge failed");
    match error {
        ForgeError::Later { .. } | ForgeError::Away { .. } => {
            Problem::unavailable("The forge does not answer now; try again later.")
        }
        _ if caller.is_admin() => Problem::unprocessable("forge_refused", format!("{error}.")),
        _ => Problem::unprocessable("forge_refused", "The forge refused to tell about this repository."),
    }
}

/// The connection and path as the configuration knows them, else what it does know.
fn served(state: &AppState, caller: &Caller, connection: &ConnectionId, path: &RepoPath) -> Result<(), Problem> {
    let connections = &state.config().connections;
    let Some(configured) = connections.get(connection) else {
        return Err(caller.absent(|| {
            let names: Vec<&str> = connections.keys().map(ConnectionId::as_str).collect();
            match names.as_slice() {
                [] => format!("There is no connection named {connection}; none is configured."),
                names => format!(
                    "There is no connection named {connection}; there are {}.",
                    names.join(", ")
                ),
            }
        }));
    };
    let same = |listed: &RepoPath| listed.as_str().eq_ignore_ascii_case(path.as_str());
    if configured.repositories.is_empty() || configured.repositories.iter().any(same) {
        return Ok(());
    }
    Err(caller.absent(|| {
        let names: Vec<&str> = configured.repositories.iter().map(RepoPath::as_str).take(20).collect();
        format!(
            "Connection {connection} does not list {path}; its `repositories` are {}.",
            names.join(", ")
        )
    }))
}

/// The ref that is meant, as the forge has it now.
async fn find_ref(state: &AppState, caller: &Caller, repository: &Repository, text: &str) -> Result<RefName, Problem> {
    let mut found = Vec::new();
    for name in meant(text)? {
        let there = state.repositories().read_ref(repository, &name).await;
        if there.map_err(|e| forge_failed(caller, &e))?.is_some() {
            found.push(name);
        }
    }
    match found.len() {
        0 => Err(caller.absent(|| format!("{} has no branch or tag {text}.", repository.path))),
        1 => Ok(found.remove(0)),
        _ => Err(Problem::unprocessable(
            "ambiguous_ref",
            format!("{text} is a branch and a tag: name refs/heads/{text} or refs/tags/{text}."),
        )),
    }
}

/// `POST /api/v1/builds`: asks for the runs of a branch or tag of the base repository.
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    body: Result<Json<CreateBuild>, JsonRejection>,
) -> Result<Response, Problem> {
    caller.may(&state, Action::Dispatch, None)?;
    let Json(body) = body.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::bad_request("The body is too large."),
        _ => Problem::bad_request(e.body_text()),
    })?;
    let connection: ConnectionId = parse(&body.connection)?;
    let path: RepoPath = parse(&body.repository)?;
    meant(&body.ref_name)?;
    let commit: Option<CommitSha> = body.commit.as_deref().map(parse).transpose()?;
    let workflow = body.workflow.as_deref().map(workflow_name).transpose()?;
    served(&state, &caller, &connection, &path)?;
    let found = state.repositories().find(&connection, &path).await;
    let repository = found.map_err(|e| forge_failed(&caller, &e))?.ok_or_else(|| {
        caller.absent(|| {
            format!("Connection {connection} has no repository {path}, or the forge hides it from its credentials.")
        })
    })?;
    caller.may(&state, Action::Dispatch, Some(&repository))?;
    let ref_name = find_ref(&state, &caller, &repository, &body.ref_name).await?;
    let who = caller.identity.who();
    let subject = format!("{connection} {path} {ref_name}");
    let trigger = Trigger {
        repository,
        event: Event::Ref(RefEvent {
            ref_name: ref_name.clone(),
            cause: RefCause::Manual {
                commit,
                as_push: body.event == AskedEvent::Push,
                workflow,
            },
        }),
        actor: caller.name().unwrap_or("api").to_owned(),
        title: String::new(),
        payload: None,
    };
    caller.audit(&state, "dispatch", &subject).await?;
    let id = state
        .store()
        .create_trigger(&trigger, &who)
        .await
        .map_err(store_failed)?;
    state.notify([Hint::Trigger]);
    let location = format!("/api/v1/builds/{id}");
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(BuildCreated { id, ref_name }),
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_or_tag_may_be_named_shortly() {
        let names = |text: &str| -> Vec<String> { meant(text).unwrap().iter().map(ToString::to_string).collect() };
        assert_eq!(names("main"), ["refs/heads/main", "refs/tags/main"]);
        assert_eq!(names("refs/tags/v1"), ["refs/tags/v1"]);
        for bad in ["--upload-pack=x", "", "refs/", "a b"] {
            assert!(meant(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_workflow_is_named_in_one_line() {
        assert!(workflow_name(".forgejo/workflows/ci.yml").is_ok());
        for bad in [String::new(), "a\nb".to_owned(), "x".repeat(LONGEST_NAME + 1)] {
            assert!(workflow_name(&bad).is_err());
        }
    }
}
