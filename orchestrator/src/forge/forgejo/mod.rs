//! Forgejo and Gitea. Their answers are gitea-sdk's types where those read what every server sends; requests are
//! made here and sent by our checked client. The SDK's own client is never made: it follows redirects, takes no
//! resolver, reads answers of any size, and would bring OpenSSL as a second TLS into this program.

mod answers;
mod check;
mod paths;
mod status;
#[cfg(test)]
mod tests;
mod webhook;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use serde::Serialize;

#[cfg(test)]
pub use self::webhook::DIALECT;
use self::{
    answers::{Commit, GitRefs, Named, Repo},
    paths::KnownPaths,
    status::Status,
    webhook::Events,
};
use super::{
    Checked, ConnectError, FetchAccess, Forge, ForgeError, Webhooks,
    answer::{Answer, Call},
    encode_part, encode_ref,
    http::{Outgoing, SendError},
    push::Served,
};
use crate::{
    model::{
        names::{CommitSha, ConnectionId, ForgeContext, RefName, RepoPath},
        report::Report,
        trigger::Repository,
    },
    secret::Secret,
};

/// How long a repository is believed to be where it was, while its refs are read.
const PATH_KNOWN_FOR: Duration = Duration::from_secs(60);
/// Statuses that are looked through for one of ours; the most that a page holds.
const PAGE: usize = 50;
const NO_RIGHT: &str = "the repository is gone, or the token's user may not write to it (it needs `write:repository`)";

/// The folders that Forgejo's and Gitea's Actions read workflow files from.
pub const WORKFLOWS: &[&str] = &[".forgejo/workflows", ".gitea/workflows", ".github/workflows"];

/// One Forgejo or Gitea connection.
pub struct Forgejo {
    connection: ConnectionId,
    webhooks: Arc<Events>,
    url: String,
    http: Outgoing,
    token: Secret,
    authorization: HeaderValue,
    paths: KnownPaths,
}

impl fmt::Debug for Forgejo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forgejo")
            .field("url", &self.url)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Forgejo {
    /// # Errors
    /// When the token cannot be part of a header.
    pub fn new(served: Served, url: &str, http: Outgoing, token: &Secret) -> Result<Self, ConnectError> {
        let bad_token = || ConnectError::Token {
            connection: served.connection.clone(),
        };
        let visible = !token.expose().is_empty() && token.expose().bytes().all(|b| b.is_ascii_graphic());
        let mut authorization = HeaderValue::from_str(&format!("token {}", token.expose()))
            .ok()
            .filter(|_| visible)
            .ok_or_else(bad_token)?;
        authorization.set_sensitive(true);
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self {
            connection: served.connection.clone(),
            webhooks: Arc::new(Events(served)),
            url,
            http,
            token: token.clone(),
            authorization,
            paths: KnownPaths::default(),
        })
    }

    async fn get(&self, path: &str) -> Result<Answer, ForgeError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Answer, ForgeError> {
        let call = self.call(&method, path);
        let sent = self.exchange(&call, method, path, body).await?;
        Answer::judge(call.clone(), sent.map_err(|error| call.failed(&error))?)
    }

    fn call(&self, method: &Method, path: &str) -> Call {
        Call {
            forge: self.url.clone(),
            call: format!("{method} /{path}"),
        }
    }

    /// What came back, judged by nobody.
    async fn exchange(
        &self,
        call: &Call,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Result<Response<Bytes>, SendError>, ForgeError> {
        let malformed = |what: &dyn fmt::Display| call.refused(format!("the request cannot be made: {what}"));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/{path}", self.url))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json");
        let mut bytes = Vec::new();
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json");
            bytes = serde_json::to_vec(body).map_err(|error| malformed(&error))?;
        }
        let request = request.body(Full::from(bytes)).map_err(|error| malformed(&error))?;
        Ok(self.http.send(request).await)
    }

    /// Where the repository of this id is. A path that was checked before `believed_for` is not checked again. A renamed
    /// one is followed; another one that took its path is never reported to.
    async fn known_path(&self, repository: &Repository, believed_for: Duration) -> Result<KnownPath, ForgeError> {
        let last = self.paths.last(&repository.id);
        let path = match last {
            Some((path, since)) if since.elapsed() < believed_for => return Ok(KnownPath { path, remembered: true }),
            Some((path, _)) => path,
            None => repository.path.clone(),
        };
        let path = match self.repository(&path).await {
            Ok(Some(found)) if found.id == repository.id => {
                self.paths.learn(&repository.id, &found.full_name);
                found.full_name
            }
            Err(error) if error.is_retryable() => return Err(error),
            // Another one, none, none that we may see, or a redirect to its new name.
            _ => self.path_by_number(repository).await?,
        };
        Ok(KnownPath {
            path,
            remembered: false,
        })
    }

    /// Where the repository of this id is, whatever was known.
    async fn path_by_number(&self, repository: &Repository) -> Result<RepoPath, ForgeError> {
        self.paths.forget(&repository.id);
        let answer = self.get(&format!("repositories/{}", repository.id)).await?;
        let found = answer.needed::<Repo>(NO_RIGHT)?;
        if found.id != repository.id {
            return Err(answer.later("the answer is about another repository"));
        }
        self.paths.learn(&repository.id, &found.full_name);
        Ok(found.full_name)
    }

    async fn repository(&self, path: &RepoPath) -> Result<Option<Repo>, ForgeError> {
        self.get(&format!("repos/{path}")).await?.json()
    }

    async fn ref_at(&self, path: &RepoPath, name: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        let short = name.as_str().trim_start_matches("refs/");
        // A few bytes, where the branch's own address answers with its whole commit, of which a pusher makes the message
        // as long as is wanted. But every ref that begins with this name is in it.
        let route = format!("repos/{path}/git/refs/{}", encode_ref(short));
        let call = self.call(&Method::GET, &route);
        let answer = match self.exchange(&call, Method::GET, &route, None::<&()>).await? {
            Err(SendError::TooLarge) => return self.ref_alone(path, short).await,
            sent => Answer::judge(call.clone(), sent.map_err(|error| call.failed(&error))?)?,
        };
        let refs = match answer.json::<GitRefs>()? {
            None => return Ok(None),
            Some(GitRefs::One(one)) => vec![one],
            Some(GitRefs::Many(many)) => many,
        };
        match refs.into_iter().find(|r| r.name == name.as_str()) {
            None => Ok(None),
            Some(found) if found.object.kind == "tag" => {
                // An annotated tag: this endpoint follows it to its commit.
                let answer = self
                    .get(&format!("repos/{path}/git/commits/{}", found.object.sha))
                    .await?;
                Ok(answer.json::<Commit>()?.map(|c| c.sha))
            }
            Some(found) => Ok(Some(found.object.sha)),
        }
    }

    /// A ref whose name too many others begin with: `heads/x` and `tags/x` have addresses of their own.
    async fn ref_alone(&self, path: &RepoPath, short: &str) -> Result<Option<CommitSha>, ForgeError> {
        let (kind, name) = short.split_once('/').unwrap_or((short, ""));
        let route = match kind {
            "heads" => "branches",
            _ => "tags",
        };
        let route = format!("repos/{path}/{route}/{}", encode_ref(name));
        let found: Option<Named> = self.get(&route).await?.json()?;
        Ok(found.map(|named| named.commit.id))
    }

    /// Sets a status of a commit. Forgejo stores one for a commit that it does not know, or in a repository without its
    /// default branch, and answers 500 all the same, so it is looked up once.
    async fn set_status(&self, path: &RepoPath, commit: &CommitSha, status: &Status<'_>) -> Result<(), ForgeError> {
        let route = format!("repos/{path}/statuses/{}", encode_part(commit.as_str()));
        let sent = self.send(Method::POST, &route, Some(status)).await;
        match sent.and_then(|answer| answer.needed::<serde::de::IgnoredAny>(NO_RIGHT)) {
            Ok(_) => Ok(()),
            // Nor does silence say that it was not stored.
            Err(error @ (ForgeError::Later { .. } | ForgeError::Away { retry_after: None, .. })) => {
                if !self.stands(&route, status).await {
                    return Err(error);
                }
                tracing::info!(%commit, reason = %error, "the forge stored the status and did not say so");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether this status is the newest of its context.
    async fn stands(&self, route: &str, status: &Status<'_>) -> bool {
        // Times are whole seconds, so only the ids tell which of two is newer. Servers that do not know this order begin
        // with the newest, too.
        let newest = self.get(&format!("{route}?sort=highestindex&limit={PAGE}")).await;
        let stored = newest.and_then(|answer| answer.json::<Vec<serde_json::Value>>());
        stored.is_ok_and(|stored| status.is_newest_of(stored.unwrap_or_default()))
    }
}

/// A path, and whether it was only remembered.
struct KnownPath {
    path: RepoPath,
    remembered: bool,
}

/// Whether a call to a path that led somewhere before may fare better at another: a redirect, 404, 403.
fn leads_nowhere(error: &ForgeError) -> bool {
    matches!(error, ForgeError::Forbidden { .. } | ForgeError::Refused { .. })
}

#[async_trait]
impl Forge for Forgejo {
    fn workflow_folders(&self) -> &'static [&'static str] {
        WORKFLOWS
    }

    /// Neither limits them. One is sent after the other, which is a limit, too; this one only ends a loop of ours.
    fn reports_per_minute(&self) -> u32 {
        3000
    }

    fn webhooks(&self) -> Option<Arc<dyn Webhooks>> {
        Some(self.webhooks.clone())
    }

    async fn read_ref(&self, repository: &Repository, name: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        let known = self.known_path(repository, PATH_KNOWN_FOR).await?;
        let found = self.ref_at(&known.path, name).await;
        if !known.remembered || !found.as_ref().map_or_else(leads_nowhere, Option::is_none) {
            return found;
        }
        let path = self.path_by_number(repository).await?;
        if path == known.path {
            return found;
        }
        self.ref_at(&path, name).await
    }

    async fn find_repository(&self, path: &RepoPath, _known: &ForgeContext) -> Result<Option<Repository>, ForgeError> {
        let connection = self.connection.clone();
        let found = self.repository(path).await?;
        Ok(found.map(|repo| Repository {
            connection,
            id: repo.id,
            path: repo.full_name,
            context: ForgeContext::default(),
        }))
    }

    async fn locate(&self, repository: &Repository) -> Result<Repository, ForgeError> {
        let path = self.known_path(repository, Duration::ZERO).await?.path;
        Ok(Repository {
            path,
            ..repository.clone()
        })
    }

    async fn fetch_access(&self, repository: &Repository) -> Result<FetchAccess, ForgeError> {
        let path = self.known_path(repository, PATH_KNOWN_FOR).await?.path;
        // The token is the password; with one, the name before it does not matter.
        let basic = STANDARD.encode(format!("helios-ci:{}", self.token.expose()));
        Ok(FetchAccess {
            url: format!("{}/{path}.git", self.url),
            authorization: Some(Secret::new(format!("Basic {basic}"))),
        })
    }

    /// Statuses append and the latest counts, so saying one twice after a lost answer does no harm.
    ///
    /// A status is set by path alone, and its answer does not say in which repository: so the path's id is compared before
    /// each, also before those that are not final, which would stand for ever in a repository that took the path. That costs
    /// one small request more, and leaves that repository only the time of one request to get what is not its own.
    async fn report(&self, report: &Report, details: &str, _known: Option<&str>) -> Result<Option<String>, ForgeError> {
        let known = self.known_path(&report.repository, Duration::ZERO).await?;
        let status = Status::new(report, details);
        match self.set_status(&known.path, &report.commit, &status).await {
            Err(error) if leads_nowhere(&error) => {
                let path = self.path_by_number(&report.repository).await?;
                if path == known.path {
                    return Err(error);
                }
                self.set_status(&path, &report.commit, &status).await?;
            }
            sent => sent?,
        }
        Ok(None)
    }

    async fn answers(&self) -> Result<(), ForgeError> {
        self.get("version").await.map(drop)
    }

    async fn check(&self, repositories: &[RepoPath]) -> Result<Checked, ForgeError> {
        self.check_rights(repositories).await
    }
}
