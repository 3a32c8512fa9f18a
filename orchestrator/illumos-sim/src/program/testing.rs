//! What the programs' unit tests share.

use crate::{Ended, Out, Sim};

/// One fresh host in a folder of its own.
pub(crate) struct TestHost {
    pub sim: Sim,
    _dir: tempfile::TempDir,
}

impl TestHost {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            sim: Sim::create(dir.path()).unwrap(),
            _dir: dir,
        }
    }

    pub fn ended(&self, command: &str) -> Ended {
        let mut words = command.split(' ');
        let program = words.next().unwrap();
        self.sim.run(program, &words.collect::<Vec<_>>()).unwrap()
    }

    pub fn said(&self, command: &str) -> Out {
        match self.ended(command) {
            Ended::Exit(out) => out,
            other => panic!("{command}: {other:?}"),
        }
    }

    /// Runs a command that must succeed, and gives its output.
    pub fn ok(&self, command: &str) -> String {
        let out = self.said(command);
        assert_eq!(out.code, 0, "{command}: {out:?}");
        out.stdout
    }

    /// Runs a command that must fail with this code, and gives its words.
    pub fn no(&self, command: &str, code: i32) -> String {
        let out = self.said(command);
        assert_eq!(out.code, code, "{command}: {out:?}");
        out.stderr
    }

    /// Writes a file outside the fake root, for commands that read one.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.sim.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}
