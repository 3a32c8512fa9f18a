//! The package's manifest, and that `make install`, the archive and its install script lay just what it lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use illumos_sim::Sim;
use tempfile::TempDir;

use crate::{Fakes, SHELLS, manifests::manifests, output, project, read, text};

/// One line of an IPS manifest.
#[derive(Debug)]
struct Action {
    kind: String,
    payload: Option<String>,
    attributes: Vec<(String, String)>,
}

impl Action {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.attributes
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> &str {
        let values: Vec<&str> = self.all(name).collect();
        assert_eq!(values.len(), 1, "{name} of {self:?}");
        values[0]
    }
}

/// A word of a line and what follows it: quotes hold blanks together, as pkg(7) says of values.
fn word(line: &str) -> Result<(String, &str), String> {
    let (mut word, mut quoted) = (String::new(), false);
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => return Ok((word, line[at..].trim_start())),
            '\\' | '\t' | '\'' => return Err(format!("{c:?} in {line}")),
            _ => word.push(c),
        }
    }
    if quoted {
        return Err(format!("a quote is open in {line}"));
    }
    Ok((word, ""))
}

fn action(line: &str) -> Result<Action, String> {
    let (kind, mut rest) = word(line)?;
    let mut action = Action {
        kind,
        payload: None,
        attributes: Vec::new(),
    };
    while !rest.is_empty() {
        let (found, next) = word(rest)?;
        match found.split_once('=') {
            Some(("", _)) => return Err(format!("an attribute without a name in {line}")),
            Some((name, value)) => action.attributes.push((name.to_owned(), value.to_owned())),
            None if action.payload.is_none() && action.attributes.is_empty() => action.payload = Some(found),
            None => return Err(format!("{found} in {line}")),
        }
        rest = next;
    }
    Ok(action)
}

fn actions() -> Vec<Action> {
    read("smf/helios-ci.p5m")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| action(line).unwrap_or_else(|e| panic!("{e}")))
        .collect()
}

/// What the package lays somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Laid {
    pub(crate) path: String,
    pub(crate) mode: u32,
    owner: String,
    /// Where a file comes from; none for a directory.
    payload: Option<String>,
    restarts: Vec<String>,
}

pub(crate) fn laid() -> Vec<Laid> {
    actions()
        .into_iter()
        .filter(|action| ["dir", "file"].contains(&action.kind.as_str()))
        .map(|action| Laid {
            path: action.one("path").to_owned(),
            mode: u32::from_str_radix(action.one("mode"), 8).expect("an octal mode"),
            owner: format!("{}:{}", action.one("owner"), action.one("group")),
            restarts: action.all("restart_fmri").map(str::to_owned).collect(),
            payload: action.payload,
        })
        .collect()
}

/// Where the package puts links, and to what.
fn links() -> Vec<(String, String)> {
    actions()
        .into_iter()
        .filter(|action| action.kind == "link")
        .map(|action| (action.one("path").to_owned(), action.one("target").to_owned()))
        .collect()
}

/// Folders of the system that a package may put files into.
const SYSTEM: [&str; 9] = [
    "etc",
    "etc/logadm.d",
    "etc/security/auth_attr.d",
    "etc/security/exec_attr.d",
    "etc/security/prof_attr.d",
    "lib/svc/manifest/application",
    "opt",
    "usr/bin",
    "var/lib",
];

#[test]
fn every_line_of_the_package_is_an_action_that_ips_knows() {
    for broken in [
        "file a b path=c",
        "set name=\"x",
        "dir =x",
        "file path=a\\",
        "dir path=a b",
    ] {
        assert!(action(broken).is_err(), "{broken}");
    }
    for action in actions() {
        let (payload, wanted): (bool, &[&str]) = match action.kind.as_str() {
            "set" => (false, &["name", "value"]),
            "license" => (true, &["license"]),
            "depend" => (false, &["type", "fmri"]),
            "group" => (false, &["groupname"]),
            "user" => (
                false,
                &["username", "group", "gcos-field", "home-dir", "login-shell", "password"],
            ),
            "dir" => (false, &["path", "owner", "group", "mode"]),
            "file" => (true, &["path", "owner", "group", "mode"]),
            "link" => (false, &["path", "target"]),
            other => panic!("{other} is no action of ours"),
        };
        assert_eq!(action.payload.is_some(), payload, "{action:?}");
        for name in wanted {
            assert!(!action.one(name).is_empty(), "{action:?}");
        }
        for (name, value) in &action.attributes {
            match name.as_str() {
                "restart_fmri" | "disable_fmri" => {
                    assert_eq!(action.kind, "file", "{action:?}");
                    assert!(value.starts_with("svc:/") && value.ends_with(":default"), "{action:?}");
                }
                _ => assert!(wanted.contains(&name.as_str()), "{name} in {action:?}"),
            }
        }
    }
    let value = |name: &str| {
        let found = actions()
            .into_iter()
            .find(|a| a.kind == "set" && a.one("name") == name)
            .unwrap_or_else(|| panic!("no {name}"));
        found.one("value").to_owned()
    };
    assert_eq!(
        value("pkg.fmri"),
        "pkg:/application/helios-ci@$(VERSION),5.11-$(BRANCH)"
    );
    assert_eq!(value("variant.opensolaris.zone"), "global");
    let user = actions().into_iter().find(|a| a.kind == "user").expect("a user");
    assert_eq!(user.one("home-dir"), "/var/lib/helios-ci");
    // Neither a password nor locked, which would keep the service from starting.
    assert_eq!(user.one("password"), "NP");
}

#[test]
fn the_list_holds_all_of_smf_and_nothing_that_is_not_there() {
    let list = laid();
    let paths: BTreeSet<&str> = list.iter().map(|laid| laid.path.as_str()).collect();
    assert_eq!(paths.len(), list.len(), "a path is listed twice");
    for laid in &list {
        assert!(!laid.path.starts_with('/') && !laid.path.contains(".."), "{laid:?}");
        let parent = laid.path.rsplit_once('/').expect("a folder").0;
        assert!(
            paths.contains(parent) || SYSTEM.contains(&parent),
            "{laid:?}: its folder would have any mode"
        );
        assert!(
            ["root:bin", "root:sys", "root:helios-ci", "helios-ci:helios-ci"].contains(&laid.owner.as_str()),
            "{laid:?}"
        );
        assert_eq!(laid.mode & 0o022, 0, "{laid:?} can be written by others");
        // Two payloads are named when the package is made; all others are files of the project.
        if let Some(payload) = laid.payload.as_deref().filter(|payload| !payload.starts_with("$(")) {
            assert!(project().join(payload).is_file(), "{laid:?}");
        }
        let expected: &[&str] = match laid.path.as_str() {
            "opt/helios-ci/bin/helios-ci" => &[
                "svc:/application/helios-ci/machined:default",
                "svc:/application/helios-ci:default",
            ],
            path if path.starts_with("lib/svc/manifest/") => &["svc:/system/manifest-import:default"],
            path if path.starts_with("etc/security/") => &["svc:/system/rbac:default"],
            path if path.starts_with("etc/logadm.d/") => &["svc:/system/logadm-upgrade:default"],
            _ => &[],
        };
        assert_eq!(laid.restarts, expected, "{laid:?}");
    }
    let payloads: BTreeSet<&str> = list.iter().filter_map(|laid| laid.payload.as_deref()).collect();
    let mut sources = manifests();
    for folder in ["smf/method", "smf/rbac"] {
        for entry in fs::read_dir(project().join(folder)).expect("a folder").flatten() {
            sources.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
        }
    }
    for source in sources {
        assert!(payloads.contains(source.as_str()), "{source} is not in the package");
    }
    // The system skips a fragment with another mode or owner (logadm-upgrade's method).
    let logadm = list.iter().find(|laid| laid.path == "etc/logadm.d/helios-ci");
    assert!(logadm.is_some_and(|laid| laid.mode == 0o444 && laid.owner == "root:sys"));
}

/// An administrator reads the pages where they were installed.
#[test]
fn links_of_installed_pages_lead_to_installed_files() {
    let list = laid();
    let pages = list.iter().filter(|laid| laid.path.ends_with(".md"));
    let mut seen = 0;
    for page in pages {
        let folder = page.path.rsplit_once('/').expect("a folder").0;
        let text = read(page.payload.as_deref().expect("a file"));
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            seen += 1;
            let path = format!("{folder}/{file}");
            assert!(list.iter().any(|laid| laid.path == path), "{}: {link}", page.path);
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_rotation_is_one_entry() {
    let fragment = read("smf/logadm.conf");
    let entries: Vec<&str> = fragment.lines().filter(|line| !line.starts_with('#')).collect();
    // The system leaves out an entry when a line of logadm.conf begins with the same word, up to a `-` or `_`.
    assert_eq!(entries.len(), 1);
    let words: Vec<&str> = entries[0].split(' ').collect();
    assert_eq!(words[1], "/var/svc/log/application-helios-ci*.log");
    // SMF holds the file open for ever, so it is copied and cut.
    assert!(words[2..].contains(&"-c"), "{words:?}");
}

/// Two programs for the package, and a place for the tree.
struct Build {
    dir: TempDir,
    fakes: Fakes,
}

impl Build {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        fs::write(dir.path().join("daemon"), "a daemon\n").expect("a file");
        fs::write(dir.path().join("agent"), "an agent\n").expect("a file");
        Self {
            dir,
            fakes: Fakes::new(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs make with another umask than most have: it must not matter.
    fn make(&self, umask: &str, target: &str, place: &str) -> Output {
        output(
            Command::new("sh")
                .arg("-c")
                .arg(format!("umask {umask} && exec make --no-print-directory \"$@\""))
                .args(["make", target, place])
                .arg(format!("HELIOS_CI_BIN={}", self.at("daemon").display()))
                .arg(format!("HELIOS_AGENT={}", self.at("agent").display()))
                .current_dir(project())
                .env("PATH", self.fakes.path())
                // This test may run below another make.
                .env_remove("MAKEFLAGS")
                .env_remove("MAKELEVEL")
                .env_remove("SOURCE_DATE_EPOCH"),
        )
    }

    fn payload(&self, laid: &Laid) -> Option<PathBuf> {
        Some(match laid.payload.as_deref()? {
            "$(HELIOS_CI_BIN)" => self.at("daemon"),
            "$(HELIOS_AGENT)" => self.at("agent"),
            path => project().join(path),
        })
    }

    /// Compares what lies below `root` with the package's list: paths, kinds, modes and contents.
    fn assert_laid(&self, root: &Path) {
        let mut found = BTreeMap::new();
        walk(root, "", &mut found);
        for laid in laid() {
            let mode = found
                .remove(&laid.path)
                .unwrap_or_else(|| panic!("{} was not laid", laid.path));
            assert_eq!(mode, laid.mode, "{}", laid.path);
            match self.payload(&laid) {
                None => assert!(root.join(&laid.path).is_dir(), "{}", laid.path),
                Some(source) => assert_eq!(
                    fs::read(root.join(&laid.path)).expect("a file"),
                    fs::read(source).expect("a payload"),
                    "{}",
                    laid.path
                ),
            }
        }
        for (path, target) in links() {
            assert!(found.remove(&path).is_some(), "{path} was not laid");
            assert_eq!(fs::read_link(root.join(&path)).expect("a link"), Path::new(&target));
            assert!(root.join(&path).is_file(), "{path} leads nowhere");
        }
        // The rest is the way to what is listed.
        for (path, mode) in found {
            assert!(
                SYSTEM.iter().any(|folder| folder.starts_with(&path)),
                "{path} is not listed"
            );
            assert!(root.join(&path).is_dir(), "{path}");
            assert_eq!(mode, 0o755, "{path}");
        }
    }
}

/// Paths below `root` with their modes.
fn walk(root: &Path, below: &str, found: &mut BTreeMap<String, u32>) {
    for entry in fs::read_dir(root.join(below)).expect("a folder").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let metadata = fs::symlink_metadata(entry.path()).expect("metadata");
        found.insert(path.clone(), metadata.permissions().mode() & 0o7777);
        if metadata.is_dir() {
            walk(root, &path, found);
        }
    }
}

fn successful(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The owners that are printed or set, in the list's order.
fn owners(command: &str, root: &Path) -> Vec<String> {
    laid()
        .iter()
        .map(|laid| format!("{command} {} {}/{}", laid.owner, root.display(), laid.path))
        .collect()
}

#[test]
fn make_install_lays_the_package() {
    let build = Build::new();
    build.fakes.record("id", "[ \"$*\" = -u ] && echo 1000");
    build.fakes.record("chown", "");
    let root = build.at("root");
    let place = format!("DESTDIR={}", root.display());
    // Twice: an installation over another one is an upgrade.
    for umask in ["077", "000"] {
        let said = successful(&build.make(umask, "install", &place));
        build.assert_laid(&root);
        let printed: Vec<&str> = said.lines().filter(|line| line.starts_with("chown ")).collect();
        assert_eq!(printed, owners("chown", &root));
    }
    assert!(build.fakes.recorded().iter().all(|run| !run.starts_with("chown")));
}

#[test]
fn make_install_sets_owners_when_it_can() {
    let build = Build::new();
    build.fakes.record("id", "echo 0");
    build.fakes.record("getent", "");
    build.fakes.record("chown", "");
    let root = build.at("root");
    let said = successful(&build.make("022", "install", &format!("DESTDIR={}", root.display())));
    assert_eq!(said, "");
    let mut set = build.fakes.recorded();
    set.retain(|run| run.starts_with("chown"));
    assert_eq!(set, owners("chown", &root));
}

#[test]
fn make_install_without_a_program_lays_nothing() {
    let build = Build::new();
    let agent = build.at("agent");
    fs::remove_file(&agent).expect("removed");
    let root = build.at("root");
    let output = build.make("022", "install", &format!("DESTDIR={}", root.display()));
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains(&format!("{} is missing", agent.display())));
    assert!(!root.exists());
}

#[test]
fn the_list_that_is_printed_is_the_packages() {
    for shell in SHELLS {
        let printed = successful(&output(
            Command::new(shell).arg(project().join("smf/install.sh")).arg("list"),
        ));
        let wanted: Vec<String> = laid()
            .iter()
            .map(|laid| {
                let kind = laid.payload.as_ref().map_or("dir", |_| "file");
                format!("{kind} {:04o} {} {}", laid.mode, laid.owner, laid.path)
            })
            .collect();
        let (linked, printed): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| line.starts_with("link "));
        assert_eq!(printed, wanted, "{shell}");
        assert_eq!(
            linked,
            ["link usr/bin/helios-ci -> ../../opt/helios-ci/bin/helios-ci"],
            "{shell}"
        );
    }
}

#[test]
fn the_archive_is_reproducible_and_holds_the_tree() {
    let build = Build::new();
    let name = format!("helios-ci-{}.tar.gz", env!("CARGO_PKG_VERSION"));
    for (umask, place) in [("077", "first"), ("002", "second")] {
        let archive = build.at(place).join(&name);
        let said = successful(&build.make(umask, "package", &format!("PACKAGE_DIR={}", build.at(place).display())));
        assert_eq!(said.trim_end(), archive.display().to_string());
        // Nothing else is left there.
        assert_eq!(fs::read_dir(build.at(place)).expect("a folder").count(), 1);
    }
    let (first, second) = (build.at("first").join(&name), build.at("second").join(&name));
    assert!(fs::read(&first).expect("an archive") == fs::read(second).expect("an archive"));
    let members = successful(&output(Command::new("tar").arg("-tvzf").arg(&first)));
    let mut sorted = Vec::new();
    for member in members.lines() {
        let words: Vec<&str> = member.split_whitespace().collect();
        assert_eq!(words[1], "0/0", "{member}");
        sorted.push(words[5].trim_end_matches('/').replace('/', "\0"));
    }
    assert!(sorted.is_sorted(), "{members}");
    let unpacked = unpack(&build, &first);
    build.assert_laid(&unpacked.join("tree"));
    let list = fs::read_to_string(unpacked.join("helios-ci.p5m")).expect("the list");
    assert!(list.contains(&format!("helios-ci@{},", env!("CARGO_PKG_VERSION"))));
}

fn unpack(build: &Build, archive: &Path) -> PathBuf {
    successful(&output(
        Command::new("tar")
            .arg("-xzpf")
            .arg(archive)
            .arg("-C")
            .arg(build.dir.path()),
    ));
    build.at(&format!("helios-ci-{}", env!("CARGO_PKG_VERSION")))
}

/// An illumos host, as far as the install script asks; its services are the simulator's.
fn host(fakes: &Fakes) -> Sim {
    let user = fakes.0.path().join("user");
    let group = fakes.0.path().join("group");
    fakes.add("uname", "echo SunOS");
    fakes.add("zonename", "echo global");
    fakes.add(
        "id",
        &format!("case $* in -u) echo 0 ;; *) [ -e {} ] ;; esac", user.display()),
    );
    fakes.add("getent", &format!("[ -e {} ]", group.display()));
    fakes.add("pkg", "exit 1");
    fakes.add("zoneadm", "echo global\necho web");
    fakes.add("ldd", r"printf '\tlibc.so.1 =>\t /lib/64/libc.so.1\n'");
    fakes.record("groupadd", &format!(": >{}", group.display()));
    fakes.record("useradd", &format!(": >{}", user.display()));
    for name in ["passwd", "chown"] {
        fakes.record(name, "");
    }
    let (dir, programs) = (fakes.0.path().join("host"), fakes.0.path().join("programs"));
    let binary = std::env::current_exe().expect("this program");
    let target = binary.parent().and_then(Path::parent).expect("a target directory");
    illumos_sim::cli::install(&programs, &target.join("illumos-sim")).expect("its programs");
    let run = |name: &str| {
        let (dir, program) = (dir.display(), programs.join(name));
        format!("ILLUMOS_SIM={dir} exec {} \"$@\"", program.display())
    };
    for name in ["svccfg", "svcadm"] {
        fakes.record(name, &run(name));
    }
    fakes.add("svcs", &run("svcs"));
    Sim::create(&dir).expect("a host")
}

/// The states of both services.
fn states(sim: &Sim) -> [String; 2] {
    let state = sim.state().expect("a host");
    ["helios-ci", "helios-ci/machined"].map(|name| {
        let found = state.services.get(&format!("svc:/application/{name}:default"));
        found.cloned().unwrap_or_default()
    })
}

/// As illumos's ldd says it, of a library and of a version of one.
#[test]
fn a_host_that_lacks_a_library_is_left_as_it_is() {
    for shell in SHELLS {
        for (lacking, word) in [
            (r"libssl.so.3 =>\t (file not found)", "libssl.so.3"),
            (r"libc.so.1 (ILLUMOS_0.99) =>\t (version not found)", "ILLUMOS_0.99"),
        ] {
            let build = Build::new();
            host(&build.fakes);
            build.fakes.add(
                "ldd",
                &format!(r"printf '\tlibm.so.2 =>\t /lib/64/libm.so.2\n\t{lacking}\n'"),
            );
            let refused = output(
                Command::new(shell)
                    .arg(project().join("smf/install.sh"))
                    .arg("host")
                    .env("DESTDIR", build.at("root"))
                    .env("HELIOS_CI_BIN", build.at("daemon"))
                    .env("HELIOS_AGENT", build.at("agent"))
                    .env("PATH", build.fakes.path()),
            );
            let said = text(&refused.stderr);
            assert!(!refused.status.success(), "{shell}: {said}");
            assert!(
                said.contains(word) && said.contains("lacks them") && !said.contains("libm"),
                "{shell}: {said}"
            );
            assert!(
                build.fakes.recorded().is_empty() && !build.at("root").exists(),
                "{shell}"
            );
        }
    }
}

#[test]
fn the_archive_installs_upgrades_and_leaves_a_host() {
    for shell in SHELLS {
        let build = Build::new();
        successful(&build.make("022", "package", &format!("PACKAGE_DIR={}", build.at("out").display())));
        let name = format!("helios-ci-{}.tar.gz", env!("CARGO_PKG_VERSION"));
        let script = unpack(&build, &build.at("out").join(name)).join("install.sh");
        let sim = host(&build.fakes);
        let root = build.at("root");
        let run = |verb: &str| {
            output(
                Command::new(shell)
                    .arg(&script)
                    .arg(verb)
                    .env("DESTDIR", &root)
                    .env("PATH", build.fakes.path()),
            )
        };
        let manifest = |name: &str| {
            format!(
                "svccfg import {}/lib/svc/manifest/application/{name}.xml",
                root.display()
            )
        };
        let mut wanted = vec![
            "groupadd helios-ci".to_owned(),
            "useradd -g helios-ci -c helios-ci -d /var/lib/helios-ci -s /usr/bin/false helios-ci".to_owned(),
            "passwd -N helios-ci".to_owned(),
        ];
        wanted.extend(owners("chown", &root));
        wanted.extend([manifest("helios-ci-machined"), manifest("helios-ci")]);
        // The daemon is disabled: nothing to restart.
        for service in ["application/helios-ci/machined", "system/rbac", "system/logadm-upgrade"] {
            wanted.push(format!("svcadm restart svc:/{service}:default"));
        }
        successful(&run("host"));
        build.assert_laid(&root);
        assert_eq!(build.fakes.recorded(), wanted, "{shell}");
        assert_eq!(states(&sim), ["disabled", "online"], "{shell}: idle until setup");
        let props = sim.state().expect("a host").service_props["svc:/application/helios-ci:default"].clone();
        assert!(
            props.contains_key("config/file") && props["startd/duration"] == "child",
            "{shell}: {props:?}"
        );

        // Again, now with the user: an upgrade.
        build.fakes.forget();
        successful(&run("host"));
        build.assert_laid(&root);
        assert_eq!(build.fakes.recorded(), wanted[2..], "{shell}");

        build.fakes.forget();
        fs::write(root.join("etc/helios-ci/config.yaml"), "").expect("a configuration");
        build.fakes.add("zoneadm", "echo global\necho hci-01abc");
        let refused = run("remove");
        assert!(!refused.status.success(), "{shell}");
        assert!(text(&refused.stderr).contains("hci-01abc"), "{shell}");
        build.assert_laid_with(&root, "etc/helios-ci/config.yaml");
        build.fakes.add("zoneadm", "echo global");
        let said = successful(&run("remove"));
        assert!(said.contains("/etc/helios-ci stays"), "{shell}: {said}");
        assert!(root.join("etc/helios-ci/config.yaml").is_file(), "{shell}");
        for laid in laid().iter().filter(|laid| laid.path != "etc/helios-ci") {
            assert!(!root.join(&laid.path).exists(), "{shell}: {} stayed", laid.path);
        }
        for (path, _) in links() {
            assert!(
                fs::symlink_metadata(root.join(&path)).is_err(),
                "{shell}: {path} stayed"
            );
        }
        assert_eq!(
            build.fakes.recorded(),
            [
                "svcadm disable -s svc:/application/helios-ci:default",
                "svcadm disable -s svc:/application/helios-ci/machined:default",
                "svcadm restart svc:/system/manifest-import:default",
                "svcadm restart svc:/system/rbac:default",
                "svcadm restart svc:/system/logadm-upgrade:default",
            ],
            "{shell}"
        );
        assert_eq!(states(&sim), ["disabled", "disabled"], "{shell}");
    }
}

impl Build {
    /// As [`Self::assert_laid`], with one file more, which stays.
    fn assert_laid_with(&self, root: &Path, more: &str) {
        let kept = self.at("kept");
        fs::rename(root.join(more), &kept).expect("moved away");
        self.assert_laid(root);
        fs::rename(kept, root.join(more)).expect("moved back");
    }
}

#[test]
fn a_host_that_cannot_have_it_is_refused_untouched() {
    for shell in SHELLS {
        let build = Build::new();
        for (name, body, says) in [
            ("uname", "echo Linux", "no illumos host"),
            ("id", "echo 1000", "needs root"),
            ("zonename", "echo web", "the zone web"),
            ("pkg", "exit 0", "IPS package"),
        ] {
            for verb in ["host", "remove"] {
                host(&build.fakes);
                build.fakes.add(name, body);
                let root = build.at("root");
                let refused = output(
                    Command::new(shell)
                        .arg(project().join("smf/install.sh"))
                        .arg(verb)
                        .env("HELIOS_CI_BIN", build.at("daemon"))
                        .env("HELIOS_AGENT", build.at("agent"))
                        .env("DESTDIR", &root)
                        .env("PATH", build.fakes.path()),
                );
                assert_eq!(refused.status.code(), Some(1), "{shell} {verb}");
                assert!(
                    text(&refused.stderr).contains(says),
                    "{shell} {verb}: {}",
                    text(&refused.stderr)
                );
                assert!(!root.exists(), "{shell} {verb}");
                assert_eq!(build.fakes.recorded(), Vec::<String>::new(), "{shell} {verb}");
            }
        }
        let usage = output(Command::new(shell).arg(project().join("smf/install.sh")));
        assert_eq!(usage.status.code(), Some(1));
        assert!(text(&usage.stderr).contains("usage"));
    }
}
