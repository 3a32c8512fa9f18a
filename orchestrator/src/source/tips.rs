//! What a forge's branches and tags point at, asked with git itself: one way for every forge, and one call.

use super::{Source, SourceError};
use crate::{
    forge::FetchAccess,
    model::{
        names::{CommitSha, RefName},
        trigger::Repository,
    },
};

/// Branches and tags of one repository.
pub(super) const MAX_REFS: usize = 20_000;
/// Bytes of a listing that are read.
pub(super) const MAX_LISTING: usize = 64 << 20;

/// A branch or tag of a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRef {
    /// Its full name.
    pub name: RefName,
    /// The commit: an annotated tag's, peeled.
    pub commit: CommitSha,
    /// What the ref itself holds: an annotated tag's own id, else the commit.
    pub object: CommitSha,
}

/// What a forge lists.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) refs: Vec<RemoteRef>,
    /// Refs whose names [`RefName`] does not take.
    pub(super) left_out: usize,
}

impl Source {
    /// Every branch and tag of a repository at its forge. Refs whose names we take for none are left out: no push of
    /// them would run either.
    ///
    /// # Errors
    /// When the forge does not answer, and [`SourceError::TooManyRefs`] beyond 20 000 refs.
    pub async fn list_refs(
        &self,
        repository: &Repository,
        access: &FetchAccess,
    ) -> Result<Vec<RemoteRef>, SourceError> {
        Ok(self.listing(repository, access).await?.refs)
    }

    /// As [`Source::list_refs`], with the number of those left out.
    pub(super) async fn listing(&self, repository: &Repository, access: &FetchAccess) -> Result<Listing, SourceError> {
        let options = ["--heads", "--tags"];
        let answer = self.ls_remote(repository, access, "all branches and tags", &options, &[], MAX_LISTING);
        let output = answer.await?;
        let listing = parse(&output.text());
        if output.stdout.len() >= MAX_LISTING || listing.refs.len() + listing.left_out > MAX_REFS {
            return Err(SourceError::TooManyRefs {
                repository: repository.path.clone(),
                max: MAX_REFS,
            });
        }
        Ok(listing)
    }
}

/// Reads lines of `<id>\t<ref>`. An annotated tag is followed by a line for what it stands for, `<ref>^{}`.
fn parse(text: &str) -> Listing {
    let mut listing = Listing::default();
    for line in text.lines() {
        let (id, name) = line.split_once('\t').unwrap_or_default();
        let id = id.parse::<CommitSha>();
        if let Some(tag) = name.strip_suffix("^{}") {
            let tagged = listing.refs.last_mut().filter(|last| last.name.as_str() == tag);
            if let (Ok(id), Some(tagged)) = (id, tagged) {
                tagged.commit = id;
            }
            continue;
        }
        match (id, name.parse::<RefName>()) {
            (Ok(id), Ok(name)) if name.branch().is_some() || name.tag().is_some() => listing.refs.push(RemoteRef {
                name,
                commit: id.clone(),
                object: id,
            }),
            _ => listing.left_out += 1,
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_peeled_and_names_that_are_none_left_out() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let text = format!(
            "{a}\trefs/heads/main\n{a}\trefs/heads/--upload-pack=x\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{c}\trefs/pull/1/head\nzzz\trefs/heads/x\n"
        );
        let listing = parse(&text);
        assert_eq!(listing.left_out, 3);
        let found: Vec<(String, String, String)> = listing
            .refs
            .into_iter()
            .map(|r| (r.name.to_string(), r.commit.to_string(), r.object.to_string()))
            .collect();
        assert_eq!(
            found,
            [("refs/heads/main".into(), a.clone(), a), ("refs/tags/v1".into(), c, b)]
        );
    }

    proptest! {
        #[test]
        fn no_answer_panics(text in "([0-9a-f]{0,41}\t?(refs/(heads|tags)/)?\\PC{0,9}(\\^\\{\\})?\n?){0,9}") {
            parse(&text);
        }
    }
}
