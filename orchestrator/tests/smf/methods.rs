//! The method scripts under four shells, to every one of their ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{Fakes, SHELLS, output, read, spawn, text, write_program};

/// SMF_EXIT_ERR_FATAL and SMF_EXIT_ERR_CONFIG: maintenance at once.
const FATAL: i32 = 95;
const CONFIG: i32 = 96;

/// No process has it: Linux counts to 4194304.
const NOBODY: &str = "99999999";

/// The methods where the package puts them, with a program that says how it was started.
struct Installed {
    dir: TempDir,
    fakes: Fakes,
    shell: &'static str,
}

impl Installed {
    fn new(shell: &'static str) -> Self {
        let dir = TempDir::new().expect("a folder");
        let installed = Self {
            dir,
            fakes: Fakes::new(),
            shell,
        };
        for name in ["helios-ci", "machined", "tell"] {
            write_program(&installed.method(name), &read(&format!("smf/method/{name}")));
        }
        write_program(
            &installed.program(),
            "#!/bin/sh\necho \"$*\"\npwd\nexit \"${END:-0}\"\n",
        );
        installed
    }

    fn method(&self, name: &str) -> PathBuf {
        self.dir.path().join("opt/helios-ci/lib/svc/method").join(name)
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("opt/helios-ci/bin/helios-ci")
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.shell);
        command
            .arg(self.method(name))
            .args(args)
            .env_clear()
            .env("PATH", self.fakes.path())
            .env("LC_ALL", "C")
            .current_dir("/");
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Output {
        output(&mut self.command(name, args))
    }

    #[track_caller]
    fn ends(&self, name: &str, args: &[&str], code: i32, says: &str) {
        let output = self.run(name, args);
        let said = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{} {name} {args:?}: {said}",
            self.shell
        );
        assert!(said.contains(says), "{} {name} {args:?}: {said}", self.shell);
    }

    /// `pgrep -c 77` answers with this, and refuses all else.
    fn contract(&self, answer: &str) {
        self.fakes
            .add("pgrep", &format!("[ \"$*\" = '-c 77' ] || exit 2\n{answer}"));
    }
}

#[test]
fn the_daemon_is_started_in_its_directory_and_its_exit_code_is_the_services() {
    for shell in SHELLS {
        let installed = Installed::new(shell);
        let directory = installed.dir.path().to_str().expect("a path");
        for (end, code) in [("0", 0), ("96", 96), ("4", 4)] {
            let output = output(
                installed
                    .command("helios-ci", &["start", "/etc/of ours.yaml", directory])
                    .env("END", end),
            );
            assert_eq!(output.status.code(), Some(code), "{shell}: {}", text(&output.stderr));
            assert_eq!(
                text(&output.stdout),
                format!("serve --config /etc/of ours.yaml\n{directory}\n"),
                "{shell}"
            );
        }
    }
}

#[test]
fn what_keeps_the_daemon_from_starting_is_maintenance() {
    for shell in SHELLS {
        let installed = Installed::new(shell);
        let directory = installed.dir.path().to_str().expect("a path");
        let missing = format!("{directory}/missing");
        installed.ends("helios-ci", &[], CONFIG, "usage");
        installed.ends("helios-ci", &["stop", "/c", "/d"], CONFIG, "usage");
        installed.ends("helios-ci", &["start", "/c", "/d", "more"], CONFIG, "usage");
        installed.ends("helios-ci", &["start", "c.yaml", directory], CONFIG, "config/file");
        installed.ends("helios-ci", &["start", "/c", "lib"], CONFIG, "config/data_directory");
        installed.ends("helios-ci", &["start", "/c", &missing], CONFIG, "cannot be entered");
        no_program(&installed, "helios-ci", &["start", "/c", directory]);
    }
}

/// A program that cannot be run, then none.
fn no_program(installed: &Installed, method: &str, args: &[&str]) {
    let program = installed.program();
    let says = "install the package again";
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).expect("a mode");
    installed.ends(method, args, CONFIG, says);
    fs::remove_file(&program).expect("removed");
    installed.ends(method, args, CONFIG, says);
    fs::remove_dir(program.parent().expect("a folder")).expect("removed");
    installed.ends(method, args, CONFIG, says);
}

#[test]
fn machined_is_started_at_once_when_there_is_a_configuration() {
    for shell in SHELLS {
        let installed = Installed::new(shell);
        let config = installed.dir.path().join("config.yaml");
        fs::write(&config, "").expect("a configuration");
        let config = config.to_str().expect("a path");
        for (end, code) in [("0", 0), ("96", 96), ("1", 1)] {
            let output = output(installed.command("machined", &["start", config]).env("END", end));
            assert_eq!(output.status.code(), Some(code), "{shell}: {}", text(&output.stderr));
            assert_eq!(
                text(&output.stdout),
                format!("machined --config {config}\n/\n"),
                "{shell}"
            );
            assert_eq!(text(&output.stderr), "", "{shell}");
        }
        installed.ends("machined", &[], CONFIG, "usage");
        installed.ends("machined", &["start"], CONFIG, "usage");
        installed.ends("machined", &["start", config, "more"], CONFIG, "usage");
        installed.ends("machined", &["refresh", config], CONFIG, "usage");
        installed.ends("machined", &["start", "config.yaml"], CONFIG, "config/file");
        no_program(&installed, "machined", &["start", config]);
    }
}

#[test]
fn machined_idles_until_there_is_a_configuration() {
    for shell in SHELLS {
        let installed = Installed::new(shell);
        let config = installed.dir.path().join("config.yaml");
        let mut idle = spawn(&mut installed.command("machined", &["start", config.to_str().expect("a path")]));
        let mut said = String::new();
        BufReader::new(idle.stderr.take().expect("its errors"))
            .read_line(&mut said)
            .expect("a line");
        assert!(said.contains("idle") && said.contains("config.yaml"), "{shell}: {said}");
        assert!(idle.try_wait().expect("a state").is_none(), "{shell} did not wait");
        fs::write(&config, "").expect("a configuration");
        let output = idle.wait_with_output().expect("its output");
        assert!(output.status.success(), "{shell}");
        assert_eq!(
            text(&output.stdout),
            format!("machined --config {}\n/\n", config.display()),
            "{shell}"
        );
    }
}

#[test]
fn an_idle_machined_stops() {
    for shell in SHELLS {
        let installed = Installed::new(shell);
        let config = installed.dir.path().join("config.yaml");
        let mut idle = spawn(&mut installed.command("machined", &["start", config.to_str().expect("a path")]));
        let mut said = String::new();
        let mut errors = BufReader::new(idle.stderr.take().expect("its errors"));
        errors.read_line(&mut said).expect("a line");
        let pid = idle.id().to_string();
        installed.contract(&format!("echo {pid}"));
        installed.ends("tell", &["refresh", "77", &pid], 0, "");
        assert!(
            idle.try_wait().expect("a state").is_none(),
            "{shell}: a refresh ended it"
        );
        installed.ends("tell", &["stop", "77", &pid], 0, "");
        // mksh turns the signal into an exit code.
        let end = idle.wait().expect("an end");
        assert!(
            end.signal() == Some(15) || end.code() == Some(128 + 15),
            "{shell}: {end}"
        );
    }
}

#[test]
fn the_main_process_alone_is_told() {
    for (shell, act, signal) in SHELLS
        .iter()
        .flat_map(|shell| [(shell, "stop", 15), (shell, "refresh", 1)])
    {
        let installed = Installed::new(shell);
        // Whoever runs the tests with nohup(1) has them ignore SIGHUP.
        let sleeper = || spawn(Command::new("env").args(["--default-signal=HUP", "sleep", "600"]));
        let (mut main, mut command) = (sleeper(), sleeper());
        let (pid, other) = (main.id().to_string(), command.id().to_string());
        // First a process that is not of this contract: it is left alone.
        installed.contract(&format!("echo {other}"));
        installed.ends("tell", &[act, "77", &pid], 0, "ended already");
        assert!(main.try_wait().expect("a state").is_none(), "{shell}");
        installed.contract(&format!("echo {other}\necho {pid}"));
        installed.ends("tell", &[act, "77", &pid], 0, "");
        assert_eq!(main.wait().expect("an end").signal(), Some(signal), "{shell} {act}");
        assert!(command.try_wait().expect("a state").is_none(), "{shell}");
        command.kill().expect("killed");
        // 9: it was never sent another.
        assert_eq!(command.wait().expect("an end").signal(), Some(9), "{shell}");
    }
}

#[test]
fn a_stop_of_what_has_ended_is_done_and_a_stop_that_cannot_be_says_so() {
    for shell in SHELLS {
        let installed = Installed::new(shell);
        let stop = ["stop", "77", NOBODY];
        installed.contract("exit 1");
        installed.ends("tell", &stop, 0, "ended already");
        // It ends between the question and the signal.
        let asked = installed.dir.path().join("asked");
        installed.contract(&format!(
            "[ ! -e {asked} ] || exit 1\n: >{asked}\necho {NOBODY}",
            asked = asked.display()
        ));
        installed.ends("tell", &stop, 0, "");
        assert!(asked.exists(), "{shell}");
        installed.contract(&format!("echo {NOBODY}"));
        installed.ends("tell", &stop, FATAL, "cannot be signalled");
        installed.contract("exit 3");
        installed.ends("tell", &stop, FATAL, "by hand: kill");
        for wrong in ["", "x", "-1", "7 7", "1x"] {
            installed.ends("tell", &["stop", wrong, "1"], CONFIG, "is no number");
            installed.ends("tell", &["stop", "77", wrong], CONFIG, "is no number");
        }
        installed.ends("tell", &["kill", "77", "1"], CONFIG, "usage");
        installed.ends("tell", &["stop", "77"], CONFIG, "usage");
        installed.ends("tell", &["stop", "77", "1", "more"], CONFIG, "usage");
    }
}
