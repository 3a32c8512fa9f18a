//! What a forge's branches and tags point at, asked with git itself: one way for every forge, and one call.

use super::{Source, SourceError};
use crate::{
    forge::FetchAccess,
    model::{
        names::{CommitSha, RefName},
        trigger::Repository,
    },
};

/// The longest list that is read, in bytes.
const LONGEST: usize = 1 << 20;
/// About how many refs that is.
const MAX_REFS: usize = 10_000;

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

impl Source {
    /// Every branch and tag of a repository at its forge. Refs whose names we take for none are left out: no push of
    /// them would run either.
    ///
    /// # Errors
    /// When the forge does not answer, and [`SourceError::TooManyRefs`] when the list is longer than 1 MiB.
    pub async fn list_refs(
        &self,
        repository: &Repository,
        access: &FetchAccess,
    ) -> Result<Vec<RemoteRef>, SourceError> {
        let options = ["--heads", "--tags"];
        let listing = self.ls_remote(repository, access, "branches and tags", &options, &[], LONGEST);
        let output = listing.await?;
        if output.stdout.len() >= LONGEST {
            return Err(SourceError::TooManyRefs {
                repository: repository.path.clone(),
                max: MAX_REFS,
            });
        }
        Ok(parse(&output.text()))
    }
}

/// Reads lines of `<id>\t<ref>`. An annotated tag is followed by a line for what it stands for, `<ref>^{}`.
fn parse(text: &str) -> Vec<RemoteRef> {
    let mut refs: Vec<RemoteRef> = Vec::new();
    for (id, name) in text.lines().filter_map(|line| line.split_once('\t')) {
        let Ok(id) = id.parse::<CommitSha>() else { continue };
        if let Some(tag) = name.strip_suffix("^{}") {
            if let Some(last) = refs.last_mut().filter(|last| last.name.as_str() == tag) {
                last.commit = id;
            }
        } else if let Ok(name) = name.parse::<RefName>()
            && (name.branch().is_some() || name.tag().is_some())
        {
            refs.push(RemoteRef {
                name,
                commit: id.clone(),
                object: id,
            });
        }
    }
    refs
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
        let found: Vec<(String, String, String)> = parse(&text)
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
