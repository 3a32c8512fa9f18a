//! Zone configurations: the language of zonecfg(8), the XML files and the index of `/etc/zones`.
//!
//! The rules are illumos's own, with its sentences: which values are taken, what stops a file, and what is left
//! committed after an error. They were read in illumos's sources and compared with what its own zonecfg did.

pub mod config;
mod edit;
pub mod grammar;
pub mod index;
mod info;
pub mod keywords;
pub mod lexer;
pub mod messages;
pub mod privileges;
pub mod resource;
pub mod session;
mod set;
#[cfg(test)]
mod tests;
pub mod value;
mod verify;
pub mod xml;
mod zone;

pub use config::Config;
pub use resource::{Resource, Value};

use std::io;

use crate::{files, host::Host};

/// Where the configuration of a zone lies.
#[must_use]
pub fn file(host: &Host, name: &str) -> std::path::PathBuf {
    host.path("/etc/zones").join(format!("{name}.xml"))
}

/// The stored configuration of a zone; none when there is none.
///
/// # Errors
/// The file cannot be read, or is no zone's.
pub fn load(host: &Host, name: &str) -> io::Result<Option<Config>> {
    match files::text(&file(host, name))? {
        None => Ok(None),
        Some(text) => xml::read(&text).map(Some).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{name}.xml is no zone's configuration"),
            )
        }),
    }
}

/// Whether a brand's files are on the host.
#[must_use]
pub fn brand_exists(host: &Host, brand: &str) -> bool {
    !brand.is_empty() && !brand.contains('/') && host.path("/usr/lib/brand").join(brand).join("config.xml").is_file()
}

/// Whether a name can be a zone's. One that begins with `SUNW` can be looked at only.
#[must_use]
pub fn is_zone_name(name: &str) -> bool {
    (1..64).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name != "global"
}
