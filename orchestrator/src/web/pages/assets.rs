//! The static files: part of the binary, under addresses that change with their content, so that
//! browsers may keep them for ever.

use crate::digest::sha256_hex;

/// The stylesheet; public for the test of its contrast.
pub const STYLE: &str = include_str!("../../../static/style.css");
pub(super) const SCRIPT: &str = include_str!("../../../static/app.js");
pub(super) const ICON: &str = include_str!("../../../static/icon.svg");

/// Where the static files are.
#[derive(Debug, Clone)]
pub struct Assets {
    /// The stylesheet's path.
    pub style: String,
    /// The script's path.
    pub script: String,
    /// The icon's path.
    pub icon: String,
}

impl Assets {
    /// Computes the paths.
    #[must_use]
    pub fn new() -> Self {
        let path = |name: &str, text: &str, ext: &str| format!("/static/{name}.{}.{ext}", &sha256_hex(text)[..12]);
        Self {
            style: path("style", STYLE, "css"),
            script: path("app", SCRIPT, "js"),
            icon: path("icon", ICON, "svg"),
        }
    }
}

impl Default for Assets {
    fn default() -> Self {
        Self::new()
    }
}
