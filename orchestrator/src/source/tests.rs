//! Mirrors, grants and serving against the real git.

use std::path::Path;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    exec::{Cmd, Output},
    forge::FetchAccess,
    model::names::RefName,
    secret::Secret,
};

/// A repository at a forge, with a work tree to commit from, and a source that mirrors it.
struct World {
    folder: TempDir,
    source: Source,
    repository: Repository,
    access: FetchAccess,
}

impl World {
    fn new() -> Self {
        Self::limited(1 << 30)
    }

    fn limited(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A name that would be decoded, split or taken for an option if it were handled carelessly.
        let data = folder.path().join("da ta%41;-x");
        std::fs::create_dir(&data).unwrap();
        let world = Self {
            source: Source::at(&data, bytes),
            repository: Repository {
                connection: "forge".parse().unwrap(),
                id: 7.into(),
                path: "o/r".parse().unwrap(),
                context: crate::model::names::ForgeContext::default(),
            },
            access: FetchAccess {
                url: format!("file://{}/work/.git", folder.path().display()),
                authorization: None,
            },
            folder,
        };
        std::fs::create_dir(world.work()).unwrap();
        world.git(&["init", "--quiet", "--initial-branch=main", "."]);
        world
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn git(&self, args: &[&str]) -> String {
        let output = client(&self.work(), args);
        assert_eq!(output.code, Some(0), "git {args:?}: {}", output.stderr_tail());
        output.text().trim().to_owned()
    }

    fn commit(&self, file: &str, text: &[u8], message: &str) -> CommitSha {
        let path = self.work().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    async fn fetch(&self, name: &str) -> Result<CommitSha, SourceError> {
        let name: RefName = name.parse().unwrap();
        self.source.fetch(&self.repository, &self.access, &name).await
    }

    async fn grant(&self, commit: &CommitSha, depth: u32) -> (AttemptId, Grant) {
        let attempt = AttemptId::new();
        let grant = self
            .source
            .grant(&self.repository, attempt, &main(), commit, depth)
            .await
            .unwrap();
        (attempt, grant)
    }
}

pub(super) fn main() -> RefName {
    "refs/heads/main".parse().unwrap()
}

pub(super) fn client(cwd: &Path, args: &[&str]) -> Output {
    let who = [
        "GIT_AUTHOR_NAME",
        "GIT_AUTHOR_EMAIL",
        "GIT_COMMITTER_NAME",
        "GIT_COMMITTER_EMAIL",
    ];
    let mut cmd = Cmd::new("git").cwd(cwd).args(args);
    for name in who {
        cmd = cmd.env(name, "a@b");
    }
    cmd.env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .run_blocking()
        .unwrap()
}

/// Serves an attempt's grant on a loopback port, as often as it is asked; returns the port.
async fn serve(source: &Source, attempt: AttemptId) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let source = source.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let source = source.clone();
            tokio::spawn(async move { source.serve(stream, attempt).await });
        }
    });
    port
}

/// A machine's git, in an empty repository of its own.
struct Guest(TempDir, u16);

impl Guest {
    fn new(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(client(folder.path(), &["init", "--quiet", "."]).code, Some(0));
        Self(folder, port)
    }

    async fn fetch(&self, version: &str, args: &[&str]) -> Output {
        let url = format!("git://127.0.0.1:{}/repo", self.1);
        let version = format!("protocol.version={version}");
        let mut all = vec!["-c", &version, "fetch", "--quiet"];
        let (options, refs): (Vec<&str>, Vec<&str>) = args.iter().partition(|a| a.starts_with("--"));
        all.extend(options);
        all.push(&url);
        all.extend(refs);
        let (folder, all) = (
            self.0.path().to_owned(),
            all.iter().map(ToString::to_string).collect::<Vec<_>>(),
        );
        tokio::task::spawn_blocking(move || client(&folder, &all.iter().map(String::as_str).collect::<Vec<_>>()))
            .await
            .unwrap()
    }

    fn count(&self, what: &str) -> usize {
        let output = client(self.0.path(), &["rev-list", "--count", what]);
        output.text().trim().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_follows_its_refs() {
    let world = World::new();
    let first = world.commit("a", b"1", "First\n\nbody [skip ci]");
    assert_eq!(world.fetch("refs/heads/main").await.unwrap(), first);
    let second = world.commit("b", b"2", "Second");
    world.git(&["tag", "--annotate", "--message=x", "v1"]);
    let tag: CommitSha = world.git(&["rev-parse", "v1"]).parse().unwrap();
    assert_eq!(world.fetch("refs/tags/v1").await.unwrap(), second, "tags are peeled");
    assert_eq!(
        world.source.resolve(&world.repository, &tag).await.unwrap(),
        Some(second.clone())
    );

    let main: RefName = "refs/heads/main".parse().unwrap();
    let reachable = async |commit| world.source.reachable(&world.repository, commit, &main).await.unwrap();
    assert!(reachable(&first).await);
    assert!(!reachable(&second).await, "the mirror's main is as fetched last");
    assert_eq!(world.fetch("refs/heads/main").await.unwrap(), second);
    assert!(reachable(&second).await);
    world.git(&["reset", "--quiet", "--hard", first.as_str()]);
    let third = world.commit("c", b"3", "Third");
    assert_eq!(
        world.fetch("refs/heads/main").await.unwrap(),
        third,
        "a force-push is followed"
    );
    assert!(!reachable(&second).await && reachable(&first).await);
    assert!(!reachable(&"f".repeat(40).parse().unwrap()).await);

    let message = world.source.objects(&world.repository).message(&first).await.unwrap();
    assert_eq!(message.trim_end(), "First\n\nbody [skip ci]");
    assert!(matches!(
        world.fetch("refs/heads/gone").await,
        Err(SourceError::NoRef { .. })
    ));
    world.git(&["checkout", "--quiet", "-b", "a"]);
    world.fetch("refs/heads/a").await.unwrap();
    world.git(&["branch", "--quiet", "--move", "a", "a/b"]);
    world.fetch("refs/heads/a/b").await.unwrap();
}

#[tokio::test]
async fn many_refs_come_with_one_fetch_and_those_that_are_gone_keep_none_away() {
    let world = World::new();
    let first = world.commit("a", b"a", "first");
    world.git(&["branch", "one"]);
    world.git(&["tag", "--annotate", "-m", "x", "v1"]);
    let second = world.commit("a", b"b", "second");
    let blob = world.git(&["rev-parse", "HEAD:a"]);
    world.git(&["tag", "of-a-blob", &blob]);
    let names: Vec<RefName> = [
        "refs/heads/gone",
        "refs/heads/main",
        "refs/heads/one",
        "refs/heads/one",
        "refs/tags/of-a-blob",
        "refs/tags/v1",
    ]
    .map(|name| name.parse().unwrap())
    .into();
    let packs = || std::fs::read_dir(world.source.mirror(&world.repository).join("objects/pack")).unwrap();
    // The mirror is made, and then it is there.
    for round in 0..2 {
        let found = world.source.fetch_heads(&world.repository, &world.access, &names).await;
        let mut found: Vec<_> = found
            .unwrap()
            .into_iter()
            .map(|(name, sha)| (name.to_string(), sha))
            .collect();
        found.sort();
        let expected = [
            ("refs/heads/main", &second),
            ("refs/heads/one", &first),
            ("refs/tags/v1", &first),
        ];
        assert_eq!(
            found,
            expected.map(|(name, sha)| (name.to_owned(), sha.clone())),
            "{round}"
        );
        let count = packs()
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|e| e == "pack"))
            .count();
        assert_eq!(count, 1, "one fetch brought all");
    }
    let none: [RefName; 1] = ["refs/heads/gone".parse().unwrap()];
    let found = world.source.fetch_heads(&world.repository, &world.access, &none).await;
    assert_eq!(found.unwrap(), HashMap::new());
}

#[test]
fn a_forge_that_refuses_us_says_so_through_git() {
    let repository = World::new().repository;
    let denied = |said: &str| matches!(mirror::fetch_error(&repository, "x", said), SourceError::Denied { .. });
    for said in [
        "fatal: could not read Username for 'http://127.0.0.1:1': terminal prompts disabled",
        "fatal: Authentication failed for 'https://forge.example/ada/engine.git/'",
        "remote: Forbidden fatal: unable to access 'https://forge.example/ada/engine.git/': The requested URL returned error: 403",
        "remote: Repository not found. fatal: repository 'https://forge.example/ada/engine.git/' not found",
    ] {
        assert!(denied(said), "{said}");
    }
    for said in [
        "fatal: unable to access 'https://forge.example/ada/engine.git/': The requested URL returned error: 502",
        "fatal: unable to access 'https://forge.example/ada/engine.git/': Could not resolve host: forge.example",
        "it took longer than 1800 s",
    ] {
        assert!(!denied(said), "{said}");
    }
}

#[tokio::test]
async fn a_ref_that_never_was_makes_no_mirror() {
    let world = World::new();
    world.commit("a", b"1", "First");
    assert!(matches!(
        world.fetch("refs/heads/gone").await,
        Err(SourceError::NoRef { .. })
    ));
    assert!(!world.source.mirror(&world.repository).exists());
}

#[tokio::test]
async fn hostile_refs_run_nothing() {
    let world = World::new();
    let commit = world.commit("a", b"1", "First");
    let hostile = "refs/heads/--upload-pack=touch${IFS}PWNED;";
    world.git(&["update-ref", hostile, commit.as_str()]);
    assert!(hostile.parse::<RefName>().is_err());
    for name in [
        "refs/heads/main",
        "refs/heads/a;touch${IFS}PWNED",
        "refs/heads/$(touch${IFS}PWNED)",
        "refs/heads/`id`",
    ] {
        if name != "refs/heads/main" {
            world.git(&["update-ref", name, commit.as_str()]);
        }
        assert_eq!(world.fetch(name).await.unwrap(), commit, "{name}");
    }
    let (_, grant) = world.grant(&commit, 0).await;
    for folder in [Path::new("."), world.folder.path(), &world.work(), &grant.path] {
        assert!(!folder.join("PWNED").exists());
    }
}

#[tokio::test]
async fn only_the_forges_own_protocols_are_spoken() {
    let world = World::new();
    for url in [
        "ext::sh -c touch% PWNED",
        "/etc",
        "ssh://x/y",
        "git://x/y",
        "https://user:pw@x/y",
        "--upload-pack=x",
    ] {
        let access = FetchAccess {
            url: url.into(),
            authorization: None,
        };
        let error = world
            .source
            .fetch(&world.repository, &access, &"refs/heads/main".parse().unwrap())
            .await;
        assert!(matches!(error, Err(SourceError::Address { .. })), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn what_a_commit_contains() {
    let world = World::new();
    world.commit(".github/workflows/ci.yml", b"on: push", "One");
    world.commit(".github/workflows/sub/x.yml", b"x", "Two");
    std::os::unix::fs::symlink("/etc/passwd", world.work().join(".github/workflows/link.yml")).unwrap();
    let commit = world.commit("pico.sh", &[0xff; 100], "Three");
    world.fetch("refs/heads/main").await.unwrap();
    let places = [".github/workflows/", ".helios/workflows/", "pico.sh", ".jci/run.sh"];
    let mut objects = world.source.objects(&world.repository);
    let paths = objects.list(&commit, &places).await.unwrap();
    assert_eq!(
        paths,
        [".github/workflows/ci.yml", ".github/workflows/link.yml", "pico.sh"]
    );
    let mut read = async |path, max| objects.read(&commit, path, max).await;
    assert_eq!(read(".github/workflows/ci.yml", 8).await.unwrap(), b"on: push");
    assert_eq!(read("pico.sh", 100).await.unwrap(), [0xff; 100]);
    assert!(matches!(
        read("pico.sh", 99).await,
        Err(SourceError::FileTooLong { .. })
    ));
    // What was not read is no part of the next answer.
    assert_eq!(read(".github/workflows/ci.yml", 8).await.unwrap(), b"on: push");
    assert!(matches!(
        read("a b missing", 8).await,
        Err(SourceError::Unreadable { .. })
    ));
    let unknown = "f".repeat(40).parse().unwrap();
    assert!(matches!(
        objects.message(&unknown).await,
        Err(SourceError::NoCommit { .. })
    ));
    std::fs::remove_dir_all(world.source.mirror(&world.repository)).unwrap();
    let mut objects = world.source.objects(&world.repository);
    assert!(matches!(objects.message(&commit).await, Err(SourceError::Git { .. })));
}

#[tokio::test]
async fn symbolic_links_are_followed_inside_the_commit_and_refused_by_name_elsewhere() {
    let world = World::new();
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, world.work().join(at)).unwrap();
    world.commit("ci/flows/a.yml", b"on: push", "One");
    std::fs::create_dir(world.work().join(".github")).unwrap();
    link("../ci/flows", ".github/workflows");
    link("a.yml", "ci/flows/inside.yml");
    link("/etc/passwd", "ci/flows/outside.yml");
    link("../../../x", "ci/flows/above.yml");
    link("nothing.yml", "ci/flows/dangling.yml");
    link("loop.yml", "ci/flows/loop.yml");
    link("a.yml/x", "ci/flows/through.yml");
    link("../scripts", "ci/flows/folder.yml");
    link("/etc", ".helios");
    link("ci/scripts", ".jci");
    let commit = world.commit("ci/scripts/run.sh", b"", "Two");
    world.fetch("refs/heads/main").await.unwrap();
    let places = [".helios/workflows/", ".github/workflows/", ".jci/run.sh", "pico.sh"];
    let mut objects = world.source.objects(&world.repository);
    let mut paths = objects.list(&commit, &places).await.unwrap();
    paths.sort_unstable();
    assert_eq!(paths.pop().as_deref(), Some(".jci/run.sh"));
    let expected = [
        "a", "above", "dangling", "folder", "inside", "loop", "outside", "through",
    ];
    assert_eq!(paths, expected.map(|name| format!(".github/workflows/{name}.yml")));
    for (name, expected) in [
        ("a", Ok(())),
        ("inside", Ok(())),
        ("outside", Err("leads out of the repository, to `/etc/passwd`")),
        ("above", Err("leads out of the repository, to `../x`")),
        ("dangling", Err("something that is not in the commit")),
        ("loop", Err("leads in a circle")),
        ("through", Err("something that is no folder")),
        ("folder", Err("it is no file")),
        ("absent", Err("not in the commit")),
        ("two\nlines", Err("line break")),
    ] {
        let path = format!(".github/workflows/{name}.yml");
        let read = objects.read(&commit, &path, 100).await;
        match (read, expected) {
            (Ok(bytes), Ok(())) => assert_eq!(bytes, b"on: push", "{name}"),
            (Err(SourceError::Unreadable { why, .. }), Err(words)) => assert!(why.contains(words), "{name}: {why}"),
            (read, _) => panic!("{name}: {read:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_checkout_leaves_out_is_named() {
    let world = World::new();
    let plain = world.commit("a", b"1", "One");
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
        "0".repeat(64)
    );
    let unused = world.commit("looks/like.bin", pointer.as_bytes(), "A text of that form, without LFS");
    world.commit(
        "x/.gitattributes",
        b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
        "LFS",
    );
    world.commit("x/real.bin", &[b'v'; 200], "Never converted");
    for n in 0..7 {
        world.commit(
            &format!("x/{n}.bin"),
            format!("{pointer}x-{n} y\n").as_bytes(),
            "Pointer",
        );
    }
    for name in ["sub one", "deep/sub\x1b[2Jtwo"] {
        let entry = format!("160000,{plain},{name}");
        world.git(&["update-index", "--add", "--cacheinfo", &entry]);
    }
    world.git(&["commit", "--quiet", "--message", "Submodules"]);
    let commit: CommitSha = world.git(&["rev-parse", "HEAD"]).parse().unwrap();
    world.fetch("refs/heads/main").await.unwrap();
    let said = async |commit| {
        let left_out = world.source.left_out(&world.repository, commit).await;
        left_out.unwrap().sentences()
    };
    assert_eq!(said(&plain).await, Vec::<String>::new());
    assert_eq!(said(&unused).await, Vec::<String>::new());
    assert_eq!(
        said(&commit).await,
        [
            "This commit has 2 submodules (deep/sub [2Jtwo, sub one); they are not fetched.",
            "8 files are LFS pointers (looks/like.bin, x/0.bin, x/1.bin, x/2.bin, x/3.bin, …); LFS is not fetched.",
        ]
    );
}

#[tokio::test]
async fn a_repository_beyond_the_limit_is_refused_in_words() {
    let world = World::limited(200_000);
    let small = world.commit("a", b"1", "Small");
    world.fetch("refs/heads/main").await.unwrap();
    let noise: Vec<u8> = (0..1_000_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let digest: Vec<u8> = noise
        .chunks(64)
        .flat_map(|c| <sha2::Sha256 as sha2::Digest>::digest(c).to_vec())
        .collect();
    world.commit("big", &digest, "Big");
    let error = world.fetch("refs/heads/main").await.unwrap_err();
    assert!(
        matches!(error, SourceError::TooLarge { .. }) && !error.is_retryable(),
        "{error}"
    );
    assert!(error.to_string().contains("limits.repository_bytes"), "{error}");
    assert!(world.source.has_commit(&world.repository, &small).await.unwrap());
    // What fits is fetched all the same, however often the other is tried.
    world.git(&["branch", "small", small.as_str()]);
    assert_eq!(world.fetch("refs/heads/small").await.unwrap(), small);
    world.fetch("refs/heads/main").await.unwrap_err();
    assert_eq!(world.fetch("refs/heads/small").await.unwrap(), small);
}

#[tokio::test]
async fn a_listing_that_is_cut_off_is_no_word_on_what_is_gone() {
    let world = World::new();
    let commit = world.commit("a", b"1", "First");
    // `ls-remote` takes a name for the end of one, too.
    let refs: String = (0..20_000)
        .map(|n| format!("{commit} refs/a/{n:08}/refs/heads/main\n"))
        .collect();
    std::fs::write(world.work().join(".git/packed-refs"), refs).unwrap();
    let names = [main()];
    let found = world.source.fetch_heads(&world.repository, &world.access, &names).await;
    assert!(matches!(found, Err(SourceError::Answer { .. })), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_gives_its_commit_and_nothing_else() {
    let world = World::new();
    let first = world.commit("a", b"1", "First");
    let second = world.commit("b", b"2", "Second");
    world.git(&["checkout", "--quiet", "-b", "hidden"]);
    let hidden = world.commit("secret", b"hidden words", "Hidden");
    for name in ["refs/heads/main", "refs/heads/hidden"] {
        world.fetch(name).await.unwrap();
    }
    let blob = world.git(&["rev-parse", "hidden:secret"]);

    // An old commit, granted whole: its own history, and not what came after.
    let (attempt, grant) = world.grant(&second, 0).await;
    assert!(!grant.path.join("objects/info/alternates").exists());
    let port = serve(&world.source, attempt).await;
    for version in ["0", "1", "2"] {
        let guest = Guest::new(port);
        let shallow = guest
            .fetch(version, &["--depth=1", &format!("{COMMIT_REF}:refs/heads/x")])
            .await;
        assert_eq!(shallow.code, Some(0), "v{version}: {}", shallow.stderr_tail());
        assert_eq!(guest.count("refs/heads/x"), 1);
        let whole = guest
            .fetch(version, &["--unshallow", &format!("{COMMIT_REF}:refs/heads/x")])
            .await;
        assert_eq!(whole.code, Some(0), "v{version}: {}", whole.stderr_tail());
        assert_eq!(guest.count("refs/heads/x"), 2);
        for foreign in [hidden.as_str(), &blob] {
            let refused = guest.fetch(version, &[foreign]).await;
            assert_ne!(refused.code, Some(0), "v{version} gave {foreign}");
        }
        // Without a client that keeps to the rules.
        let answer = raw_want(port, version, hidden.as_str()).await;
        assert!(answer.contains("not our ref"), "v{version}: {answer}");
        let push = client(
            guest.0.path(),
            &[
                "push",
                &format!("git://127.0.0.1:{port}/repo"),
                "refs/heads/x:refs/heads/y",
            ],
        );
        assert_ne!(push.code, Some(0));
    }
    let (attempt, grant) = world.grant(&second, 1).await;
    let port = serve(&world.source, attempt).await;
    for how in ["--depth=1", "--depth=5", "--update-shallow"] {
        let guest = Guest::new(port);
        let fetched = guest.fetch("2", &[how, &format!("{COMMIT_REF}:refs/heads/x")]).await;
        assert_eq!(fetched.code, Some(0), "{how}: {}", fetched.stderr_tail());
        assert_eq!(guest.count("refs/heads/x"), 1, "{how}");
    }
    let old = client(&grant.path, &["cat-file", "-e", first.as_str()]);
    assert_ne!(old.code, Some(0), "a grant of depth 1 holds older commits");
}

/// A checkout of everything: all branches and tags, and still nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_grant_gives_branches_and_tags_and_nothing_else() {
    let world = World::new();
    world.commit("a", b"1", "First");
    world.git(&["tag", "--annotate", "--message=x", "v1"]);
    world.git(&["branch", "topic/x"]);
    world.git(&["branch", "deleted"]);
    world.git(&["checkout", "--quiet", "deleted"]);
    let deleted = world.commit("secret", b"of a deleted branch", "Deleted");
    world.git(&["checkout", "--quiet", "--detach", "main"]);
    let proposed = world.commit("proposal", b"of a pull request", "Proposed");
    world.git(&["update-ref", "refs/pull/1/head", proposed.as_str()]);
    world.git(&["update-ref", "refs/heads/-odd;touch${IFS}PWNED", "main"]);
    world.git(&["checkout", "--quiet", "main"]);
    let tip = world.commit("b", b"2", "Second");
    for name in ["refs/heads/main", "refs/heads/deleted", "refs/pull/1/head"] {
        world.fetch(name).await.unwrap();
    }
    world.git(&["branch", "--quiet", "-D", "deleted"]);
    let attempt = AttemptId::new();
    let left_out = world.source.fetch_refs(&world.repository, &world.access, attempt).await;
    assert_eq!(left_out.unwrap(), 1, "the odd name");
    let grant = async |depth| {
        let made = world
            .source
            .grant(&world.repository, attempt, &main(), &tip, depth)
            .await;
        made.unwrap()
    };
    let made = grant(0).await;
    assert!(
        !made.path.join("refs/heads/topic").exists(),
        "no foreign name becomes a file"
    );
    let port = serve(&world.source, attempt).await;
    for version in ["0", "1", "2"] {
        let guest = Guest::new(port);
        let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        let fetched = guest.fetch(version, &all).await;
        assert_eq!(fetched.code, Some(0), "v{version}: {}", fetched.stderr_tail());
        let refs = client(guest.0.path(), &["for-each-ref", "--format=%(objecttype) %(refname)"]).text();
        assert_eq!(
            refs.lines().collect::<Vec<_>>(),
            [
                "commit refs/remotes/origin/main",
                "commit refs/remotes/origin/topic/x",
                "tag refs/tags/v1"
            ],
            "v{version}"
        );
        for foreign in [&deleted, &proposed] {
            assert_ne!(
                guest.fetch(version, &[foreign.as_str()]).await.code,
                Some(0),
                "v{version}"
            );
            let answer = raw_want(port, version, foreign.as_str()).await;
            assert!(answer.contains("not our ref"), "v{version}: {answer}");
        }
    }
    // A checkout of one commit has no use for the others, and does not get them.
    let shallow = grant(1).await;
    let held = client(&shallow.path, &["for-each-ref", "--format=%(refname)"]).text();
    assert_eq!(held.lines().collect::<Vec<_>>(), ["refs/heads/main", COMMIT_REF]);
    assert!(!world.folder.path().join("PWNED").exists() && !Path::new("PWNED").exists());
}

/// A request for one object as a machine may write it by hand.
async fn raw_want(port: u16, version: &str, id: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let packet = |text: String| format!("{:04x}{text}", text.len() + 4);
    let hello = packet(format!("git-upload-pack /repo\0host=x\0\0version={version}\0"));
    stream.write_all(hello.as_bytes()).await.unwrap();
    let body = if version == "2" {
        format!(
            "{}0001{}{}0000",
            packet("command=fetch\n".into()),
            packet(format!("want {id}\n")),
            packet("done\n".into())
        )
    } else {
        format!("{}0000{}", packet(format!("want {id}\n")), packet("done\n".into()))
    };
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server closes when it has refused; a reset after its words is as good.
    let _end = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn grants_are_made_again_and_dropped() {
    let world = World::new();
    let first = world.commit("a", b"1", "First");
    let second = world.commit("a", b"2", "Second");
    world.fetch("refs/heads/main").await.unwrap();
    let (attempt, grant) = world.grant(&second, 1).await;
    let marker = grant.path.join("marker");
    std::fs::write(&marker, "").unwrap();
    let again = async |commit, depth| {
        world
            .source
            .grant(&world.repository, attempt, &main(), commit, depth)
            .await
    };
    assert_eq!(again(&second, 1).await.unwrap(), grant);
    assert!(marker.exists(), "the same grant is not made twice");
    // What a crash half-way leaves: a draft, and no grant.
    std::fs::rename(&grant.path, grant.path.with_file_name("grant")).unwrap();
    assert_eq!(again(&second, 1).await.unwrap(), grant);
    assert!(!marker.exists());
    again(&first, 0).await.unwrap();
    assert_eq!(world.source.grants().unwrap(), [attempt]);
    assert!(matches!(
        again(&"e".repeat(40).parse().unwrap(), 1).await,
        Err(SourceError::NoCommit { .. })
    ));
    world.source.drop_grant(attempt).await.unwrap();
    world.source.drop_grant(attempt).await.unwrap();
    assert_eq!(world.source.grants().unwrap(), []);
}

#[tokio::test]
async fn a_commit_that_no_branch_has_any_more_can_be_fetched_again() {
    let world = World::new();
    let first = world.commit("a", b"1", "First");
    world.fetch("refs/heads/main").await.unwrap();
    world.git(&["commit", "--quiet", "--amend", "--message", "Other"]);
    let mirror = world.source.mirror(&world.repository);
    std::fs::remove_dir_all(&mirror).unwrap();
    // What a process that died left in the new mirror's place.
    std::fs::create_dir_all(mirror.join("objects")).unwrap();
    world
        .source
        .fetch_commit(&world.repository, &world.access, &first)
        .await
        .unwrap();
    assert!(world.source.has_commit(&world.repository, &first).await.unwrap());
    let unknown = "d".repeat(40).parse().unwrap();
    let error = world
        .source
        .fetch_commit(&world.repository, &world.access, &unknown)
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::NoCommit { .. }), "{error}");
}

#[tokio::test]
async fn a_stale_lock_does_not_stop_a_mirror_for_ever() {
    let world = World::new();
    world.commit("a", b"1", "First");
    world.fetch("refs/heads/main").await.unwrap();
    let mirror = world.source.mirror(&world.repository);
    let lock = mirror.join("refs/helios/refs").join(format!(
        "{}.lock",
        mirror::own_ref(&"refs/heads/main".parse().unwrap())
            .rsplit('/')
            .next()
            .unwrap()
    ));
    let file = std::fs::File::create(&lock).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60))
        .unwrap();
    let second = world.commit("a", b"2", "Second");
    assert_eq!(world.fetch("refs/heads/main").await.unwrap(), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_and_requests_are_bounded() {
    let world = World::new();
    let commit = world.commit("a", b"1", "First");
    world.fetch("refs/heads/main").await.unwrap();
    let (attempt, _) = world.grant(&commit, 1).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let (near, far) = tokio::io::duplex(4096);
        let source = world.source.clone();
        open.push((near, tokio::spawn(async move { source.serve(far, attempt).await })));
    }
    while world.source.0.connections.lock().unwrap().get(&attempt) != Some(&CONNECTIONS) {
        tokio::task::yield_now().await;
    }
    let (mut near, far) = tokio::io::duplex(4096);
    let refused = world.source.serve(far, attempt).await.unwrap_err().to_string();
    assert!(refused.contains("too many connections"), "{refused}");
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("ERR too many"), "{answer}");
    for (mut near, task) in open {
        near.write_all(b"ffff").await.unwrap();
        let refused = task.await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("not one of git's"), "{refused}");
    }
    assert!(world.source.0.connections.lock().unwrap().is_empty());
    let (mut near, far) = tokio::io::duplex(4096);
    near.write_all(b"0019git-upload-pack /repo").await.unwrap();
    let refused = world.source.serve(far, AttemptId::new()).await.unwrap_err().to_string();
    assert!(refused.contains("no source is granted"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_travels_in_a_header_alone() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            let arguments = running();
            heard
                .send((String::from_utf8_lossy(&request[..n]).into_owned(), arguments))
                .unwrap();
            // A redirect, which must not be followed with the credential.
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://localhost:{port}/x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let access = FetchAccess {
        url: format!("http://127.0.0.1:{port}/o/r.git"),
        authorization: Some(Secret::new("Basic c2VjcmV0")),
    };
    let error = world
        .source
        .fetch(&world.repository, &access, &"refs/heads/main".parse().unwrap())
        .await
        .unwrap_err();
    let (request, arguments) = hear.recv().await.unwrap();
    assert!(
        request.starts_with("GET /o/r.git/info/refs?service=git-upload-pack"),
        "{request}"
    );
    assert!(
        request.to_ascii_lowercase().contains("authorization: basic c2vjcmv0"),
        "{request}"
    );
    assert!(arguments.iter().all(|line| !line.contains("c2VjcmV0")), "{arguments:?}");
    assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error:?}");
    assert!(error.is_retryable());
    assert!(hear.try_recv().is_err(), "the redirect was followed");
}

/// The command lines of all processes, where the system shows them.
fn running() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect()
}
