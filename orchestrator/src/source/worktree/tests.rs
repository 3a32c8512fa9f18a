//! Working trees of people, with the real git and settings of all kinds.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{super::Source, *};
use crate::{
    model::{ids::AttemptId, trigger::Repository},
    source::{
        Snapshot,
        tests::{client, main as branch},
    },
};

/// A person with a home, and a repository in it.
struct Person {
    folder: TempDir,
    env: Vec<(OsString, OsString)>,
    source: Source,
}

impl Person {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["home", "data", "tree"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let home = folder.path().join("home");
        let env = [
            ("HOME", home.as_os_str()),
            ("GIT_CONFIG_NOSYSTEM", OsStr::new("1")),
            ("GIT_CEILING_DIRECTORIES", folder.path().as_os_str()),
        ];
        let person = Self {
            env: env.iter().map(|(n, v)| ((*n).into(), (*v).to_owned())).collect(),
            source: Source::at(&folder.path().join("data"), 1 << 30),
            folder,
        };
        person.write("../home/.gitconfig", "[user]\nname = p\nemail = p@x\n");
        person.git(&["init", "-q", "-b", "main", "."]);
        person
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn output(&self, folder: &Path, args: &[&str]) -> Output {
        Cmd::new("git")
            .envs(self.env.iter().cloned())
            .cwd(folder)
            .args(args)
            .run_blocking()
            .unwrap()
    }

    fn git_in(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.output(folder, args);
        assert_eq!(output.code, Some(0), "git {args:?}: {}", output.stderr_tail());
        output.text().trim().to_owned()
    }

    fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.tree(), args)
    }

    fn commit(&self, message: &str) -> CommitSha {
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    fn setting(&self, lines: &str) {
        let path = self.folder.path().join("home/.gitconfig");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(path, before + lines).unwrap();
    }

    fn repository() -> Repository {
        Repository {
            connection: "local".parse().unwrap(),
            id: 1.into(),
            path: "local/tree".parse().unwrap(),
            context: crate::model::names::ForgeContext::default(),
        }
    }

    fn mirror(&self) -> PathBuf {
        self.source.mirror(&Self::repository())
    }

    async fn find(&self, folder: &Path) -> WorkTree {
        WorkTree::find(folder, self.env.clone()).await.unwrap()
    }

    async fn adopt(&self, folder: &Path) -> CommitSha {
        let tree = self.find(folder).await;
        let head = tree.head().await.unwrap().unwrap();
        self.source.adopt(&Self::repository(), &tree, &head).await.unwrap();
        head
    }

    async fn snapshot(&self, folder: &Path) -> Snapshot {
        let head = self.adopt(folder).await;
        let tree = self.find(folder).await;
        let made = self.source.snapshot(&Self::repository(), &tree, &head).await.unwrap();
        assert_eq!(
            client(&self.mirror(), &["rev-parse", &format!("{}^", made.commit)])
                .text()
                .trim(),
            head.as_str()
        );
        self.is_whole(&made.commit);
        made
    }

    /// All that a commit needs is in the mirror, whose git fetches nothing.
    fn is_whole(&self, commit: &CommitSha) {
        let seen = client(&self.mirror(), &["rev-list", "--objects", commit.as_str()]);
        assert_eq!(seen.code, Some(0), "{}", seen.stderr_tail());
        let seen = client(&self.mirror(), &["fsck", "--connectivity-only", "--no-dangling"]);
        assert_eq!(seen.code, Some(0), "{}", seen.stderr_tail());
    }

    /// The files of a commit in the mirror.
    fn files(&self, commit: &CommitSha) -> BTreeMap<String, Vec<u8>> {
        let listing = client(&self.mirror(), &["ls-tree", "-r", "-z", commit.as_str()]).text();
        listing
            .split_terminator('\0')
            .map(|line| {
                let (meta, path) = line.split_once('\t').unwrap();
                let mut meta = meta.split(' ').skip(1);
                let (kind, object) = (meta.next().unwrap(), meta.next().unwrap());
                let bytes = match kind {
                    "blob" => client(&self.mirror(), &["cat-file", "blob", object]).stdout,
                    _ => format!("{kind} {object}").into_bytes(),
                };
                (path.to_owned(), bytes)
            })
            .collect()
    }

    fn text(&self, commit: &CommitSha, path: &str) -> Option<String> {
        let bytes = self.files(commit).remove(path)?;
        Some(String::from_utf8(bytes).unwrap())
    }
}

/// What has become of a file since the commit, or that it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Clean,
    Modified,
    Deleted,
    Staged,
    StagedThenModified,
    StagedThenDeleted,
    Untracked,
    /// By one of four files.
    Ignored(u8),
    IgnoredButAdded,
    IntentToAdd,
    Unstaged,
    RemovedFromBoth,
    SkippedAndAbsent,
    SkippedAndModified,
    AssumedUnchanged,
    SparseAndAbsent,
    SparseAndModified,
    BecameFolder,
    BecameLink,
}

const FATES: [Fate; 22] = [
    Fate::Clean,
    Fate::Modified,
    Fate::Deleted,
    Fate::Staged,
    Fate::StagedThenModified,
    Fate::StagedThenDeleted,
    Fate::Untracked,
    Fate::Ignored(0),
    Fate::Ignored(1),
    Fate::Ignored(2),
    Fate::Ignored(3),
    Fate::IgnoredButAdded,
    Fate::IntentToAdd,
    Fate::Unstaged,
    Fate::RemovedFromBoth,
    Fate::SkippedAndAbsent,
    Fate::SkippedAndModified,
    Fate::AssumedUnchanged,
    Fate::SparseAndAbsent,
    Fate::SparseAndModified,
    Fate::BecameFolder,
    Fate::BecameLink,
];

impl Fate {
    fn is_committed(self) -> bool {
        !matches!(
            self,
            Self::Staged
                | Self::StagedThenModified
                | Self::StagedThenDeleted
                | Self::Untracked
                | Self::Ignored(_)
                | Self::IgnoredButAdded
                | Self::IntentToAdd
        )
    }

    fn is_sparse(self) -> bool {
        matches!(self, Self::SparseAndAbsent | Self::SparseAndModified)
    }

    /// Some commands of git see a bit that another command would have cleared by then.
    fn happens(self, person: &Person, path: &str) {
        let (file, other) = (person.tree().join(path), format!("other {path}\n"));
        let ignored_by = ["by-tree", "by-exclude", "by-setting", "by-home"];
        match self {
            Self::Clean | Self::SparseAndAbsent => {}
            Self::Modified | Self::SparseAndModified | Self::Untracked => person.write(path, &other),
            Self::Deleted => fs::remove_file(file).unwrap(),
            Self::Staged | Self::StagedThenModified | Self::StagedThenDeleted => {
                person.write(path, "staged\n");
                person.git(&["add", "--sparse", "--", path]);
                match self {
                    Self::StagedThenModified => person.write(path, &other),
                    Self::StagedThenDeleted => fs::remove_file(file).unwrap(),
                    _ => {}
                }
            }
            Self::Ignored(by) => person.write(&format!("{path}.{}", ignored_by[usize::from(by)]), &other),
            Self::IgnoredButAdded => {
                person.write(&format!("{path}.by-home"), &other);
                person.git(&["add", "--sparse", "--force", "--", &format!("{path}.by-home")]);
            }
            Self::IntentToAdd => {
                person.write(path, &other);
                person.git(&["add", "--sparse", "--intent-to-add", "--", path]);
            }
            Self::Unstaged => drop(person.git(&["rm", "--sparse", "-q", "--cached", "--", path])),
            Self::RemovedFromBoth => drop(person.git(&["rm", "--sparse", "-q", "--", path])),
            Self::SkippedAndAbsent => {
                person.git(&["update-index", "--skip-worktree", "--", path]);
                fs::remove_file(file).unwrap();
            }
            Self::SkippedAndModified => {
                person.git(&["update-index", "--skip-worktree", "--", path]);
                person.write(path, &other);
            }
            Self::AssumedUnchanged => {
                person.git(&["update-index", "--assume-unchanged", "--", path]);
                person.write(path, &other);
            }
            Self::BecameFolder => {
                fs::remove_file(file).unwrap();
                person.write(&format!("{path}/inside"), &other);
            }
            Self::BecameLink => {
                fs::remove_file(&file).unwrap();
                std::os::unix::fs::symlink("nowhere", file).unwrap();
            }
        }
    }

    /// What runs of it: a path and its content.
    fn runs(self, path: &str, sparse: bool) -> Option<(String, String)> {
        let (committed, other) = (format!("committed {path}\n"), format!("other {path}\n"));
        let at = |text: String| Some((path.to_owned(), text));
        match self {
            Self::Clean | Self::Unstaged | Self::SkippedAndAbsent | Self::AssumedUnchanged | Self::SparseAndAbsent => {
                at(committed)
            }
            // In a sparse checkout what lies on the disk in spite of it counts.
            Self::SkippedAndModified if !sparse => at(committed),
            Self::Modified
            | Self::StagedThenModified
            | Self::Untracked
            | Self::IntentToAdd
            | Self::SkippedAndModified
            | Self::SparseAndModified => at(other),
            Self::Staged => at("staged\n".to_owned()),
            Self::Deleted | Self::StagedThenDeleted | Self::Ignored(_) | Self::RemovedFromBoth => None,
            Self::IgnoredButAdded => Some((format!("{path}.by-home"), other)),
            Self::BecameFolder => Some((format!("{path}/inside"), other)),
            Self::BecameLink => at("nowhere".to_owned()),
        }
    }
}

/// Index and status of the person's git say the same: what is staged, but from the disk where that differs.
fn by_status(person: &Person) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for line in person.git(&["ls-files", "-s", "-z"]).split_terminator('\0') {
        let (meta, path) = line.split_once('\t').unwrap();
        let object = meta.split(' ').nth(1).unwrap();
        let bytes = person.output(&person.tree(), &["cat-file", "blob", object]).stdout;
        files.insert(path.to_owned(), bytes);
    }
    let status = person.output(
        &person.tree(),
        &["status", "--porcelain", "-z", "-uall", "--no-renames"],
    );
    for line in status.text().split_terminator('\0') {
        let (state, path) = line.split_at(3);
        let file = person.tree().join(path);
        match state.as_bytes()[1] {
            b' ' => {}
            b'D' => drop(files.remove(path)),
            _ => {
                let link = fs::read_link(&file).map(|to| to.as_os_str().as_bytes().to_owned());
                files.insert(path.to_owned(), link.or_else(|_| fs::read(&file)).unwrap());
            }
        }
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// For any mixture of files, what runs is what the person's own git says of the tree.
    #[test]
    fn what_runs_of_a_tree_is_what_its_persons_git_says(
        fates in proptest::collection::vec(proptest::sample::select(&FATES[..]), 1..24),
    ) {
        let person = Person::new();
        person.write("../home/.config/git/ignore", "*.by-home\n");
        person.write("../home/ignored", "*.by-setting\n");
        person.write(".gitignore", "*.by-tree\n");
        person.write(".git/info/exclude", "*.by-exclude\n");
        let sparse = fates.iter().any(|fate| fate.is_sparse());
        let fates: Vec<(String, Fate)> = fates
            .into_iter()
            .enumerate()
            .map(|(n, fate)| (format!("d{}/f {n}", n % 3), fate))
            .collect();
        for (path, fate) in &fates {
            if fate.is_committed() {
                person.write(path, &format!("committed {path}\n"));
            }
        }
        let head = person.commit("one");
        // One file of settings has precedence over the other: both at work needs the second's lines in the first.
        person.write("../home/ignored", "*.by-setting\n*.by-home\n");
        if fates.iter().any(|(_, fate)| *fate == Fate::Ignored(2)) {
            person.setting("[core]\nexcludesFile = ~/ignored\n");
        }
        if sparse {
            let away = fates.iter().filter(|(_, fate)| fate.is_sparse());
            let patterns: String = away.map(|(path, _)| format!("!/{path}\n")).collect();
            person.git(&["sparse-checkout", "set", "--no-cone", "/*", patterns.trim_end()]);
            person.write(".git/info/sparse-checkout", &format!("/*\n{patterns}"));
            person.git(&["read-tree", "-mu", "HEAD"]);
        }
        for (path, fate) in &fates {
            fate.happens(&person, path);
        }
        let mut wanted: BTreeMap<String, Vec<u8>> = fates
            .iter()
            .filter_map(|(path, fate)| fate.runs(path, sparse))
            .map(|(path, text)| (path, text.into_bytes()))
            .collect();
        wanted.insert(".gitignore".to_owned(), b"*.by-tree\n".to_vec());
        let (status, index) = (person.git(&["status", "--porcelain"]), fs::read(person.tree().join(".git/index")).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let made = runtime.block_on(person.snapshot(&person.tree()));
        prop_assert_eq!(person.files(&made.commit), wanted.clone());
        prop_assert_eq!(by_status(&person), wanted);
        prop_assert_eq!(made.left_out, Vec::<PathBuf>::new());
        // The person's repository is as it was.
        prop_assert_eq!(person.git(&["status", "--porcelain"]), status);
        prop_assert_eq!(fs::read(person.tree().join(".git/index")).unwrap(), index);
        prop_assert_eq!(person.git(&["rev-parse", "HEAD"]), head.as_str());
        prop_assert_eq!(person.git(&["cat-file", "--batch-all-objects", "--batch-check"]).contains(made.commit.as_str()), false);
    }
}

#[tokio::test]
async fn settings_that_change_what_is_stored_count() {
    let person = Person::new();
    person.write("a", "x\n");
    person.commit("one");
    person.setting("[core]\nautocrlf = input\nsafecrlf = true\n[filter \"loud\"]\nclean = tr a-z A-Z\nsmudge = cat\n");
    person.write(".git/info/attributes", "*.loud filter=loud\n");
    person.write("lines", "one\r\ntwo\r\n");
    person.write("b.loud", "quiet\n");
    let made = person.snapshot(&person.tree()).await;
    assert_eq!(person.text(&made.commit, "lines").unwrap(), "one\ntwo\n");
    assert_eq!(person.text(&made.commit, "b.loud").unwrap(), "QUIET\n");
    // A mode that the person's git does not believe.
    person.git(&["config", "core.fileMode", "false"]);
    fs::set_permissions(person.tree().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    let made = person.snapshot(&person.tree()).await;
    let listed = client(&person.mirror(), &["ls-tree", made.commit.as_str(), "a"]).text();
    assert!(listed.starts_with("100644"), "{listed}");
}

#[tokio::test]
async fn settings_for_some_folders_and_for_one_worktree_count() {
    let person = Person::new();
    person.write("a", "x\n");
    person.commit("one");
    person.setting(&format!(
        "[includeIf \"gitdir:{}/\"]\npath = ~/mine\n",
        person.tree().display()
    ));
    person.write("../home/mine", "[core]\nexcludesFile = ~/mine-ignored\n");
    person.write("../home/mine-ignored", "*.mine\n");
    let linked = person.folder.path().join("linked");
    person.git(&["worktree", "add", "-q", linked.to_str().unwrap()]);
    person.git(&["config", "extensions.worktreeConfig", "true"]);
    person.git_in(&linked, &["config", "--worktree", "core.excludesFile", "/dev/null"]);
    for folder in [person.tree(), linked.clone()] {
        fs::write(folder.join("b.mine"), "b\n").unwrap();
        fs::write(folder.join("c"), "c\n").unwrap();
    }
    let made = person.snapshot(&person.tree()).await;
    assert_eq!(person.files(&made.commit).into_keys().collect::<Vec<_>>(), ["a", "c"]);
    let tree = person.find(&linked).await;
    assert_eq!(tree.branch().await.unwrap().as_deref(), Some("refs/heads/linked"));
    let made = person.snapshot(&linked).await;
    assert_eq!(
        person.files(&made.commit).into_keys().collect::<Vec<_>>(),
        ["a", "b.mine", "c"]
    );
}

/// A repository may say programs to run; git itself would run some of them here, for a person who asked it nothing.
#[tokio::test]
async fn no_hook_and_no_monitor_runs() {
    let person = Person::new();
    person.write("a", "x\n");
    let marker = person.folder.path().join("ran");
    person.write(
        "../home/evil",
        &format!("#!/bin/sh\necho \"$0\" >>{}\n", marker.display()),
    );
    let evil = person.folder.path().join("home/evil");
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    person.commit("one");
    for hook in [
        "post-index-change",
        "pre-commit",
        "reference-transaction",
        "post-checkout",
        "fsmonitor-watchman",
    ] {
        fs::copy(&evil, person.tree().join(".git/hooks").join(hook)).unwrap();
    }
    person.git(&["config", "core.fsmonitor", evil.to_str().unwrap()]);
    person.git(&["config", "core.splitIndex", "true"]);
    person.git(&["update-index", "--split-index"]);
    person.git(&["status"]);
    assert!(marker.exists(), "this git would run them");
    fs::remove_file(&marker).unwrap();
    person.write("b", "y\n");
    let shared = || fs::read_dir(person.tree().join(".git")).unwrap().count();
    let before = shared();
    let tree = person.find(&person.tree()).await;
    assert!(tree.is_changed().await.unwrap());
    let made = person.snapshot(&person.tree()).await;
    assert_eq!(person.files(&made.commit).into_keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!(!marker.exists(), "{}", fs::read_to_string(&marker).unwrap());
    assert_eq!(shared(), before);
}

#[tokio::test]
async fn what_runs_is_what_would_be_pushed() {
    let person = Person::new();
    person.write("a", "one\n");
    let first = person.commit("one");
    person.write("a", "two\n");
    let second = person.commit("two");
    person.write("a", "three\n");
    let third = person.commit("three");
    // Objects that stand in for others, and parents that are no parents, are the person's alone.
    person.git(&["replace", third.as_str(), first.as_str()]);
    person.write(".git/info/grafts", &format!("{third}\n"));
    assert_eq!(person.adopt(&person.tree()).await, third);
    person.is_whole(&third);
    assert_eq!(person.text(&third, "a").unwrap(), "three\n");
    let parents = client(&person.mirror(), &["rev-list", third.as_str()]).text();
    assert!(
        parents.contains(second.as_str()) && parents.contains(first.as_str()),
        "{parents}"
    );
    assert_eq!(
        person.source.cut_history(&Person::repository(), &third).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn objects_are_found_wherever_they_are() {
    let person = Person::new();
    person.write("a", "x\n");
    person.commit("one");
    // A name in which git's lists of folders would be split.
    let shared = person.folder.path().join("a:b \"c\\");
    person.git(&["clone", "-q", "--shared", ".", shared.to_str().unwrap()]);
    fs::write(shared.join("b"), "y\n").unwrap();
    let made = person.snapshot(&shared).await;
    assert_eq!(person.files(&made.commit).into_keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn repositories_inside_are_said_and_submodules_stay_what_they_are() {
    let person = Person::new();
    person.write("a", "x\n");
    person.commit("one");
    let inner = person.folder.path().join("inner");
    person.git(&["clone", "-q", ".", inner.to_str().unwrap()]);
    person.git(&[
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        inner.to_str().unwrap(),
        "sub",
    ]);
    let head = person.commit("two");
    person.write("sub/a", "changed in the submodule\n");
    for name in ["nested", "empty nested"] {
        person.write(&format!("{name}/file"), "x\n");
        person.git_in(&person.tree().join(name), &["init", "-q"]);
    }
    person.git_in(
        &person.tree().join("nested"),
        &["commit", "-q", "--allow-empty", "-m", "x"],
    );
    let made = person.snapshot(&person.tree()).await;
    assert_eq!(made.left_out, [Path::new("empty nested"), Path::new("nested")]);
    assert_eq!(person.files(&made.commit), person.files(&head));
    // And a submodule is a working tree itself.
    let made = person.snapshot_elsewhere(&person.tree().join("sub")).await;
    assert_eq!(made.get("a").unwrap(), b"changed in the submodule\n");
}

impl Person {
    /// As [`Person::snapshot`], into a mirror of its own; its files.
    async fn snapshot_elsewhere(&self, folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let data = self.folder.path().join("elsewhere");
        fs::create_dir(&data).unwrap();
        let other = Self {
            folder: tempfile::tempdir().unwrap(),
            env: self.env.clone(),
            source: Source::at(&data, 1 << 30),
        };
        let made = other.snapshot(folder).await;
        other.files(&made.commit)
    }
}

/// What git takes for unchanged by time and size alone: it compares bytes if the index is not younger than the file.
#[tokio::test]
async fn a_change_at_the_moment_of_the_index_is_seen() {
    let person = Person::new();
    person.git(&["config", "core.trustctime", "false"]);
    let moment = std::time::SystemTime::now() - Duration::from_secs(100);
    let file = person.tree().join("a");
    let set = |path: &Path| {
        let opened = fs::File::options().write(true).open(path).unwrap();
        opened.set_modified(moment).unwrap();
    };
    person.write("a", "before\n");
    set(&file);
    person.commit("one");
    person.write("a", "after!\n");
    set(&file);
    set(&person.tree().join(".git/index"));
    let made = person.snapshot(&person.tree()).await;
    assert_eq!(person.text(&made.commit, "a").unwrap(), "after!\n");
}

#[tokio::test]
async fn a_conflict_runs_as_it_stands_on_the_disk() {
    let person = Person::new();
    person.write("a", "one\n");
    person.write("b", "one\n");
    person.commit("one");
    person.git(&["switch", "-q", "-c", "other"]);
    person.write("a", "other\n");
    person.git(&["rm", "-q", "b"]);
    person.commit("other");
    person.git(&["switch", "-q", "main"]);
    person.write("a", "main\n");
    person.write("b", "main\n");
    person.commit("main");
    assert_ne!(person.output(&person.tree(), &["merge", "-q", "other"]).code, Some(0));
    let made = person.snapshot(&person.tree()).await;
    let text = person.text(&made.commit, "a").unwrap();
    assert!(
        text.contains("<<<<<<<") && text.contains("main\n") && text.contains("other\n"),
        "{text}"
    );
    assert_eq!(person.text(&made.commit, "b").unwrap(), "main\n");
}

/// git gives its hooks relative names, and an index that is not the usual one.
#[tokio::test]
async fn a_hook_of_git_may_run_it() {
    let mut person = Person::new();
    person.write("a", "x\n");
    person.write("deep/b", "x\n");
    person.commit("one");
    person.write("staged", "y\n");
    person.git(&["add", "staged"]);
    fs::rename(person.tree().join(".git/index"), person.tree().join(".git/next-index")).unwrap();
    person.git(&["read-tree", "HEAD"]);
    fs::remove_file(person.tree().join("staged")).unwrap();
    for (name, value) in [
        ("GIT_DIR", ".git"),
        ("GIT_INDEX_FILE", ".git/next-index"),
        ("GIT_PREFIX", "deep/"),
    ] {
        person.env.push((name.into(), value.into()));
    }
    // Its index has the file, which is deleted on the disk.
    let tree = person.find(&person.tree()).await;
    let changes = tree.changes().await.unwrap();
    assert_eq!(changes.deleted, b"staged\0");
    let made = person.snapshot(&person.tree()).await;
    assert_eq!(
        person.files(&made.commit).into_keys().collect::<Vec<_>>(),
        ["a", "deep/b"]
    );
}

#[tokio::test]
async fn somebody_elses_repository_is_trusted_as_far_as_its_person_says() {
    if !nix::unistd::geteuid().is_root() {
        crate::prerequisites::skip("only root can give a repository to somebody else");
        return;
    }
    let person = Person::new();
    person.write("a", "x\n");
    person.commit("one");
    for path in [person.tree(), person.tree().join(".git")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let refused = WorkTree::find(&person.tree(), person.env.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("dubious ownership"), "{refused}");
    person.setting(&format!("[safe]\ndirectory = {}\n", person.tree().display()));
    person.write("b", "y\n");
    let made = person.snapshot(&person.tree()).await;
    assert_eq!(person.files(&made.commit).into_keys().collect::<Vec<_>>(), ["a", "b"]);
}

/// A clone of `tree` with these options, by an address that only the person's own settings explain.
fn cloned(person: &Person, options: &[&str]) -> PathBuf {
    let folder = person.folder.path().join("clone");
    person.git(&["config", "uploadpack.allowFilter", "true"]);
    person.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    person.setting(&format!(
        "[url \"file://{}\"]\ninsteadOf = there:tree\n",
        person.tree().display()
    ));
    let args = [&["clone", "-q"], options, &["there:tree", folder.to_str().unwrap()]].concat();
    person.git(&args);
    folder
}

#[tokio::test]
async fn a_partial_clone_fetches_what_the_commit_needs_and_no_more() {
    for filter in ["blob:none", "tree:0"] {
        let person = Person::new();
        person.write("a", "old\n");
        person.commit("one");
        person.write("a", "new\n");
        person.write("far/away", "far\n");
        let head = person.commit("two");
        let clone = cloned(&person, &[&format!("--filter={filter}"), "--sparse"]);
        let missing = || {
            let listed = person.git_in(&clone, &["rev-list", "--objects", "--missing=print", "--all"]);
            listed.lines().filter(|line| line.starts_with('?')).count()
        };
        assert!(missing() >= 2, "{filter}: something must be missing");
        let adopted = person.adopt(&clone).await;
        assert_eq!(adopted, head);
        person.is_whole(&head);
        assert_eq!(person.text(&head, "far/away").unwrap(), "far\n", "{filter}");
        assert_eq!(
            person.source.cut_history(&Person::repository(), &head).await.unwrap(),
            Some(1)
        );
        assert!(missing() >= 1, "{filter}: the older commit's file was not needed");
        // And with changes, what is kept off the disk stays in.
        fs::write(clone.join("b"), "b\n").unwrap();
        let made = person.snapshot(&clone).await;
        let files: Vec<String> = person.files(&made.commit).into_keys().collect();
        assert_eq!(files, ["a", "b", "far/away"], "{filter}");
        // A grant of it is whole, and as deep as there is.
        let grant = person
            .source
            .grant(&Person::repository(), AttemptId::new(), &branch(), &made.commit, 2)
            .await
            .unwrap();
        assert_eq!(
            client(&grant.path, &["rev-list", "--count", made.commit.as_str()])
                .text()
                .trim(),
            "2"
        );
    }
}

#[tokio::test]
async fn a_partial_clone_that_cannot_fetch_is_said() {
    let person = Person::new();
    person.write("a", "x\n");
    person.commit("one");
    let clone = cloned(&person, &["--filter=blob:none", "--no-checkout"]);
    let tree = person.find(&clone).await;
    let head = tree.head().await.unwrap().unwrap();
    fs::rename(person.tree(), person.folder.path().join("moved")).unwrap();
    let error = person
        .source
        .adopt(&Person::repository(), &tree, &head)
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::NotPacked { .. }), "{error}");
    assert!(!person.source.has_commit(&Person::repository(), &head).await.unwrap());
}

#[tokio::test]
async fn a_shallow_clone_runs_with_the_history_it_has() {
    let person = Person::new();
    for n in 0..4 {
        person.write("a", &format!("{n}\n"));
        person.commit(&n.to_string());
    }
    let clone = cloned(&person, &["--depth=2"]);
    let head = person.adopt(&clone).await;
    person.is_whole(&head);
    assert_eq!(
        person.source.cut_history(&Person::repository(), &head).await.unwrap(),
        Some(2)
    );
    fs::write(clone.join("b"), "b\n").unwrap();
    let made = person.snapshot(&clone).await;
    for (depth, seen) in [(1, "1"), (2, "2"), (3, "3"), (9, "3")] {
        let grant = person
            .source
            .grant(&Person::repository(), AttemptId::new(), &branch(), &made.commit, depth)
            .await
            .unwrap();
        let count = client(&grant.path, &["rev-list", "--count", made.commit.as_str()]).text();
        assert_eq!(count.trim(), seen, "depth {depth}");
    }
}

#[tokio::test]
async fn names_of_any_bytes_travel() {
    let person = Person::new();
    person.write("a", "x\n");
    person.commit("one");
    let odd = [
        &b"new\nline"[..],
        b"-x",
        b"\xff\xfe",
        b":(top)",
        b"*",
        b" ",
        b"tab\t",
        b"\"q\\",
    ];
    for name in odd {
        fs::write(person.tree().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let made = person.snapshot(&person.tree()).await;
    let listed = client(
        &person.mirror(),
        &["ls-tree", "-z", "--name-only", made.commit.as_str()],
    )
    .stdout;
    for name in odd {
        assert!(
            listed.split(|byte| *byte == 0).any(|one| one == name),
            "{}",
            String::from_utf8_lossy(name)
        );
    }
}
