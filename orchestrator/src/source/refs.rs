//! Every branch and tag of a repository, for a checkout with its whole history: what the forge lists now.
//! Pull requests and other refs are not among them.

use std::{collections::HashMap, fs, path::Path};

use super::{
    Source, SourceError,
    git::{Protocol, git, run_ok},
    make_private,
    mirror::{fetch_error, own_ref},
    tips::MAX_LISTING,
};
use crate::{
    foreign_text::one_line,
    forge::FetchAccess,
    model::{
        ids::AttemptId,
        names::{CommitSha, RefName},
        trigger::Repository,
    },
};

/// A branch or tag may be deleted between being listed and being fetched; then both are done again.
const TRIES: u32 = 3;
/// With more refs than this that are files of their own, the mirror's are put into one.
const LOOSE: usize = 100;

/// A branch or tag, and the commit or annotated tag it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ref {
    pub(super) name: RefName,
    pub(super) id: CommitSha,
}

impl Source {
    /// Brings every branch and tag of a repository into its mirror and notes them for an attempt's grant.
    /// The repository must have a mirror. Returns how many are left out because of their names, which
    /// [`RefName`] does not take.
    ///
    /// # Errors
    /// [`SourceError::TooManyRefs`]; [`SourceError::TooLarge`] beyond the size limit; others when forge, git
    /// or disk fail.
    pub async fn fetch_refs(
        &self,
        repository: &Repository,
        access: &FetchAccess,
        attempt: AttemptId,
    ) -> Result<usize, SourceError> {
        let _lock = self.lock(repository).await;
        let what = "all branches and tags";
        for _ in 0..TRIES {
            let (names, left_out) = self.remote_refs(repository, access).await?;
            let specs: Vec<String> = names.iter().map(|name| format!("+{name}:{}", own_ref(name))).collect();
            if specs.is_empty() || self.transfer(repository, access, what, &specs).await? {
                let refs = self.mirrored(repository, names).await?;
                note(&self.refs_path(attempt), &refs)?;
                return Ok(left_out);
            }
        }
        Err(fetch_error(repository, what, "they change all the time"))
    }

    /// The branches and tags that an attempt's grant holds besides its own; none unless they were fetched.
    pub(super) fn noted_refs(&self, attempt: AttemptId) -> Result<Vec<Ref>, SourceError> {
        let path = self.refs_path(attempt);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(SourceError::io("read", &path, source)),
        };
        let bad = || SourceError::Answer {
            what: "the noted branches and tags",
            answer: one_line(&text, 80),
        };
        text.lines().map(|line| parse(line).ok_or_else(bad)).collect()
    }

    fn refs_path(&self, attempt: AttemptId) -> std::path::PathBuf {
        self.0.grants.join(attempt.to_string()).join("refs")
    }

    async fn remote_refs(
        &self,
        repository: &Repository,
        access: &FetchAccess,
    ) -> Result<(Vec<RefName>, usize), SourceError> {
        let listing = self.listing(repository, access).await?;
        let names = listing.refs.into_iter().map(|found| found.name).collect();
        Ok((names, listing.left_out))
    }

    /// What the mirror holds under these names.
    async fn mirrored(&self, repository: &Repository, names: Vec<RefName>) -> Result<Vec<Ref>, SourceError> {
        let mirror = self.mirror(repository);
        if names.len() > LOOSE {
            run_ok(&mirror, git(&mirror, Protocol::None, "pack-refs").arg("--all")).await?;
        }
        let cmd = git(&mirror, Protocol::None, "for-each-ref")
            .args([
                "--format=%(refname) %(objectname)",
                "--end-of-options",
                "refs/helios/refs/",
            ])
            .cap(MAX_LISTING);
        let text = run_ok(&mirror, cmd).await?.text();
        let ids: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        let found = names.into_iter().filter_map(|name| {
            let id = ids.get(own_ref(&name).as_str())?.parse().ok()?;
            Some(Ref { name, id })
        });
        Ok(found.collect())
    }
}

/// `ID NAME`, as they are noted.
fn parse(line: &str) -> Option<Ref> {
    let (id, name) = line.split_once(' ')?;
    Some(Ref {
        name: name.parse().ok()?,
        id: id.parse().ok()?,
    })
}

fn note(path: &Path, refs: &[Ref]) -> Result<(), SourceError> {
    make_private(path.parent().unwrap_or(path))?;
    let text: String = refs
        .iter()
        .map(|known| format!("{} {}\n", known.id, known.name))
        .collect();
    fs::write(path, text).map_err(|source| SourceError::io("write", path, source))
}
