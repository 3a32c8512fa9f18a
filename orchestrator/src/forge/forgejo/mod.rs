//! Forgejo and Gitea. Their answers are gitea-sdk's types where those read what every server sends; requests are
//! made here and sent by our checked client. The SDK's own client is never made: it follows redirects, takes no
//! resolver, reads answers of any size, and would bring OpenSSL as a second TLS into this program.

mod status;
#[cfg(test)]
mod tests;
mod webhook;

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use gitea_sdk::model::{repos, user};
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _},
};

#[cfg(test)]
pub use self::webhook::DIALECT;
use self::{status::Status, webhook::Events};
use super::{
    ConnectError, FetchAccess, Forge, ForgeError, Webhooks,
    answer::{Answer, Call},
    encode_part, encode_ref,
    http::Outgoing,
    push::Served,
};
use crate::{
    foreign_text::one_line,
    model::{
        names::{CommitSha, ConnectionId, ForgeContext, RefName, RepoPath, RepositoryId},
        report::Report,
        trigger::Repository,
    },
    secret::Secret,
};

/// How long a repository is believed to be where it was.
const PATH_KNOWN_FOR: Duration = Duration::from_secs(60);
/// Paths that are remembered.
const PATHS: usize = 1000;
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
    paths: Mutex<HashMap<RepositoryId, (RepoPath, Instant)>>,
}

impl fmt::Debug for Forgejo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forgejo")
            .field("url", &self.url)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// One of the SDK's types, of which nothing but these fields is read: any other may be null, or hold a word that the
/// SDK does not know, and a repository would be lost for it.
fn only<'de, D: Deserializer<'de>, T: DeserializeOwned>(answer: D, fields: &[&str]) -> Result<T, D::Error> {
    let mut object = serde_json::Map::deserialize(answer)?;
    object.retain(|name, value| fields.contains(&name.as_str()) && !value.is_null());
    T::deserialize(serde_json::Value::Object(object)).map_err(D::Error::custom)
}

/// What is needed of a repository. The SDK's types read an absent field as zero or as an empty text, so that is no
/// answer; here and below.
struct Repo {
    id: RepositoryId,
    full_name: RepoPath,
}

impl<'de> Deserialize<'de> for Repo {
    fn deserialize<D: Deserializer<'de>>(answer: D) -> Result<Self, D::Error> {
        Self::try_from(only::<D, repos::Repository>(answer, &["id", "full_name"])?).map_err(D::Error::custom)
    }
}

impl TryFrom<repos::Repository> for Repo {
    type Error = String;

    fn try_from(repository: repos::Repository) -> Result<Self, String> {
        let id = u64::try_from(repository.id).unwrap_or(0);
        if id == 0 {
            return Err("a repository without an id".to_owned());
        }
        Ok(Self {
            id: id.into(),
            full_name: checked(&repository.full_name)?,
        })
    }
}

struct Commit {
    sha: CommitSha,
}

impl<'de> Deserialize<'de> for Commit {
    fn deserialize<D: Deserializer<'de>>(answer: D) -> Result<Self, D::Error> {
        Self::try_from(only::<D, repos::Commit>(answer, &["sha"])?).map_err(D::Error::custom)
    }
}

impl TryFrom<repos::Commit> for Commit {
    type Error = String;

    fn try_from(commit: repos::Commit) -> Result<Self, String> {
        checked(&commit.sha).map(|sha| Self { sha })
    }
}

struct User {
    login: String,
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(answer: D) -> Result<Self, D::Error> {
        Self::try_from(only::<D, user::User>(answer, &["login"])?).map_err(D::Error::custom)
    }
}

impl TryFrom<user::User> for User {
    type Error = String;

    fn try_from(user: user::User) -> Result<Self, String> {
        match user.login {
            login if login.is_empty() => Err("a user without a name".to_owned()),
            login => Ok(Self { login }),
        }
    }
}

/// A name of ours from a text of the forge's.
fn checked<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The SDK's own wants every field, and a list in `status_check_contexts`, where servers also send null.
#[derive(Deserialize)]
struct Branch {
    commit: BranchCommit,
}

#[derive(Deserialize)]
struct BranchCommit {
    id: CommitSha,
}

/// One ref when one matches exactly, on some versions; a list of all that begin so on others.
#[derive(Deserialize)]
#[serde(untagged)]
enum GitRefs {
    One(GitRef),
    Many(Vec<GitRef>),
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

#[derive(Deserialize)]
struct Version {
    version: String,
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
            paths: Mutex::default(),
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
        let call = Call {
            forge: self.url.clone(),
            call: format!("{method} /{path}"),
        };
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
        let response = self.http.send(request).await.map_err(|error| call.failed(&error))?;
        Answer::judge(call, response)
    }

    /// Where the repository of this id is now. A renamed one is followed; another one that took its
    /// path is never reported to.
    async fn current_path(&self, repository: &Repository) -> Result<RepoPath, ForgeError> {
        let paths = || self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let known = paths()
            .get(&repository.id)
            .filter(|(_, since)| since.elapsed() < PATH_KNOWN_FOR)
            .cloned();
        if let Some((path, _)) = known {
            return Ok(path);
        }
        let path = match self.repository(&repository.path).await {
            Ok(Some(found)) if found.id == repository.id => found.full_name,
            Err(error) if error.is_retryable() => return Err(error),
            // Another one, none, or a redirect to its new name.
            _ => {
                let answer = self.get(&format!("repositories/{}", repository.id)).await?;
                answer.needed::<Repo>(NO_RIGHT)?.full_name
            }
        };
        let mut paths = paths();
        if paths.len() >= PATHS {
            paths.retain(|_, (_, since)| since.elapsed() < PATH_KNOWN_FOR);
        }
        paths.insert(repository.id.clone(), (path.clone(), Instant::now()));
        Ok(path)
    }

    async fn repository(&self, path: &RepoPath) -> Result<Option<Repo>, ForgeError> {
        self.get(&format!("repos/{path}")).await?.json()
    }
}

#[async_trait]
impl Forge for Forgejo {
    fn workflow_folders(&self) -> &'static [&'static str] {
        WORKFLOWS
    }

    fn webhooks(&self) -> Option<Arc<dyn Webhooks>> {
        Some(self.webhooks.clone())
    }

    async fn read_ref(&self, repository: &Repository, name: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        let path = self.current_path(repository).await?;
        let short = name.as_str().trim_start_matches("refs/");
        // A few bytes, where the branch's own address answers with its whole commit, of which a pusher makes the message
        // as long as is wanted. But every ref that begins with this name is in it.
        let listed = self.get(&format!("repos/{path}/git/refs/{}", encode_ref(short))).await;
        let answer = match (listed, name.branch()) {
            (Err(ForgeError::Refused { .. }), Some(branch)) => {
                let answer = self
                    .get(&format!("repos/{path}/branches/{}", encode_ref(branch)))
                    .await?;
                return Ok(answer.json::<Branch>()?.map(|b| b.commit.id));
            }
            (listed, _) => listed?,
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

    async fn fetch_access(&self, repository: &Repository) -> Result<FetchAccess, ForgeError> {
        let path = self.current_path(repository).await?;
        // The token is the password; with one, the name before it does not matter.
        let basic = STANDARD.encode(format!("helios-ci:{}", self.token.expose()));
        Ok(FetchAccess {
            url: format!("{}/{path}.git", self.url),
            authorization: Some(Secret::new(format!("Basic {basic}"))),
        })
    }

    /// Statuses append and the latest counts, so saying one twice after a lost answer does no harm.
    async fn report(&self, report: &Report, details: &str, _known: Option<&str>) -> Result<Option<String>, ForgeError> {
        let path = self.current_path(&report.repository).await?;
        let route = format!("repos/{path}/statuses/{}", encode_part(report.commit.as_str()));
        let status = Status::new(report, details);
        let answer = self.send(Method::POST, &route, Some(&status)).await?;
        answer.needed::<serde::de::IgnoredAny>(NO_RIGHT)?;
        Ok(None)
    }

    async fn check(&self) -> Result<String, ForgeError> {
        let version: Version = self
            .get("version")
            .await?
            .needed("this is not the address of a Forgejo or Gitea")?;
        let user: User = self.get("user").await?.needed("the token belongs to nobody")?;
        let line = format!("Forgejo or Gitea {} as {}", version.version, user.login);
        Ok(one_line(&line, 200))
    }
}
