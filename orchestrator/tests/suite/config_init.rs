//! From nothing to a configuration: what commands say without one, and `helios-ci config init`.

#![allow(clippy::disallowed_methods, reason = "the command line is run as a person would")]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::terminal;
use crate::support::{self, Machines, World};

const TOKEN: &str = "t0ken-of-a-bot";
const PEM: &str = "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----\n";

/// A place without a configuration.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        fs::write(dir.path().join("app.pem"), PEM).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("etc/config.yaml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(support::helios_ci());
        command.arg("--config").arg(self.config()).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        said(&self.command(args).output().unwrap())
    }

    /// `config init` with what is typed, or with `--yes` where that is nothing.
    fn init(&self, args: &[&str], typed: &str) -> (Option<i32>, String) {
        let mut command = self.command(&["config", "init"]);
        let child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        // It may have ended with a complaint already.
        let _closed = child.stdin.take().unwrap().write_all(typed.as_bytes());
        said(&child.wait_with_output().unwrap())
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    fn written(&self) -> bool {
        self.path("etc").exists() && fs::read_dir(self.path("etc")).unwrap().count() > 0
    }
}

/// What it ended with, and what it said, without the frames and breaks of a terminal's lines.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).replace('│', " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    (output.status.code(), words.join(" "))
}

/// The same without any blank: long paths are broken anywhere.
fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

const FORGEJO: [&str; 9] = [
    "--yes",
    "--url",
    "https://forge.example.org",
    "--repository",
    "ada/engine",
    "--token-file",
    "token",
    "--disk",
    "/srv/images/tiny/disk.qcow2",
];

const GITHUB: [&str; 11] = [
    "--yes",
    "--forge",
    "github",
    "--app-id",
    "123456",
    "--private-key-file",
    "app.pem",
    "--repository",
    "ada/engine",
    "--disk",
    "/srv/images/tiny/disk.qcow2",
];

const ZONES: [&str; 11] = [
    "--yes",
    "--url",
    "https://forge.example.org",
    "--repository",
    "ada/engine",
    "--token-file",
    "token",
    "--backend",
    "zone",
    "--kind",
    "illumos",
];

#[test]
fn without_a_configuration_every_command_says_how_to_begin() {
    let desk = Desk::new();
    let config = desk.config().display().to_string();
    for command in [
        &["serve"][..],
        &["machined"],
        &["doctor"],
        &["config", "check"],
        &["config", "show"],
        &["runs"],
        &["token", "list"],
        &["image", "list"],
        &["machine", "list"],
        &["setup"],
    ] {
        let (code, said) = desk.run(command);
        assert_eq!(
            code,
            Some(if command == ["doctor"] { 1 } else { 2 }),
            "{command:?}: {said}"
        );
        let said = squeezed(&said);
        for part in [
            &format!("there is no configuration at {config}"),
            &format!("helios-ci --config {config} config init"),
            "config.example.yaml",
        ] {
            assert!(
                said.contains(&squeezed(part)),
                "{command:?} does not say {part}: {said}"
            );
        }
    }
}

#[test]
fn what_is_written_passes_the_check_with_the_right_modes_and_nothing_is_overwritten() {
    for (args, credential, content) in [
        (&FORGEJO[..], "forgejo-token", TOKEN),
        (&GITHUB, "github-app.pem", PEM.trim()),
        (&ZONES, "forgejo-token", TOKEN),
    ] {
        let desk = Desk::new();
        let (code, first) = desk.init(args, "");
        assert_eq!(code, Some(0), "{args:?}: {first}");
        let (code, checked) = desk.run(&["config", "check"]);
        assert_eq!(code, Some(0), "{args:?}: {checked}");
        let webhook = credential.replace("token", "webhook").replace("app.pem", "webhook");
        let webhook = format!("etc/secrets/{webhook}");
        let credential = format!("etc/secrets/{credential}");
        assert_eq!(
            [&credential, &webhook, "etc/config.yaml", "etc/secrets"].map(|name| desk.mode(name)),
            [0o600, 0o600, 0o640, 0o700]
        );
        assert_eq!(fs::read_to_string(desk.path(&credential)).unwrap().trim(), content);
        let secret = fs::read_to_string(desk.path(&webhook)).unwrap();
        assert_eq!(secret.trim().len(), 64, "256 random bits");
        // No secret is shown; where the webhook must go and what to paste there is.
        for part in ["/hooks/", &webhook, "doctor", "Next:"] {
            assert!(first.contains(part), "{part} is missing: {first}");
        }
        assert!(!first.contains(secret.trim()) && !first.contains(content), "{first}");
        // Only Forgejo's own Actions read the other folder.
        assert_eq!(
            first.contains(".helios/workflows"),
            credential.ends_with("token"),
            "{first}"
        );
        let names = fs::read_dir(desk.path("etc")).unwrap().count();
        assert_eq!(names, 2, "nothing else is left");

        let before = fs::metadata(desk.config()).unwrap().mtime_nsec();
        let (code, again) = desk.init(args, "");
        assert_eq!(code, Some(2), "{again}");
        assert!(again.contains("exists already"), "{again}");
        assert_eq!(fs::metadata(desk.config()).unwrap().mtime_nsec(), before);
        // Another one's secret stays, too, and then there is no configuration that would use it.
        fs::remove_file(desk.config()).unwrap();
        fs::write(desk.path(&webhook), "another").unwrap();
        let (code, again) = desk.init(args, "");
        assert_eq!((code, desk.config().exists()), (Some(2), false), "{again}");
        assert_eq!(fs::read_to_string(desk.path(&webhook)).unwrap(), "another");
    }
}

#[test]
fn an_answer_without_a_default_is_an_error_that_names_its_option_and_writes_nothing() {
    for whole in [&FORGEJO[..], &GITHUB] {
        let options = whole.iter().enumerate().filter(|(_, word)| word.starts_with("--"));
        for (at, option) in options.filter(|(_, word)| !["--yes", "--forge", "--disk"].contains(word)) {
            let desk = Desk::new();
            let mut args = whole.to_vec();
            args.drain(at..at + 2);
            let (code, said) = desk.init(&args, "");
            assert_eq!(code, Some(2), "{args:?}: {said}");
            assert!(said.contains(option), "{option} is not named: {said}");
            assert!(!desk.written(), "{args:?}");
        }
    }
}

#[test]
fn what_cannot_be_used_is_said_and_writes_nothing() {
    for (more, says) in [
        (&["--token", TOKEN][..], "unexpected argument"),
        (
            &["--listen", "0.0.0.0:8080", "--public-url", "https://ci.example.org"],
            "tls",
        ),
        (&["--app-id", "7"], "--app-id has no meaning with Forgejo"),
        (&["--kind", "illumos"], "--kind has no meaning with QEMU"),
        (&["--sha256", "abc"], "64 lower-case hexadecimal digits"),
        (&["--data-dir", "/a/../b"], "without `..`"),
        (&["--owner", "nobody-has-this-name"], "there is no user"),
        (&["--tls-key", "/k"], "--tls-certificate"),
    ] {
        let desk = Desk::new();
        let (code, said) = desk.init(&[&FORGEJO[..], more].concat(), "");
        assert_eq!(code, Some(2), "{more:?}: {said}");
        assert!(said.contains(says), "{more:?} does not say {says}: {said}");
        assert!(!said.contains(TOKEN) || more[0] == "--token", "{said}");
        assert!(!desk.written(), "{more:?}");
    }
    // A token of two lines cannot travel in a header.
    let desk = Desk::new();
    fs::write(desk.path("token"), "one\ntwo\n").unwrap();
    let (code, said) = desk.init(&FORGEJO, "");
    assert!(code == Some(2) && said.contains("a token has one line"), "{said}");
    assert!(!desk.written());
}

#[test]
fn what_would_be_refused_at_the_end_is_refused_before_anything_is_asked() {
    // Without --yes, nothing is typed: a question would end with the name of its option.
    let desk = Desk::new();
    fs::write(desk.path("etc"), "in the way").unwrap();
    let (code, said) = desk.init(&FORGEJO[1..], "");
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("that is no directory") && !said.contains("--forge"),
        "{said}"
    );
    // A data directory that others can enter is what `config check` and `serve` refuse, too.
    let desk = Desk::new();
    fs::create_dir(desk.path("data")).unwrap();
    fs::set_permissions(desk.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = desk.init(&[&FORGEJO[..], &["--data-dir", "data"]].concat(), "");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("has mode 0755") && said.contains("chmod 0700"), "{said}");
    assert!(!desk.written());
}

#[test]
fn answers_are_typed_and_wrong_ones_are_asked_for_again() {
    let desk = Desk::new();
    let typed = format!(
        "gitlab\nforgejo\nforge.example.org\nhttps://forge.example.org/\n\nForge!\nforge\nada\nada/engine, ada/tools\n\
         \n\n{}\n\n/srv/disk.qcow2\n{TOKEN}\n",
        desk.path("data").display()
    );
    let (code, said) = desk.init(&[], &typed);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "`gitlab` is not possible",
        "is no address such as",
        "is not a connection name",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, shown) = desk.run(&["config", "show"]);
    assert_eq!(code, Some(0), "{shown}");
    for part in [
        "ada/engine",
        "ada/tools",
        "https://forge.example.org",
        "/srv/disk.qcow2",
        "ubuntu-latest: tiny",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let token = fs::read_to_string(desk.path("etc/secrets/forge-token")).unwrap();
    assert_eq!(token.trim(), TOKEN);
    // Standard input is either answers or the token.
    let desk = Desk::new();
    let mut args: Vec<&str> = FORGEJO
        .iter()
        .map(|word| if *word == "token" { "-" } else { *word })
        .collect();
    let (code, said) = desk.init(&args, TOKEN);
    assert_eq!(code, Some(0), "{said}");
    let token = fs::read_to_string(desk.path("etc/secrets/forgejo-token")).unwrap();
    assert_eq!(token, TOKEN);
    let desk = Desk::new();
    args.remove(0);
    let (code, said) = desk.init(&args, "\n\n\n\n\n\n\n\n\n");
    assert!(code == Some(2) && said.contains("--yes"), "{said}");
    assert!(!desk.written());
}

#[test]
fn a_token_that_is_typed_on_a_terminal_is_not_shown() {
    let desk = Desk::new();
    let (mut terminal, line) = terminal::open();
    let without: Vec<&str> = FORGEJO[1..]
        .iter()
        .filter(|word| !word.contains("token"))
        .copied()
        .collect();
    let mut command = desk.command(&["config", "init", "--name", "forge", "--allow-private=false"]);
    command
        .args(without)
        .args(["--forge", "forgejo", "--listen", "127.0.0.1:8080", "--image", "tiny"]);
    command.args(["--public-url", "https://ci.example.org", "--data-dir", "/srv/data"]);
    let slave = || Stdio::from(line.try_clone().unwrap());
    let mut child = command
        .stdin(slave())
        .stdout(Stdio::piped())
        .stderr(slave())
        .spawn()
        .unwrap();
    // It has the other end open as well.
    drop((command, line));
    let mut shown = Vec::new();
    let mut typed = false;
    let mut some = [0; 256];
    // Ends when nobody has the terminal open any more.
    while let Ok(read) = terminal.read(&mut some) {
        shown.extend_from_slice(&some[..read]);
        if !typed && String::from_utf8_lossy(&shown).contains("it is not shown: ") {
            terminal.write_all(format!("{TOKEN}\n").as_bytes()).unwrap();
            typed = true;
        }
        if read == 0 {
            break;
        }
    }
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(typed && !shown.contains(TOKEN), "{shown}");
    let token = fs::read_to_string(desk.path("etc/secrets/forge-token")).unwrap();
    assert_eq!(token, TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_the_forge_that_was_answered() {
    let world = World::stopped(Machines::Process, "").await;
    let desk = Desk::new();
    let token = world.dir.path().join("forgejo-token").display().to_string();
    let (data, url) = (desk.path("data"), world.forge.url().to_owned());
    let data = data.to_str().unwrap();
    let answers = [
        "--yes",
        "--url",
        &url,
        "--repository",
        "ada/engine",
        "--token-file",
        &token,
    ];
    let place = [
        "--data-dir",
        data,
        "--disk",
        "/srv/disk.qcow2",
        "--listen",
        "127.0.0.1:0",
    ];
    let (code, said) = desk.init(&[&answers[..], &place].concat(), "");
    assert_eq!(code, Some(0), "{said}");
    let output = desk.command(&["doctor", "--json"]).output().unwrap();
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| {
        lines
            .iter()
            .find(|line| line["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {lines:#?}"))
    };
    for name in ["configuration", "data directory", "connection forgejo"] {
        assert_eq!(of(name)["status"], "ok", "{}", of(name));
    }
    assert!(Path::new(data).parent().is_some_and(Path::exists));
}
