//! The recipe of the tiny guest where something is missing, and where it puts the guest, with a package manager that is
//! none. What it builds is what all tests with guests boot.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::said;
use crate::support;

/// A copy of the recipe in a project of its own, and programs that are found before the system's.
struct Recipe {
    dir: tempfile::TempDir,
}

impl Recipe {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recipe = Self { dir };
        fs::create_dir_all(recipe.at("images")).unwrap();
        fs::create_dir_all(recipe.at("bin")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/tiny");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(source)
            .arg(recipe.at("images"))
            .status()
            .unwrap();
        assert!(copied.success());
        // It knows no packages.
        recipe.program("apt-cache", "exit 0");
        recipe.program("apt-get", "exit 0");
        recipe
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.at("bin").join(name);
        support::write_program(&path, &format!("#!/bin/sh\n{script}\n"));
    }

    /// A guest that this recipe seems to have built.
    fn built(&self, out: &str, content: &str) {
        let script = r#"
            mkdir -p "$2" && cd "$2" && rm -f * && for file in disk.qcow2 vmlinuz initrd.img; do echo "$3 $file" >$file; done
            chmod 0444 * && sha256sum disk.qcow2 initrd.img vmlinuz >SHA256SUMS
            cd "$1/images/tiny" && find . -type f | sort | LC_ALL=C xargs sha256sum | sha256sum | cut -d' ' -f1 >"$2/recipe"
        "#;
        let mut command = Command::new("sh");
        command.env("LC_ALL", "C").args(["-euc", script, "sh"]);
        let status = command
            .arg(self.dir.path())
            .arg(self.at(out))
            .arg(content)
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn build(&self, args: &[&Path], env: &[(&str, &Path)]) -> (Option<i32>, String, String) {
        let mut command = Command::new(self.at("images/tiny/build.sh"));
        command.args(args).env_clear().envs(env.iter().copied());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.at("bin").display()));
        said(&command.output().unwrap())
    }
}

fn disk(images: &Path) -> String {
    fs::read_to_string(images.join("tiny/disk.qcow2")).unwrap()
}

#[test]
fn the_guest_is_put_where_a_users_programs_find_it() {
    let recipe = Recipe::new();
    let (home, images) = (recipe.at("home"), recipe.at("home/.cache/helios-ci/images"));
    recipe.built("build/images/tiny", "one");
    let (code, out, err) = recipe.build(&[], &[("HOME", &home)]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(disk(&images), "one disk.qcow2\n");
    // The same bytes, which nothing can write to.
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(
        inode(images.join("tiny/vmlinuz")),
        inode(recipe.at("build/images/tiny/vmlinuz"))
    );
    let again = |content: &str| {
        recipe.built("build/images/tiny", content);
        let (code, out, err) = recipe.build(&[], &[("HOME", &home)]);
        assert_eq!(code, Some(0), "{out}{err}");
        assert_eq!(disk(&images), format!("{content} disk.qcow2\n"));
        images.join("tiny").canonicalize().unwrap()
    };
    // Whoever has opened a guest goes on with it when another takes its place, and the one before that goes.
    let first = again("one");
    assert_eq!(again("one"), first);
    let second = again("two");
    assert!(first.join("disk.qcow2").exists() && second != first);
    let third = again("three");
    assert!(!first.exists() && second.exists() && third != second);
    // A damaged one is replaced.
    fs::remove_file(third.join("disk.qcow2")).unwrap();
    assert_eq!(again("three"), third);
    let left: Vec<_> = fs::read_dir(&images)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(
        left.iter().all(|name| !name.as_encoded_bytes().starts_with(b".")),
        "{left:?}"
    );
}

#[test]
fn it_goes_nowhere_else_than_where_it_is_said() {
    let recipe = Recipe::new();
    let (home, xdg, one) = (recipe.at("home"), recipe.at("xdg"), Path::new("1"));
    recipe.built("build/images/tiny", "one");
    recipe.built("elsewhere/tiny", "one");
    let elsewhere = recipe.at("elsewhere/tiny");
    type Call<'a> = (&'a [&'a Path], &'a [(&'a str, &'a Path)]);
    let nothing: &[Call<'_>] = &[
        (&[], &[]),
        (&[], &[("HOME", Path::new("relative"))]),
        (&[], &[("HOME", &home), ("HELIOS_CI_NO_CACHE", one)]),
        (&[&elsewhere], &[("HOME", &home)]),
    ];
    for (args, env) in nothing {
        let (code, out, err) = recipe.build(args, env);
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(
            !home.exists() && !recipe.at("images/tiny/relative").exists(),
            "{args:?} {env:?}"
        );
    }
    let (code, out, err) = recipe.build(&[], &[("HOME", &home), ("XDG_CACHE_HOME", &xdg)]);
    assert!(code == Some(0) && !home.exists(), "{out}{err}");
    assert_eq!(disk(&xdg.join("helios-ci/images")), "one disk.qcow2\n");
    // A cache that cannot be made costs no build.
    let file = recipe.at("file");
    fs::write(&file, "x").unwrap();
    let (code, out, err) = recipe.build(&[], &[("XDG_CACHE_HOME", &file)]);
    assert!(code == Some(0) && out.contains("--guest"), "{out}{err}");
}

#[test]
fn what_is_missing_is_said_all_at_once() {
    let recipe = Recipe::new();
    // Nothing is there but what the recipe needs to say so.
    let bare = recipe.at("bare");
    fs::create_dir(&bare).unwrap();
    for tool in ["dirname", "mke2fs", "dpkg-deb"] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool} || echo /sbin/{tool}")])
            .output()
            .unwrap();
        std::os::unix::fs::symlink(String::from_utf8(found.stdout).unwrap().trim(), bare.join(tool)).unwrap();
    }
    // It adds the system's own folders for administrators, in which cpio and QEMU never are.
    let mut command = Command::new("/bin/sh");
    command
        .arg(recipe.at("images/tiny/build.sh"))
        .env_clear()
        .env("PATH", &bare);
    let (code, _, err) = said(&command.output().unwrap());
    assert_eq!(code, Some(1), "{err}");
    for missing in [
        "apt-get (package apt)",
        "qemu-img (package qemu-utils)",
        "cpio (package cpio)",
        "objdump (package binutils)",
    ] {
        assert!(err.contains(missing), "{missing}: {err}");
    }
    assert!(!err.contains("dpkg-deb"), "{err}");
    // Without lists of packages, and without a network.
    let (code, _, err) = recipe.build(&[], &[]);
    assert!(code == Some(1) && err.contains("run apt-get update"), "{err}");
    recipe.program(
        "apt-cache",
        "echo linux-image-cloud-amd64; echo '  Depends: linux-image-6.1-cloud-amd64'",
    );
    recipe.program(
        "apt-get",
        "case \"$*\" in *--print-uris*) echo \"'http://x/l.deb' l_1_amd64.deb 5 SHA256:0\" ;; *) echo 'W: a warning' >&2
         echo 'E: Could not resolve deb.debian.org' >&2; exit 100 ;; esac",
    );
    let (code, _, err) = recipe.build(&[], &[]);
    assert!(
        code == Some(1) && err.contains("Could not resolve deb.debian.org"),
        "{err}"
    );
    assert!(err.contains("is there a network?"), "{err}");
}

#[test]
fn an_installed_program_builds_it_without_the_source() {
    let recipe = Recipe::new();
    let cache = recipe.at("home/.cache/helios-ci");
    let pull = |cut: Option<&str>| {
        let mut command = Command::new(support::helios_ci());
        command
            .args(["image", "pull-tiny"])
            .env("HOME", recipe.at("home"))
            .env_remove("XDG_CACHE_HOME");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", recipe.at("bin").display()));
        if let Some(name) = cut {
            command.env_remove(name);
        }
        said(&command.output().unwrap())
    };
    let (code, out, err) = pull(None);
    assert!(
        code == Some(2) && err.contains("run apt-get update") && err.contains("was not built"),
        "{out}{err}"
    );
    let (code, _, err) = pull(Some("HOME"));
    assert!(code == Some(2) && err.contains("XDG_CACHE_HOME"), "{err}");
    // The recipe that it carries is the one of the source, so this counts as built by it.
    recipe.built("home/.cache/helios-ci/build/tiny", "one");
    let (code, out, err) = pull(None);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(disk(&cache.join("images")), "one disk.qcow2\n");
    assert!(out.contains("helios-ci run"), "{out}");
}
