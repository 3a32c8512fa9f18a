//! GitHub and GitHub Enterprise Server, as a GitHub App. octocrab speaks, our checked client carries,
//! and nothing retries by itself: the outbox does.

mod api;
mod checks;
mod jwt;
#[cfg(test)]
mod tests;
mod token;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde::Deserialize;

pub use self::jwt::BadKey;
#[cfg(test)]
pub use self::webhook::DIALECT;
use self::{
    api::{Api, Ask},
    jwt::SigningKey,
    token::{Purpose, Scope},
    webhook::Events,
};
use super::{
    Access, Checked, CheckedRepository, ConnectError, FetchAccess, Forge, ForgeError, Webhooks, encode_ref,
    http::Outgoing, push::Served,
};
use crate::{
    model::{
        names::{CommitSha, ConnectionId, ForgeContext, RefName, RepoPath, RepositoryId},
        report::Report,
        trigger::Repository,
    },
    secret::Secret,
};

const NOT_INSTALLED: &str = "the App is not installed on this repository: install it, or remove the repository here";

/// The folders that GitHub's Actions read workflow files from.
pub const WORKFLOWS: &[&str] = &[".github/workflows"];

/// One GitHub connection.
#[derive(Debug)]
pub struct Github {
    connection: ConnectionId,
    webhooks: Arc<Events>,
    /// Where people and git go, without a trailing slash.
    url: String,
    api: Api,
}

#[derive(Deserialize)]
struct Repo {
    id: u64,
    full_name: RepoPath,
}

#[derive(Deserialize)]
struct GitRef {
    #[serde(rename = "ref")]
    name: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(rename = "type")]
    kind: String,
    sha: CommitSha,
}

impl Github {
    /// Needs a running tokio runtime.
    ///
    /// # Errors
    /// When the address or the App's key cannot be used.
    pub fn new(
        served: Served,
        url: &str,
        http: Outgoing,
        app_id: u64,
        private_key: &Secret,
    ) -> Result<Self, ConnectError> {
        let key = SigningKey::new(app_id, private_key).map_err(|source| ConnectError::Key {
            connection: served.connection.clone(),
            source,
        })?;
        Ok(Self {
            connection: served.connection.clone(),
            webhooks: Arc::new(Events(served)),
            url: url.trim_end_matches('/').to_owned(),
            api: Api::new(http, key),
        })
    }

    /// The installation that a repository belongs to; none when the App is not installed on it. What a context does
    /// not say is asked for.
    async fn installation(&self, path: &RepoPath, known: &ForgeContext) -> Result<Option<u64>, ForgeError> {
        self.api.installation(path, known.as_str().parse().ok()).await
    }

    async fn scope(&self, repository: &Repository, purpose: Purpose) -> Result<Scope, ForgeError> {
        let path = &repository.path;
        let call = || self.api.call(&Method::GET, &format!("/repos/{path}/installation"));
        let number = repository.id.as_str().parse();
        let number = number.map_err(|_| call().refused(format!("{} is no id of a repository here", repository.id)))?;
        let installation = self.installation(path, &repository.context).await?;
        Ok(Scope {
            installation: installation.ok_or_else(|| call().forbidden(NOT_INSTALLED))?,
            repository: Some(number),
            purpose,
        })
    }

    /// Whether the App is installed on a repository: asked again, whatever is remembered.
    async fn covered(&self, path: &RepoPath, app: &str) -> Result<CheckedRepository, ForgeError> {
        let route = format!("/repos/{path}/installation");
        let access = match self.api.as_app(Ask::get(&route)).await {
            Ok(answer) if answer.is_absent() => {
                self.api.forget_installation(path);
                let reason = format!("it does not exist, or the App {app} is not installed on it");
                return Ok(CheckedRepository::missing(
                    path,
                    reason,
                    format!("install the App {app} on {path}"),
                ));
            }
            Ok(_) => Access::Granted { actions: false },
            // As for a repository that its owner, or the law, keeps from everybody.
            Err(ForgeError::Forbidden { reason, .. }) => {
                let reason = format!("GitHub does not let the App {app} see its installation: {reason}");
                return Ok(CheckedRepository::missing(
                    path,
                    reason,
                    format!("see at {path} what keeps the App {app} out"),
                ));
            }
            // What concerns all of them would have been said before; but a limit is everybody's.
            Err(
                ForgeError::Later { reason, .. }
                | ForgeError::Refused { reason, .. }
                | ForgeError::Away {
                    reason,
                    retry_after: None,
                    ..
                },
            ) => Access::Unknown { reason },
            Err(error) => return Err(error),
        };
        Ok(CheckedRepository {
            path: path.clone(),
            access,
        })
    }

    /// The commit that an annotated tag stands for.
    async fn peel(&self, path: &RepoPath, scope: Scope, tag: &str) -> Result<Option<CommitSha>, ForgeError> {
        let route = format!("/repos/{path}/commits/{}", encode_ref(tag));
        let ask = Ask {
            accept: Some("application/vnd.github.sha"),
            ..Ask::get(&route)
        };
        let call = self.api.call(&Method::GET, &route);
        let answer = self.api.as_installation(scope, ask).await?;
        let Some(body) = answer.found() else { return Ok(None) };
        let text = std::str::from_utf8(body).unwrap_or_default().trim();
        text.parse()
            .map(Some)
            .map_err(|_| call.later("the answer is not a commit id", None))
    }
}

#[async_trait]
impl Forge for Github {
    fn workflow_folders(&self) -> &'static [&'static str] {
        WORKFLOWS
    }

    /// GitHub's secondary limit is about 80 content-creating requests a minute.
    fn reports_per_minute(&self) -> u32 {
        80
    }

    fn webhooks(&self) -> Option<Arc<dyn Webhooks>> {
        Some(self.webhooks.clone())
    }

    async fn read_ref(&self, repository: &Repository, name: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        let scope = self.scope(repository, Purpose::Read).await?;
        let short = name.as_str().trim_start_matches("refs/");
        let route = format!("/repos/{}/git/ref/{}", repository.path, encode_ref(short));
        let found: Option<GitRef> = self.api.as_installation(scope, Ask::get(&route)).await?.json()?;
        match found {
            Some(found) if found.name != name.as_str() => Ok(None),
            Some(found) if found.object.kind == "tag" => self.peel(&repository.path, scope, short).await,
            Some(found) => Ok(Some(found.object.sha)),
            None => Ok(None),
        }
    }

    async fn find_repository(&self, path: &RepoPath, known: &ForgeContext) -> Result<Option<Repository>, ForgeError> {
        let Some(installation) = self.installation(path, known).await? else {
            return Ok(None);
        };
        let scope = Scope {
            installation,
            repository: None,
            purpose: Purpose::Metadata,
        };
        let route = format!("/repos/{path}");
        let found: Option<Repo> = match self.api.as_installation(scope, Ask::get(&route)).await {
            Err(error) => {
                self.api.forget_installation(path);
                return Err(error);
            }
            Ok(answer) => answer.json()?,
        };
        let connection = self.connection.clone();
        Ok(found.map(|repo| Repository {
            connection,
            id: repo.id.into(),
            path: repo.full_name,
            context: installation.into(),
        }))
    }

    async fn locate(&self, repository: &Repository) -> Result<Repository, ForgeError> {
        let scope = self.scope(repository, Purpose::Metadata).await?;
        // By its path a repository that was renamed is only a redirect.
        let route = format!("/repositories/{}", repository.id);
        let answer = self.api.as_installation(scope, Ask::get(&route)).await;
        let answer = answer.inspect_err(|_| self.api.forget_installation(&repository.path))?;
        let found = answer.needed::<Repo>(NOT_INSTALLED)?;
        if RepositoryId::from(found.id) != repository.id {
            return Err(answer.later("the answer is about another repository"));
        }
        Ok(Repository {
            path: found.full_name,
            context: scope.installation.into(),
            ..repository.clone()
        })
    }

    async fn fetch_access(&self, repository: &Repository) -> Result<FetchAccess, ForgeError> {
        let scope = self.scope(repository, Purpose::Read).await?;
        let token = self.api.token(scope).await?;
        let basic = STANDARD.encode(format!("x-access-token:{}", token.expose()));
        Ok(FetchAccess {
            url: format!("{}/{}.git", self.url, repository.path),
            authorization: Some(Secret::new(format!("Basic {basic}"))),
        })
    }

    async fn report(&self, report: &Report, details: &str, known: Option<&str>) -> Result<Option<String>, ForgeError> {
        let scope = self.scope(&report.repository, Purpose::Checks).await?;
        let id = checks::deliver(&self.api, scope, report, details, known).await?;
        Ok(Some(id.to_string()))
    }

    async fn answers(&self) -> Result<(), ForgeError> {
        self.api.as_app(Ask::get("/app")).await.map(drop)
    }

    async fn check(&self, repositories: &[RepoPath]) -> Result<Checked, ForgeError> {
        #[derive(Deserialize)]
        struct App {
            slug: String,
            #[serde(default)]
            permissions: std::collections::BTreeMap<String, String>,
            #[serde(default)]
            events: Vec<String>,
        }
        let call = self.api.call(&Method::GET, "/app");
        let app: App = self
            .api
            .as_app(Ask::get("/app"))
            .await?
            .needed("no App of this id exists there")?;
        let may = |what: &str, least: &[&str]| app.permissions.get(what).is_some_and(|p| least.contains(&p.as_str()));
        let mut missing = Vec::new();
        if !may("checks", &["write"]) {
            missing.push("permission checks: write");
        }
        if !may("contents", &["read", "write"]) {
            missing.push("permission contents: read");
        }
        if !app.events.iter().any(|e| e == "push") {
            missing.push("event push");
        }
        if !missing.is_empty() {
            return Err(call.refused(format!("the App {} lacks: {}", app.slug, missing.join(", "))));
        }
        let mut found = Vec::with_capacity(repositories.len());
        for path in repositories {
            found.push(self.covered(path, &app.slug).await?);
        }
        Ok(Checked {
            answer: format!("GitHub App {}", app.slug),
            repositories: found,
        })
    }
}
