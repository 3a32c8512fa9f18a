//! Proof that a thing on the host is ours. Whatever takes something away asks for it, so that nothing is destroyed
//! by its name alone.

use std::ops::Deref;

use crate::model::illumos::names::{DatasetName, SnapshotName, Unfit};

/// A thing that was seen to be ours by the rule of its kind:
///
/// | kind | proof |
/// |---|---|
/// | dataset | its own *local* owner tags of node and attempt; of an image, that of the node |
/// | snapshot | it is one of a dataset of ours |
/// | zone | the owner attributes in its configuration, or its path is that of a dataset of ours, or of a machine with a record |
/// | VNIC | exact name, stub and address |
/// | stub, address | those of a slot with a record, or below and on VNICs of ours |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned<T>(T);

impl<T> Owned<T> {
    /// Only a caller that has just inspected it may say so.
    pub(in crate::machine::zone) const fn by_rule(thing: T) -> Self {
        Self(thing)
    }

    /// For text that is shown and never run: plans, and tests of command lines.
    #[must_use]
    pub const fn assumed(thing: T) -> Self {
        Self(thing)
    }
}

impl Owned<DatasetName> {
    /// A snapshot of ours is ours.
    ///
    /// # Errors
    /// As [`DatasetName::snapshot`].
    pub fn snapshot(&self, name: &str) -> Result<Owned<SnapshotName>, Unfit> {
        self.0.snapshot(name).map(Owned)
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
