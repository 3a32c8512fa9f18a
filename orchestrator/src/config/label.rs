//! From `runs-on` to an image, a size and the class that the queue knows them by.

use super::{Config, Image};
use crate::model::{names::Label, size::Size};

/// A size that is not configured here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no size `{size}`; sizes here: {}", .known.join(", "))]
pub struct UnknownSize {
    /// What was asked for.
    pub size: Label,
    /// Every size there is.
    pub known: Vec<String>,
}

/// A label that no machine here has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; labels here: {}", .label.as_ref().map_or_else(
    || "the job has no `runs-on` and the configuration no `default_label`".to_owned(),
    |label| format!("no machine has the label `{label}`")
), if .known.is_empty() { "none".to_owned() } else { .known.iter().map(Label::as_str).collect::<Vec<_>>().join(", ") })]
pub struct UnknownLabel {
    /// What was asked for; `None` when nothing was and there is no default.
    pub label: Option<Label>,
    /// Every label and alias there is.
    pub known: Vec<Label>,
}

impl Config {
    /// The image behind a label or alias (or the default label), under its canonical label, with the
    /// size its machines have unless the job says otherwise.
    ///
    /// # Errors
    /// When there is no such label.
    pub fn resolve_label(&self, runs_on: Option<&Label>) -> Result<(Label, &Image, Size), UnknownLabel> {
        let asked = runs_on.or(self.default_label.as_ref());
        let found = asked.and_then(|label| {
            let canonical = self.aliases.get(label).unwrap_or(label);
            self.images.get_key_value(canonical)
        });
        match found {
            Some((label, image)) => Ok((label.clone(), image, image.size)),
            None => Err(UnknownLabel {
                label: asked.cloned(),
                known: self.images.keys().chain(self.aliases.keys()).cloned().collect(),
            }),
        }
    }

    /// A size preset, for a machine of this image: its disk is at least the image's.
    ///
    /// # Errors
    /// When there is no such size.
    pub fn resolve_size(&self, asked: &Label, image: &Image) -> Result<Size, UnknownSize> {
        match self.sizes.get(asked.as_str()) {
            Some(size) => Ok(Size {
                disk_gib: size.disk_gib.max(image.size.disk_gib),
                ..*size
            }),
            None => Err(UnknownSize {
                size: asked.clone(),
                known: self.sizes.keys().cloned().collect(),
            }),
        }
    }

    /// What the queue calls machines of this canonical label and size: 16 hexadecimal digits, the same
    /// on every node and in every version.
    #[must_use]
    pub fn class(label: &Label, size: Size) -> String {
        // A label holds no line break, so no two pairs have the same text.
        let disk = size.disk_gib.map_or_else(String::new, |gib| gib.to_string());
        let text = format!("{label}\n{}\n{}\n{disk}", size.cpus, size.memory_mib);
        crate::digest::sha256_hex(text)[..16].to_owned()
    }
}
