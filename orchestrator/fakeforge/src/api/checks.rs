//! GitHub's check runs, with the rules that only its prose states.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Refusal, admit, github::app_shape};
use crate::{
    auth::Grant,
    git,
    hooks::blocking,
    state::{CheckRun, ForgeState, Received, Repository, Shared},
    time::{now_ms, rfc3339},
};

type Answer = Result<Response, Refusal>;

/// The conclusions an App may set; `stale` is GitHub's own.
const CONCLUSIONS: [&str; 7] = [
    "success",
    "failure",
    "neutral",
    "cancelled",
    "skipped",
    "timed_out",
    "action_required",
];

/// What a request may set and an answer shows again.
const FIELDS: [&str; 7] = [
    "name",
    "details_url",
    "external_id",
    "status",
    "conclusion",
    "started_at",
    "completed_at",
];

/// GitHub's limit on `summary` and `text`, in bytes although its documentation says characters.
const MAX_TEXT: usize = 65_535;

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let (repository, installation) = as_installation(&shared, &headers, &owner, &repo)?;
    let mut body = parse(&body)?;
    let required = |key: &str| match body[key].as_str().map(str::trim) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(invalid(format!("\"{key}\" wasn't supplied."))),
    };
    required("name")?;
    let sha = required("head_sha")?;
    let (dir, asked) = (repository.dir.clone(), sha.clone());
    let known = blocking(move || Ok(git::commit(&dir, &asked))).await?;
    if known.as_deref() != Some(sha.as_str()) {
        return Err(invalid(format!("No commit found for SHA: {sha}")));
    }
    if body["status"].is_null() && body["conclusion"].is_null() {
        body["status"] = "queued".into();
    }
    rules(&mut body)?;
    let id = shared.change(|state| {
        let id = state.number();
        let mut run = CheckRun {
            id,
            repository: repository.id,
            installation,
            head_sha: sha,
            fields: FIELDS.iter().map(|f| ((*f).to_owned(), Value::Null)).collect(),
            annotations: Vec::new(),
        };
        apply(&mut run, &body);
        store(state, run);
        id
    });
    let shape = shape(&shared, &repository, id)?;
    Ok((StatusCode::CREATED, Json(shape)).into_response())
}

pub(super) async fn update(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, id)): Path<(String, String, i64)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let (repository, installation) = as_installation(&shared, &headers, &owner, &repo)?;
    let mut body = parse(&body)?;
    rules(&mut body)?;
    shared.change(|state| {
        let known = state.checks.get(&id).filter(|run| run.repository == repository.id);
        let mut run = known.cloned().ok_or_else(|| Refusal::new(404, "Not Found"))?;
        if run.installation != installation {
            return Err(Refusal::new(
                403,
                "Invalid app_id - check run can only be modified by the GitHub App that created it.",
            ));
        }
        apply(&mut run, &body);
        store(state, run);
        Ok(())
    })?;
    Ok(Json(shape(&shared, &repository, id)?).into_response())
}

pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, id)): Path<(String, String, i64)>,
    headers: HeaderMap,
) -> Answer {
    let (repository, _) = admit(&shared, &headers, &format!("{owner}/{repo}"), "checks", false)?;
    Ok(Json(shape(&shared, &repository, id)?).into_response())
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, name)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let (repository, _) = admit(&shared, &headers, &format!("{owner}/{repo}"), "checks", false)?;
    let dir = repository.dir.clone();
    let sha = blocking(move || Ok(git::commit(&dir, &name))).await?;
    let sha = sha.ok_or_else(|| invalid("No commit found for SHA".to_owned()))?;
    let all = query.get("filter").is_some_and(|f| f == "all");
    let mut ids: Vec<i64> = Vec::new();
    let mut names: Vec<Value> = Vec::new();
    // `filter=latest`, the default, shows the newest run of each name.
    for run in shared.state().checks.values().rev() {
        let name = run.fields["name"].clone();
        let wanted = run.repository == repository.id
            && run.head_sha == sha
            && query.get("check_name").is_none_or(|asked| name == asked.as_str())
            && query
                .get("status")
                .is_none_or(|asked| run.fields["status"] == asked.as_str())
            && (all || !names.contains(&name));
        if wanted {
            ids.push(run.id);
            names.push(name);
        }
    }
    let number = |key: &str, default: usize| query.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
    let size = number("per_page", 30).clamp(1, 100);
    let total = ids.len();
    let page = ids.into_iter().skip((number("page", 1).max(1) - 1) * size).take(size);
    let runs: Vec<Value> = page
        .map(|id| shape(&shared, &repository, id))
        .collect::<Result<_, _>>()?;
    Ok(Json(json!({"total_count": total, "check_runs": runs})).into_response())
}

/// Only an App's installation may write checks; a person's token may not.
fn as_installation(
    shared: &Shared,
    headers: &HeaderMap,
    owner: &str,
    repo: &str,
) -> Result<(Repository, i64), Refusal> {
    let (repository, token) = admit(shared, headers, &format!("{owner}/{repo}"), "checks", true)?;
    match token.map(|t| t.grant) {
        Some(Grant::Installation { id, .. }) => Ok((repository, id)),
        _ => Err(Refusal::new(403, "You must authenticate via a GitHub App.")),
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(Value::Object(map)),
        _ => Err(Refusal::new(400, "Problems parsing JSON")),
    }
}

fn invalid(problem: String) -> Refusal {
    Refusal::new(422, format!("Invalid request.\n\n{problem}"))
}

/// The rules of status, conclusion, output and actions; a conclusion implies `completed`.
fn rules(body: &mut Value) -> Result<(), Refusal> {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let status = word(&body["status"]);
    if !body["status"].is_null() && !["queued", "in_progress", "completed"].contains(&status.as_deref().unwrap_or("")) {
        return Err(invalid(format!(
            "{} is not a member of [\"queued\", \"in_progress\", \"completed\"].",
            body["status"]
        )));
    }
    let conclusion = word(&body["conclusion"]);
    if !body["conclusion"].is_null() && !CONCLUSIONS.contains(&conclusion.as_deref().unwrap_or("")) {
        return Err(invalid(format!(
            "{} is not a member of {CONCLUSIONS:?}.",
            body["conclusion"]
        )));
    }
    if conclusion.is_none() && (status.as_deref() == Some("completed") || !body["completed_at"].is_null()) {
        return Err(invalid("\"conclusion\" wasn't supplied.".to_owned()));
    }
    if conclusion.is_some() {
        body["status"] = "completed".into();
        if body["completed_at"].is_null() {
            body["completed_at"] = rfc3339(now_ms()).into();
        }
    }
    if let Some(url) = body["details_url"].as_str()
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return Err(invalid("details_url must use http or https scheme".to_owned()));
    }
    output(&body["output"])?;
    let actions = body["actions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if actions.len() > 3 {
        return Err(invalid("no more than 3 actions are allowed".to_owned()));
    }
    for action in actions {
        for (key, max) in [("label", 20), ("description", 40), ("identifier", 20)] {
            let length = action[key].as_str().map_or(0, |text| text.chars().count());
            if length == 0 || length > max {
                return Err(invalid(format!("actions: \"{key}\" must have 1 to {max} characters")));
            }
        }
    }
    Ok(())
}

fn output(output: &Value) -> Result<(), Refusal> {
    if output.is_null() {
        return Ok(());
    }
    for key in ["title", "summary"] {
        if output[key].as_str().is_none_or(str::is_empty) {
            return Err(invalid(format!("For 'properties/output', \"{key}\" wasn't supplied.")));
        }
    }
    for key in ["summary", "text"] {
        if output[key].as_str().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(invalid(format!("{key} exceeds a maximum bytesize of {MAX_TEXT}")));
        }
    }
    let annotations = output["annotations"].as_array().map(Vec::as_slice).unwrap_or_default();
    if annotations.len() > 50 {
        return Err(invalid(
            "no more than 50 annotations are allowed per request".to_owned(),
        ));
    }
    for annotation in annotations {
        let level = annotation["annotation_level"].as_str().unwrap_or_default();
        let columns = !annotation["start_column"].is_null() || !annotation["end_column"].is_null();
        let problem = if annotation["path"]
            .as_str()
            .is_none_or(|p| p.is_empty() || p.starts_with('/'))
        {
            "\"path\" must be a relative path"
        } else if annotation["message"]
            .as_str()
            .is_none_or(|m| m.is_empty() || m.len() > 64 << 10)
        {
            "\"message\" must have 1 byte to 64 KB"
        } else if !["notice", "warning", "failure"].contains(&level) {
            "\"annotation_level\" must be notice, warning or failure"
        } else if annotation["start_line"].as_i64().is_none() || annotation["end_line"].as_i64().is_none() {
            "\"start_line\" and \"end_line\" must be supplied"
        } else if columns && annotation["start_line"] != annotation["end_line"] {
            "columns are only allowed on a single line"
        } else {
            continue;
        };
        return Err(invalid(format!("annotations: {problem}")));
    }
    Ok(())
}

/// Puts what the request set into the run. Going back from `completed` clears the conclusion, as a
/// re-run of the same check run does.
fn apply(run: &mut CheckRun, body: &Value) {
    for field in FIELDS {
        if !body[field].is_null() {
            run.fields.insert(field.to_owned(), body[field].clone());
        }
    }
    if body["status"].is_string() && body["status"] != "completed" {
        run.fields.insert("conclusion".to_owned(), Value::Null);
        run.fields.insert("completed_at".to_owned(), Value::Null);
    }
    if body["actions"].is_array() {
        run.fields.insert("actions".to_owned(), body["actions"].clone());
    }
    if let Some(output) = body["output"].as_object() {
        let mut output = output.clone();
        if let Some(Value::Array(annotations)) = output.remove("annotations") {
            run.annotations.extend(annotations);
        }
        run.fields.insert("output".to_owned(), Value::Object(output));
    }
}

fn store(state: &mut ForgeState, run: CheckRun) {
    let text = |field: &str| run.fields.get(field).and_then(Value::as_str).map(str::to_owned);
    let title = run
        .fields
        .get("output")
        .and_then(|o| o["title"].as_str())
        .unwrap_or_default();
    state.history.push(Received {
        at_ms: now_ms(),
        repository: run.repository,
        creator: "helios-ci[bot]".to_owned(),
        sha: run.head_sha.clone(),
        context: text("name").unwrap_or_default(),
        id: run.id,
        state: text("status").unwrap_or_default(),
        conclusion: text("conclusion"),
        description: title.to_owned(),
        target_url: text("details_url"),
        external_id: text("external_id"),
    });
    state.checks.insert(run.id, run);
}

/// A check run as answers and payloads show it.
pub(crate) fn shape(shared: &Shared, repository: &Repository, id: i64) -> Result<Value, Refusal> {
    let app = app_shape(shared);
    let state = shared.state();
    let run = state.checks.get(&id).filter(|run| run.repository == repository.id);
    let run = run.ok_or_else(|| Refusal::new(404, "Not Found"))?;
    let api = format!("{}/api/v3/repos/{}/check-runs/{id}", shared.url, repository.path);
    let html = format!("{}/{}/runs/{id}", shared.url, repository.path);
    let output = run.fields.get("output").cloned().unwrap_or_default();
    let mut shape = json!({
        "id": id, "node_id": format!("CR_{id}"), "head_sha": run.head_sha, "url": api, "html_url": html,
        "check_suite": {"id": suite(run)}, "app": app, "pull_requests": [],
        "output": {
            "title": output["title"], "summary": output["summary"], "text": output["text"],
            "annotations_count": run.annotations.len(), "annotations_url": format!("{api}/annotations"),
        },
    });
    for field in FIELDS {
        shape[field] = run.fields.get(field).cloned().unwrap_or_default();
    }
    if shape["details_url"].is_null() {
        shape["details_url"] = html.into();
    }
    if shape["external_id"].is_null() {
        shape["external_id"] = "".into();
    }
    Ok(shape)
}

/// One suite per commit and repository: its number comes from the commit's first digits.
fn suite(run: &CheckRun) -> i64 {
    i64::from_str_radix(&run.head_sha[..8], 16).unwrap_or(0) + 1
}
