//! What others may in a repository, which only its administrators are told.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::IntoResponse,
};
use serde_json::json;

use super::{Answer, Found};
use crate::{
    access::Access,
    api::Refusal,
    shapes,
    state::{Kind, Shared},
};

/// The right of a user; nobody with less than the administration of the repository is told even of its own (newer
/// versions tell that).
pub(super) async fn permission(
    State(shared): State<Arc<Shared>>,
    Path((_, _, login)): Path<(String, String, String)>,
    Extension(found): Extension<Found>,
) -> Answer {
    if found.require(Access::Read)? != found.repository.split().0 && found.access < Access::Admin {
        return Err(Refusal::new(
            403,
            "Only admins can query all permissions, repo admins can query all repo permissions",
        ));
    }
    let mut state = shared.state();
    let word = match state.access(&found.repository, Some(&login)) {
        Some(_) if found.repository.split().0 == login => "owner",
        Some(access) => access.word(),
        None => "none",
    };
    let user = shapes::user(&mut state, Kind::Forgejo, &shared.url, &login);
    Ok(Json(json!({"permission": word, "role_name": word, "user": user})).into_response())
}
