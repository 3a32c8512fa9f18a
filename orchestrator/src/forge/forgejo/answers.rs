//! What is read of Forgejo's and Gitea's answers.

use std::{fmt, str::FromStr};

use gitea_sdk::model::{repos, user};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};

use crate::model::names::{CommitSha, RepoPath, RepositoryId};

/// One of the SDK's types, of which nothing but these fields is read: any other may be null, or hold a word that the
/// SDK does not know, and a repository would be lost for it.
fn only<'de, D: Deserializer<'de>, T: DeserializeOwned>(answer: D, fields: &[&str]) -> Result<T, D::Error> {
    let mut object = serde_json::Map::deserialize(answer)?;
    object.retain(|name, value| fields.contains(&name.as_str()) && !value.is_null());
    T::deserialize(serde_json::Value::Object(object)).map_err(D::Error::custom)
}

/// What is needed of a repository. The SDK's types read an absent field as zero or as an empty text, so that is no
/// answer; here and below.
pub(super) struct Repo {
    pub(super) id: RepositoryId,
    pub(super) full_name: RepoPath,
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

pub(super) struct Commit {
    pub(super) sha: CommitSha,
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

pub(super) struct User {
    pub(super) login: String,
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

/// A branch or tag. The SDK's own wants every field, and a list in `status_check_contexts`, where servers also send null.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) commit: NamedCommit,
}

/// A branch names its commit `id`, a tag `sha`: that of the commit, also where a tag object is between.
#[derive(Deserialize)]
pub(super) struct NamedCommit {
    #[serde(alias = "sha")]
    pub(super) id: CommitSha,
}

/// One ref when one matches exactly, on some versions; a list of all that begin so on others.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum GitRefs {
    One(GitRef),
    Many(Vec<GitRef>),
}

#[derive(Deserialize)]
pub(super) struct GitRef {
    #[serde(rename = "ref")]
    pub(super) name: String,
    pub(super) object: Object,
}

#[derive(Deserialize)]
pub(super) struct Object {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) sha: CommitSha,
}

#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
}
