//! What is to be run: program, arguments, environment, bounds.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat},
};

/// A command: program, arguments, environment. Nothing goes through a shell.
#[derive(Clone)]
pub struct Cmd {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) cwd: Option<PathBuf>,
    pub(super) stdin: Vec<u8>,
    pub(super) deadline: Duration,
    pub(super) cap: usize,
}

impl Cmd {
    /// A command with an empty environment but `LC_ALL=C` and the daemon's own `PATH`; a deadline
    /// of 60 s; 1 MiB of each output kept.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        Self {
            program: program.into(),
            args: Vec::new(),
            env: vec![("LC_ALL".into(), "C".into()), ("PATH".into(), path)],
            cwd: None,
            stdin: Vec::new(),
            deadline: Duration::from_secs(60),
            cap: 1 << 20,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets these variables, a person's own; but what is said is still parsed, so the locale stays ours.
    #[must_use]
    pub fn envs(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env.extend(vars.into_iter().filter(|(name, _)| name != "LC_ALL"));
        self
    }

    /// Sets one variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Gives it these bytes on standard input (otherwise it reads nothing).
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Kills it after this long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Divides the deadline; 0 counts as 1.
    #[must_use]
    pub fn scale_deadline(mut self, divisor: u32) -> Self {
        self.deadline /= divisor.max(1);
        self
    }

    /// Keeps at most this many bytes of each output.
    #[must_use]
    pub fn cap(mut self, bytes: usize) -> Self {
        self.cap = bytes;
        self
    }

    /// Where the program lies. A bare name that the standard library has to look for in a `PATH` other than its own makes
    /// it copy this process (fork(2)), all of its page tables, and try to execute the program in each folder; with a path
    /// it borrows this process's memory until the program runs (vfork(2)). What is not found here fails there, by its name.
    pub(super) fn located(&self) -> PathBuf {
        let is_bare = !self.program.as_os_str().as_encoded_bytes().contains(&b'/');
        let path = self.env.iter().rev().find(|(name, _)| name == "PATH");
        path.filter(|_| is_bare)
            .and_then(|(_, folders)| {
                std::env::split_paths(folders)
                    .filter(|folder| folder.is_absolute())
                    .map(|folder| folder.join(&self.program))
                    .find(|file| is_executable(file))
            })
            .unwrap_or_else(|| self.program.clone())
    }
}

fn is_executable(file: &Path) -> bool {
    // By the ids that count when it is executed, of which a mode alone says nothing.
    let may_execute = || faccessat(AT_FDCWD, file, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok();
    file.is_file() && may_execute()
}

/// The command line alone: the standard input and the environment may hold secrets.
impl fmt::Debug for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cmd({self})")
    }
}

/// The command line as a person could paste it into a shell.
impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(self.program.as_os_str()))?;
        for arg in &self.args {
            write!(f, " {}", quote(arg))?;
        }
        Ok(())
    }
}

fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&b));
    if plain {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_command_is_shown_as_it_could_be_pasted() {
        let command = Cmd::new("/bin/sh").arg("-c").arg("echo 'a'");
        assert_eq!(command.to_string(), r#"/bin/sh -c 'echo '\''a'\'''"#);
    }

    #[test]
    fn a_bare_name_is_the_first_executable_file_of_that_name() {
        let folders = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let file = folders.path().join(name).join("tool");
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        let files = [file("data", 0o644), file("first", 0o755), file("second", 0o755)];
        std::fs::create_dir_all(folders.path().join("folder/tool")).unwrap();
        let in_order = ["none", "folder", "data", "first", "second"].map(|name| folders.path().join(name));
        let path = std::env::join_paths(in_order).unwrap();
        let located = |program: &str| Cmd::new(program).env("PATH", &path).located();
        assert_eq!(located("tool"), files[1]);
        // What is a path already, and what there is not, stay what they are.
        assert_eq!(located("./tool"), Path::new("./tool"));
        assert_eq!(located("another"), Path::new("another"));
        // Others may execute it, and its owner may not: execvp(3) would go on to the next.
        let others = file("others", 0o611);
        let wanted = if nix::unistd::geteuid().is_root() {
            &others
        } else {
            &files[1]
        };
        let path = std::env::join_paths(["others", "first"].map(|name| folders.path().join(name))).unwrap();
        assert_eq!(Cmd::new("tool").env("PATH", path).located(), *wanted);
    }

    #[test]
    fn debug_shows_neither_input_nor_environment() {
        let command = Cmd::new("/bin/cat").env("TOKEN", "hunter2").stdin("hunter2");
        assert_eq!(format!("{command:?}"), "Cmd(/bin/cat)");
    }
}
