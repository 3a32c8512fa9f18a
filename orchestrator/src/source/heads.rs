//! What branches and tags of a repository point at, fetched: all that are asked for with one `git fetch`.

use std::collections::{BTreeSet, HashMap};

use super::{
    Source, SourceError,
    git::{Protocol, git, run_ok},
    mirror::{create, fetch_error, own_ref, repack},
};
use crate::{
    foreign_text::one_line,
    forge::FetchAccess,
    model::{
        names::{CommitSha, RefName},
        trigger::Repository,
    },
};

/// A ref may be deleted between being listed and being fetched; then both are done again.
const TRIES: u32 = 3;
/// The longest answer about the refs that are asked for, in bytes.
const LISTING: usize = 1 << 20;

impl Source {
    /// Fetches refs, with their whole history, and returns the commits they point at now, tags peeled. A ref that the
    /// forge does not have, or that leads to no commit, is not among them.
    ///
    /// # Errors
    /// [`SourceError::TooLarge`] beyond the size limit, [`SourceError::Denied`] when our credentials are refused, and
    /// others when forge, git or disk fail.
    pub async fn fetch_heads(
        &self,
        repository: &Repository,
        access: &FetchAccess,
        names: impl IntoIterator<Item = &RefName>,
    ) -> Result<HashMap<RefName, CommitSha>, SourceError> {
        let mut names: BTreeSet<&RefName> = names.into_iter().collect();
        let what = match names.first() {
            Some(only) if names.len() == 1 => only.to_string(),
            _ => format!("{} branches and tags", names.len()),
        };
        let _lock = self.lock(repository).await;
        let mirror = self.mirror(repository);
        if !mirror.join("HEAD").exists() {
            let found = self.remote_tips(repository, access, &what, &names).await?;
            let Some(tip) = found.values().next() else {
                return Ok(HashMap::new());
            };
            create(&mirror, tip).await?;
            names.retain(|name| found.contains_key(name.as_str()));
        }
        for _ in 0..TRIES {
            if names.is_empty() {
                return Ok(HashMap::new());
            }
            let specs: Vec<String> = names.iter().map(|name| format!("+{name}:{}", own_ref(name))).collect();
            if self.transfer(repository, access, &what, &specs).await? {
                let heads = self.heads(repository, &names).await?;
                repack(&mirror).await?;
                return Ok(heads);
            }
            // git fetches nothing where one of them is gone.
            let found = self.remote_tips(repository, access, &what, &names).await?;
            names.retain(|name| found.contains_key(name.as_str()));
        }
        Err(fetch_error(repository, &what, "its refs change all the time"))
    }

    /// Which of these refs the forge has, and what they hold: an annotated tag's own id.
    async fn remote_tips(
        &self,
        repository: &Repository,
        access: &FetchAccess,
        what: &str,
        names: &BTreeSet<&RefName>,
    ) -> Result<HashMap<String, CommitSha>, SourceError> {
        // Patterns that also match names which only end so.
        let patterns: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let listing = self.ls_remote(repository, access, what, &[], &patterns, LISTING);
        let output = listing.await?;
        // What was cut off would look like refs that are gone.
        if output.stdout.len() >= LISTING {
            return Err(SourceError::Answer {
                what: "ls-remote",
                answer: format!("at least {LISTING} bytes about {what}"),
            });
        }
        let text = output.text();
        let mut found = HashMap::new();
        for (id, name) in text.lines().filter_map(|line| line.split_once('\t')) {
            if !patterns.contains(&name) {
                continue;
            }
            let id = id.parse().map_err(|_| SourceError::Answer {
                what: "ls-remote",
                answer: one_line(id, 80),
            })?;
            found.insert(name.to_owned(), id);
        }
        Ok(found)
    }

    /// The commits that the mirror holds under these names, found by one command.
    async fn heads(
        &self,
        repository: &Repository,
        names: &BTreeSet<&RefName>,
    ) -> Result<HashMap<RefName, CommitSha>, SourceError> {
        let mirror = self.mirror(repository);
        let asked: String = names
            .iter()
            .map(|name| format!("{}^{{commit}}\n", own_ref(name)))
            .collect();
        let cmd = git(&mirror, Protocol::None, "cat-file")
            .arg("--batch-check=%(objectname)")
            .stdin(asked);
        let text = run_ok(&mirror, cmd).await?.text();
        // One line for each, in their order; what leads to no commit is called `missing` behind what was asked.
        let commits = text.lines().map(|line| line.parse::<CommitSha>().ok());
        let heads = names.iter().zip(commits);
        Ok(heads
            .filter_map(|(name, commit)| Some(((*name).clone(), commit?)))
            .collect())
    }
}
