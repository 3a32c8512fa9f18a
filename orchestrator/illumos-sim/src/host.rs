//! What one program works on: the model under its lock, the fault plan, the fake root.

use std::path::{Path, PathBuf};

use crate::{faults::Faults, files::below, state::State};

/// One pass of a program over the host.
#[derive(Debug)]
pub struct Host {
    /// The model; written back after the pass.
    pub state: State,
    pub faults: Faults,
    pub dir: PathBuf,
    /// Stop in the middle, as if killed there.
    pub midway: bool,
    /// Set by a program that stopped midway.
    pub killed: bool,
    /// Set by a program that must poll again later.
    pub waiting: bool,
}

impl Host {
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Where a path of the host lies.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        below(&self.root(), path)
    }

    /// Where a file named on a command line lies: inside the fake root if it is there, else as said.
    #[must_use]
    pub fn given(&self, path: &str) -> PathBuf {
        let inside = self.path(path);
        if path.starts_with('/') && inside.exists() {
            inside
        } else {
            Path::new(path).to_owned()
        }
    }

    /// Whether the zone's halt or a fault was to stop here; remembers that it did.
    pub fn stops_here(&mut self) -> bool {
        self.killed |= self.midway;
        self.midway
    }

    /// The MTU of a link: its own value, else that of its class.
    #[must_use]
    pub fn mtu(&self, name: &str) -> u32 {
        self.state.mtu(name)
    }
}
