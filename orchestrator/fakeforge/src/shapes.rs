//! The JSON shapes that API answers and webhook payloads share: users and repositories.

use serde_json::{Map, Value, json};

use crate::{
    access::Access,
    state::{ForgeState, Kind, Repository},
    time::rfc3339,
};

pub(crate) fn user(state: &mut ForgeState, kind: Kind, url: &str, login: &str) -> Value {
    let id = state.user(login);
    match kind {
        Kind::Forgejo => json!({
            "id": id, "login": login, "login_name": "", "source_id": 0, "full_name": "", "username": login,
            "email": format!("{login}@noreply.localhost"), "avatar_url": format!("{url}/avatars/{login}"),
            "html_url": format!("{url}/{login}"), "language": "", "is_admin": false,
            "last_login": "0001-01-01T00:00:00Z", "created": "2026-01-01T00:00:00Z", "restricted": false,
            "active": true, "prohibit_login": false, "location": "", "website": "", "description": "",
            "visibility": "public", "followers_count": 0, "following_count": 0, "starred_repos_count": 0,
        }),
        Kind::Github => {
            let api = format!("{url}/api/v3/users/{login}");
            json!({
                "login": login, "id": id, "node_id": format!("U_{id}"), "avatar_url": format!("{url}/avatars/{login}"),
                "gravatar_id": "", "url": api, "html_url": format!("{url}/{login}"),
                "followers_url": format!("{api}/followers"), "following_url": format!("{api}/following{{/other_user}}"),
                "gists_url": format!("{api}/gists{{/gist_id}}"), "starred_url": format!("{api}/starred{{/owner}}{{/repo}}"),
                "subscriptions_url": format!("{api}/subscriptions"), "organizations_url": format!("{api}/orgs"),
                "repos_url": format!("{api}/repos"), "events_url": format!("{api}/events{{/privacy}}"),
                "received_events_url": format!("{api}/received_events"),
                "type": if login.ends_with("[bot]") { "Bot" } else { "User" }, "site_admin": false,
            })
        }
    }
}

/// As payloads show it: for somebody who may everything.
pub(crate) fn repository(state: &mut ForgeState, url: &str, repository: &Repository) -> Value {
    repository_for(state, url, repository, Some(Access::Admin))
}

/// As the API shows it to somebody with this right; Forgejo says which.
pub(crate) fn repository_for(
    state: &mut ForgeState,
    url: &str,
    repository: &Repository,
    access: Option<Access>,
) -> Value {
    let (owner, name) = repository.split();
    let owner = user(state, repository.kind, url, owner);
    let parent = repository.fork_of.and_then(|id| state.repositories.get(&id)).cloned();
    let html = format!("{url}/{}", repository.path);
    let at = rfc3339(repository.created_ms);
    match repository.kind {
        Kind::Forgejo => {
            let parent = parent.map(|parent| crate::shapes::repository(state, url, &parent));
            let may = |least| access >= Some(least);
            let permissions =
                json!({"admin": may(Access::Admin), "push": may(Access::Write), "pull": may(Access::Read)});
            json!({
                "id": repository.id, "owner": owner, "name": name, "full_name": repository.path, "description": "",
                "empty": repository.empty, "private": repository.private, "fork": repository.fork_of.is_some(), "template": false,
                "parent": parent, "mirror": false, "size": 24, "language": "", "languages_url":
                format!("{url}/api/v1/repos/{}/languages", repository.path), "html_url": html,
                "url": format!("{url}/api/v1/repos/{}", repository.path), "link": "",
                "ssh_url": format!("git@localhost:{}.git", repository.path), "clone_url": format!("{html}.git"),
                "original_url": "", "website": "", "stars_count": 0, "forks_count": 0, "watchers_count": 1,
                "open_issues_count": 0, "open_pr_counter": 0, "release_counter": 0,
                "default_branch": repository.default_branch, "archived": repository.archived, "created_at": at, "updated_at": at,
                "archived_at": "1970-01-01T00:00:00Z", "permissions": permissions,
                "has_issues": true, "has_wiki": false, "has_pull_requests": true, "has_projects": false,
                "has_releases": true, "has_packages": false, "has_actions": repository.has_actions, "internal": false,
                "ignore_whitespace_conflicts": false, "allow_merge_commits": true, "allow_rebase": true,
                "allow_rebase_explicit": true, "allow_squash_merge": true, "allow_fast_forward_only_merge": true,
                "allow_rebase_update": true, "default_delete_branch_after_merge": false,
                "default_merge_style": "merge", "default_allow_maintainer_edit": false, "avatar_url": "",
                "mirror_interval": "", "mirror_updated": "0001-01-01T00:00:00Z", "object_format_name": "sha1",
                "wiki_branch": "main",
            })
        }
        Kind::Github => github_repository(
            repository,
            owner,
            &html,
            &format!("{url}/api/v3/repos/{}", repository.path),
            &at,
        ),
    }
}

fn github_repository(repository: &Repository, owner: Value, html: &str, api: &str, at: &str) -> Value {
    let links = [
        ("archive", "{archive_format}{/ref}"),
        ("assignees", "{/user}"),
        ("blobs", "/git/blobs{/sha}"),
        ("branches", "{/branch}"),
        ("collaborators", "{/collaborator}"),
        ("comments", "{/number}"),
        ("commits", "{/sha}"),
        ("compare", "/{base}...{head}"),
        ("contents", "/{+path}"),
        ("contributors", ""),
        ("deployments", ""),
        ("downloads", ""),
        ("events", ""),
        ("forks", ""),
        ("git_commits", "{/sha}"),
        ("git_refs", "{/sha}"),
        ("git_tags", "{/sha}"),
        ("hooks", ""),
        ("issue_comment", "{/number}"),
        ("issue_events", "{/number}"),
        ("issues", "{/number}"),
        ("keys", "{/key_id}"),
        ("labels", "{/name}"),
        ("languages", ""),
        ("merges", ""),
        ("milestones", "{/number}"),
        ("notifications", "{?since,all,participating}"),
        ("pulls", "{/number}"),
        ("releases", "{/id}"),
        ("stargazers", ""),
        ("statuses", "/{sha}"),
        ("subscribers", ""),
        ("subscription", ""),
        ("tags", ""),
        ("teams", ""),
        ("trees", "{/sha}"),
    ];
    let links: Map<String, Value> = links
        .iter()
        .map(|(name, rest)| (format!("{name}_url"), format!("{api}/{name}{rest}").into()))
        .collect();
    let mut shape = json!({
        "id": repository.id, "node_id": format!("R_{}", repository.id), "name": repository.split().1,
        "full_name": repository.path, "private": repository.private, "owner": owner, "html_url": html,
        "description": null, "fork": repository.fork_of.is_some(), "url": api, "clone_url": format!("{html}.git"),
        "git_url": format!("{}.git", html.replacen("http", "git", 1)), "ssh_url": format!("git@localhost:{}.git", repository.path),
        "svn_url": html, "mirror_url": null, "homepage": null, "language": null, "license": null, "size": 24,
        "forks": 0, "forks_count": 0, "open_issues": 0, "open_issues_count": 0, "watchers": 0, "watchers_count": 0,
        "stargazers_count": 0, "network_count": 0, "subscribers_count": 0, "has_issues": true, "has_projects": false,
        "has_wiki": false, "has_pages": false, "has_discussions": false, "has_downloads": false, "archived": false, "disabled": false,
        "visibility": if repository.private { "private" } else { "public" }, "default_branch": repository.default_branch,
        "pushed_at": at, "created_at": at, "updated_at": at,
    });
    if let Some(shape) = shape.as_object_mut() {
        shape.extend(links);
    }
    shape
}
