//! In place of `schema` in a build without the feature of that name: there are no descriptions.

use std::path::Path;

use serde_json::Value;

use crate::{Error, state::Kind};

/// Never made.
#[derive(Debug)]
pub(crate) enum Schemas {}

/// Never made.
pub(crate) struct Operation {
    pub(crate) name: String,
}

impl Schemas {
    /// Refuses: what is not checked must not look as if it were.
    pub(crate) fn load(folder: &Path) -> Result<Self, Error> {
        Err(Error::Io {
            path: folder.to_owned(),
            source: std::io::Error::new(
                std::io::ErrorKind::Unsupported,
                "this build checks no bodies; build it with the feature `schemas`",
            ),
        })
    }

    pub(crate) fn operation(&self, _: Kind, _: &str, _: &str) -> Option<Operation> {
        match *self {}
    }

    pub(crate) fn check_request(&self, _: &Operation, _: &Value) -> Option<String> {
        match *self {}
    }

    pub(crate) fn check_answer(&self, _: &Operation, _: u16, _: &Value) -> Option<String> {
        match *self {}
    }
}
