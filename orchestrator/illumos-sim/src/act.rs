//! An act of the kernel happens or does not. A program of the simulator may be killed between the files it changes and
//! the model that tells of them; whoever acts next finds its mark and makes the files follow the model.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    files,
    state::{Kind, State},
    volume,
};

/// The mark of an act that has begun.
#[derive(Debug)]
pub struct Act {
    mark: PathBuf,
}

impl Act {
    /// Begins one, under the host's lock, with files that follow this model.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn begin(dir: &Path, state: &State) -> io::Result<Self> {
        let mark = dir.join("act");
        if mark.try_exists()? {
            follow(dir, state)?;
        }
        fs::write(&mark, "")?;
        Ok(Self { mark })
    }

    /// Ends it, after the model was written: what the model has no more, the files have no more either.
    ///
    /// # Errors
    /// The files cannot be removed.
    pub fn end(self, dir: &Path, before: &State, after: &State) -> io::Result<()> {
        for name in before.datasets.keys().filter(|name| is_volume(before, name)) {
            if !is_volume(after, name) {
                volume::remove(&dir.join("root"), name)?;
            }
        }
        fs::remove_file(self.mark)
    }
}

fn is_volume(state: &State, name: &str) -> bool {
    state.datasets.get(name).is_some_and(|found| found.kind == Kind::Volume)
}

fn follow(dir: &Path, state: &State) -> io::Result<()> {
    let root = dir.join("root");
    for nodes in ["dev/zvol/rdsk", "dev/zvol/dsk"].map(|nodes| root.join(nodes)) {
        for path in files_below(&nodes)? {
            let name = path.strip_prefix(&nodes).map_err(io::Error::other)?;
            if !is_volume(state, &name.to_string_lossy()) {
                files::remove(&path)?;
            }
        }
    }
    // What was to replace a file; see `files::replace`.
    for replaced in [root.join("etc/zones"), dir.to_owned()] {
        for entry in fs::read_dir(replaced)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(".tmp") {
                files::remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::Sim;

    fn said(sim: &Sim, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        format!("{:?}", sim.run(words[0], &words[1..]).unwrap())
    }

    /// A program killed at each point of an act: the act happened, or it did not.
    #[test]
    fn who_is_killed_in_an_act_leaves_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let sim = Sim::create(dir.path()).unwrap();
        for command in [
            "zfs create -s -V 1m rpool/gold",
            "zfs snapshot rpool/gold@v1",
            "zfs clone rpool/gold@v1 rpool/a",
        ] {
            assert!(said(&sim, command).contains("code: 0"));
        }
        let node = |name: &str| ["rdsk", "dsk"].map(|kind| sim.root().join("dev/zvol").join(kind).join(name));
        let there = |name: &str| node(name).map(|path| path.symlink_metadata().is_ok());
        let model = sim.dir().join("state.json");
        let (before, files) = (std::fs::read(&model).unwrap(), [[true; 2], [false; 2]]);

        // Killed before the model was written.
        for (command, gone) in [
            ("zfs clone rpool/gold@v1 rpool/b", "rpool/b"),
            ("zfs rename rpool/a rpool/b", "rpool/b"),
        ] {
            assert!(said(&sim, command).contains("code: 0"));
            assert_eq!(there(gone), [true; 2]);
            for path in node("rpool/a") {
                // A rename takes the old name away after the model was written.
                if path.symlink_metadata().is_err() {
                    std::fs::write(path, "").unwrap();
                }
            }
            std::fs::write(&model, &before).unwrap();
            std::fs::write(sim.dir().join("act"), "").unwrap();
            std::fs::write(sim.dir().join(".tmp1"), "half").unwrap();
            said(&sim, "zfs list");
            assert_eq!([there("rpool/a"), there(gone)], files, "{command}");
            assert!(!sim.dir().join(".tmp1").exists());
        }

        // Killed after.
        assert!(said(&sim, "zfs destroy rpool/a").contains("code: 0"));
        assert_eq!(there("rpool/a"), [false; 2]);
        for path in node("rpool/a") {
            std::fs::write(path, "").unwrap();
        }
        said(&sim, "zfs list");
        assert_eq!(there("rpool/a"), [true; 2], "nobody was killed");
        std::fs::write(sim.dir().join("act"), "").unwrap();
        said(&sim, "zfs list");
        assert_eq!(there("rpool/a"), [false; 2]);
        assert_eq!(there("rpool/gold"), [true; 2]);
    }
}
