//! Grants: what one attempt may read, as a repository of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Source, SourceError,
    git::{Protocol, git, run, run_ok},
    mirror::{create, own_ref, peel, remove},
    refs::Ref,
};
use crate::model::{
    ids::AttemptId,
    names::{CommitSha, RefName},
    trigger::Repository,
};

/// The ref of a grant that points at the granted commit.
pub const COMMIT_REF: &str = "refs/helios/commit";
/// A file of a grant that says what it was made for.
const MADE_FOR: &str = "helios-grant";
/// The longest copying of a mirror's objects.
const COPY_DEADLINE: Duration = Duration::from_secs(1800);

/// A repository made for one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Where it lies.
    pub path: PathBuf,
    /// The granted commit: [`COMMIT_REF`], and the branch or tag of the run.
    pub commit: CommitSha,
    /// The branch or tag of the run.
    pub ref_name: RefName,
    /// How many commits of history; 0 means all.
    pub depth: u32,
}

impl Source {
    /// Makes the repository an attempt may read: the closure of one commit under the name of the run's
    /// branch or tag, or `depth` commits of it; with depth 0 also the branches and tags that
    /// [`Source::fetch_refs`] noted for the attempt; and nothing else. Whoever notes them has decided that
    /// the attempt may read them.
    ///
    /// A machine fetches a grant of limited depth with `--depth=<depth>`: git refuses, without an error, to
    /// take new shallow ends from a server otherwise. Made again when it exists and was made for something
    /// else; a crash leaves either the whole of it or nothing.
    ///
    /// # Errors
    /// [`SourceError::NoCommit`] when the commit is not in the mirror; when git or the disk fail.
    pub async fn grant(
        &self,
        repository: &Repository,
        attempt: AttemptId,
        ref_name: &RefName,
        commit: &CommitSha,
        depth: u32,
    ) -> Result<Grant, SourceError> {
        let path = self.grant_path(attempt);
        let grant = Grant {
            path: path.clone(),
            commit: commit.clone(),
            ref_name: ref_name.clone(),
            depth,
        };
        if is_made(&grant).await? {
            return Ok(grant);
        }
        if !self.has_commit(repository, commit).await? {
            return Err(SourceError::NoCommit {
                repository: repository.path.clone(),
                commit: commit.clone(),
            });
        }
        let mirror = self.mirror(repository);
        let refs = self.granted_refs(&mirror, attempt, &grant).await?;
        let draft = path.with_file_name("grant");
        remove(&draft)?;
        create(&draft, commit).await?;
        let mut specs = format!("+{commit}:{COMMIT_REF}\n");
        for granted in refs.iter().filter(|granted| granted.id != *commit) {
            specs.push_str(granted.id.as_str());
            specs.push('\n');
        }
        let mut fetch = git(&draft, Protocol::File, "fetch").args([
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--stdin",
        ]);
        if depth > 0 {
            fetch = fetch.arg(format!("--depth={depth}"));
        }
        // A `file:` URL, so that the objects travel as a pack: a plain path might be linked.
        // git decodes such a URL, and a folder may be called anything.
        let mirror = mirror.display().to_string().replace('%', "%25");
        let fetch = fetch
            .args(["--end-of-options", &format!("file://{mirror}")])
            .stdin(specs);
        run_ok(&draft, fetch.deadline(COPY_DEADLINE)).await?;
        write_refs(&draft, &grant, &refs)?;
        remove(&path)?;
        fs::rename(&draft, &path).map_err(|source| SourceError::io("put the grant at", &path, source))?;
        Ok(grant)
    }

    /// The branches and tags of a grant: its own, which points at the granted commit wherever it points at
    /// the forge by now, and what was noted. An annotated tag stays one.
    async fn granted_refs(&self, mirror: &Path, attempt: AttemptId, grant: &Grant) -> Result<Vec<Ref>, SourceError> {
        let mut refs = Vec::new();
        let own = &grant.ref_name;
        if own.branch().is_some() || own.tag().is_some() {
            refs.push(Ref {
                name: own.clone(),
                id: tag_object(mirror, grant).await?.unwrap_or_else(|| grant.commit.clone()),
            });
        }
        if grant.depth == 0 {
            // No two names of a repository begin each other, but one that was deleted since may.
            let inside =
                |a: &RefName, b: &RefName| a.as_str().strip_prefix(b.as_str()).is_some_and(|r| r.starts_with('/'));
            let noted = self.noted_refs(attempt)?.into_iter();
            refs.extend(noted.filter(|r| r.name != *own && !inside(&r.name, own) && !inside(own, &r.name)));
        }
        Ok(refs)
    }

    /// Takes a grant away. Nothing happens when there is none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn drop_grant(&self, attempt: AttemptId) -> Result<(), SourceError> {
        let folder = self.0.grants.join(attempt.to_string());
        let gone = folder.clone();
        // A large repository takes a while to remove.
        tokio::task::spawn_blocking(move || remove(&gone))
            .await
            .map_err(|error| SourceError::io("remove the folder", &folder, std::io::Error::other(error)))?
    }

    /// The attempts that have a grant on this disk, for whoever clears up after a crash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn grants(&self) -> Result<Vec<AttemptId>, SourceError> {
        let listing = match fs::read_dir(&self.0.grants) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(SourceError::io("list the folder", &self.0.grants, source)),
        };
        Ok(listing
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    }

    pub(super) fn grant_path(&self, attempt: AttemptId) -> PathBuf {
        self.0.grants.join(attempt.to_string()).join("repo.git")
    }
}

/// The annotated tag of the run, when the mirror has it as it was.
async fn tag_object(mirror: &Path, grant: &Grant) -> Result<Option<CommitSha>, SourceError> {
    if grant.ref_name.tag().is_none() {
        return Ok(None);
    }
    let own = own_ref(&grant.ref_name);
    if peel(mirror, &own).await?.as_ref() != Some(&grant.commit) {
        return Ok(None);
    }
    let cmd = git(mirror, Protocol::None, "rev-parse").args(["--verify", "--quiet", "--end-of-options", &own]);
    Ok(run_ok(mirror, cmd).await?.text().trim().parse().ok())
}

/// Writes the refs as git's own list of them, so that no foreign name ever becomes a file.
fn write_refs(draft: &Path, grant: &Grant, refs: &[Ref]) -> Result<(), SourceError> {
    let packed: String = refs
        .iter()
        .map(|granted| format!("{} {}\n", granted.id, granted.name))
        .collect();
    let head = match grant.ref_name.branch() {
        Some(_) => format!("ref: {}\n", grant.ref_name),
        None => format!("{}\n", grant.commit),
    };
    for (name, text) in [("packed-refs", packed), ("HEAD", head), (MADE_FOR, made_for(grant))] {
        fs::write(draft.join(name), text).map_err(|source| SourceError::io("write the refs of", draft, source))?;
    }
    Ok(())
}

fn made_for(grant: &Grant) -> String {
    format!("{} {}", grant.depth, grant.ref_name)
}

async fn is_made(grant: &Grant) -> Result<bool, SourceError> {
    if fs::read_to_string(grant.path.join(MADE_FOR)).ok() != Some(made_for(grant)) {
        return Ok(false);
    }
    let cmd =
        git(&grant.path, Protocol::None, "rev-parse").args(["--verify", "--quiet", "--end-of-options", COMMIT_REF]);
    let output = run(&grant.path, cmd).await?;
    Ok(output.text().trim() == grant.commit.as_str())
}
