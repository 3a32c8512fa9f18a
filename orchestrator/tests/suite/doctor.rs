//! `helios-ci doctor` on healthy and on broken installations.

#![allow(clippy::disallowed_methods, reason = "databases are broken as a person could")]

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::Value;

use crate::support::{self, Machines, World};

/// Exit code and lines.
fn doctor(world: &World) -> (Option<i32>, Vec<Value>) {
    let output = world.cli(&["doctor", "--json"]);
    let lines = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)));
    (output.status.code(), lines)
}

fn of<'l>(lines: &'l [Value], name: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["name"] == name).collect()
}

/// The one failure of this name, with the words of it and of its cure.
fn fails(world: &World, name: &str) -> String {
    let (code, lines) = doctor(world);
    assert_eq!(code, Some(1), "{lines:#?}");
    let failed = of(&lines, name).into_iter().find(|line| line["status"] == "failure");
    let failed = failed.unwrap_or_else(|| panic!("{name} did not fail: {lines:#?}"));
    assert!(failed["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{failed}");
    format!(
        "{} → {}",
        failed["detail"].as_str().unwrap(),
        failed["fix"].as_str().unwrap()
    )
}

/// A daemon with a disk that exists, because process machines use none.
async fn healthy() -> World {
    let world = World::stopped(Machines::Process, "").await;
    let disk = world.dir.path().join("disk.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&disk)
        .arg("1M")
        .status();
    assert!(made.unwrap().success());
    let text = fs::read_to_string(world.config()).unwrap();
    let text = text.replace("/nonexistent/not-used-by-processes.qcow2", &disk.display().to_string());
    fs::write(world.config(), text).unwrap();
    fs::set_permissions(world.data(), fs::Permissions::from_mode(0o700)).unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_node_has_no_failure_with_and_without_its_daemon() {
    let mut world = healthy().await;
    for running in [false, true] {
        let (code, lines) = doctor(&world);
        assert_eq!(code, Some(0), "{lines:#?}");
        for name in [
            "data directory",
            "database",
            "disk",
            "listen",
            "git",
            "clock",
            "connection local",
            "connection octo",
        ] {
            let found = of(&lines, name);
            assert!(
                found.iter().all(|line| line["status"] != "failure") && !found.is_empty(),
                "{name}: {lines:#?}"
            );
        }
        let detail = of(&lines, "data directory")[0]["detail"].as_str().unwrap();
        assert_eq!(detail.ends_with("a daemon runs here"), running, "{detail}");
        if !running {
            world.up();
        }
    }
    let text = world.cli(&["doctor"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("ok       git: git version") && text.contains("→"),
        "{text}"
    );
    for secret in ["hook", "forgejo-token"] {
        let secret = fs::read_to_string(world.dir.path().join(secret)).unwrap();
        assert!(!text.contains(secret.trim()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_named_with_its_cure() {
    let world = healthy().await;
    let good = fs::read_to_string(world.config()).unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        fs::write(world.config(), good.replacen(from, to, 1)).unwrap();
    };

    with("listen: 127.0.0.1", "lissten: 127.0.0.1");
    assert!(fails(&world, "configuration").contains("config check"));

    let agent = support::agent().display().to_string();
    with(&agent, "/nonexistent/agent");
    assert!(fails(&world, "agent").contains("/nonexistent/agent"));

    let disk = world.dir.path().join("disk.qcow2").display().to_string();
    with(&disk, "/nonexistent/disk.qcow2");
    assert!(fails(&world, "image tiny").contains("image import"));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = world.url().rsplit(':').next().unwrap().to_owned();
    with(
        &format!("listen: 127.0.0.1:{port}"),
        &format!("listen: {}", taken.local_addr().unwrap()),
    );
    assert!(fails(&world, "listen").contains("another program"));

    // A forge that is not there, and one that does not know the token.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    with(&format!("url: {}", world.forge.url()), &format!("url: http://{closed}"));
    fails(&world, "connection local");
    fs::write(world.config(), &good).unwrap();
    let token = fs::read_to_string(world.dir.path().join("forgejo-token")).unwrap();
    world.forge.revoke_token(token.trim());
    assert!(!fails(&world, "connection local").contains(token.trim()));
    world.forge.add_token("helios-ci", true, token.trim());

    let ahead = world.dir.path().join("ahead");
    fs::write(&ahead, "600000").unwrap();
    let told = world
        .command(&["doctor"])
        .env("HELIOS_CI_CLOCK_SHIFT", &ahead)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("warning  clock: this host is ") && told.contains(" s ahead of http"),
        "{told}"
    );

    fs::set_permissions(world.data(), fs::Permissions::from_mode(0o750)).unwrap();
    assert!(fails(&world, "data directory").contains("chmod 0700"));
    fs::set_permissions(world.data(), fs::Permissions::from_mode(0o700)).unwrap();

    fs::write(
        world.config(),
        format!("{good}limits: {{min_free_bytes: {}}}\n", 1_u64 << 45),
    )
    .unwrap();
    assert!(fails(&world, "disk").contains("make room"));
    fs::write(world.config(), &good).unwrap();
    assert_eq!(doctor(&world).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listed_repository_has_a_line_that_names_the_right_that_is_missing() {
    let world = healthy().await;
    let (_, lines) = doctor(&world);
    let local = of(&lines, "connection local")[0]["detail"].as_str().unwrap();
    assert!(local.contains("no `repositories` are listed"), "{local}");
    let text = fs::read_to_string(world.config()).unwrap();
    let text = text.replacen(
        "    public: [ada/engine]\n",
        "    public: [ada/engine]\n    repositories: [ada/engine, ada/none]\n",
        1,
    );
    let text = text.replacen("  octo:\n", "  octo:\n    repositories: [octo/engine, octo/none]\n", 1);
    fs::write(world.config(), text).unwrap();
    let none = fails(&world, "repository ada/none of local");
    assert!(
        none.contains("it does not exist, or `helios-ci` may not see it")
            && none.ends_with("add `helios-ci` as a collaborator with write access to ada/none"),
        "{none}"
    );
    let none = fails(&world, "repository octo/none of octo");
    assert!(none.contains("not installed on it → install the App"), "{none}");
    let (_, lines) = doctor(&world);
    for name in ["repository ada/engine of local", "repository octo/engine of octo"] {
        let found = of(&lines, name)[0];
        assert_ne!(found["status"], "failure", "{found}");
        assert!(
            found["detail"].as_str().unwrap().contains("has the rights it needs"),
            "{found}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_whose_own_actions_would_take_the_workflows_is_a_warning_until_they_are_off() {
    let world = healthy().await;
    let (all, listed) = ("    public: [ada/engine]\n", "    repositories: [ada/engine]\n");
    let text = fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(all), "{text}");
    fs::write(world.config(), text.replacen(all, listed, 1)).unwrap();
    for (has_actions, status) in [(true, "warning"), (false, "ok"), (true, "warning")] {
        world.forge.set_has_actions(world.repository, has_actions).unwrap();
        let (code, lines) = doctor(&world);
        // A warning fails nothing.
        assert_eq!(code, Some(0), "{lines:#?}");
        let line = of(&lines, "repository ada/engine of local")[0];
        assert_eq!(line["status"], status, "{line}");
        let detail = line["detail"].as_str().unwrap();
        assert_eq!(detail.contains("the forge's own Actions are on"), has_actions, "{line}");
        let fix = line["fix"].as_str().unwrap_or_default();
        assert_eq!(
            fix.contains("keep workflows in `.helios/workflows`"),
            has_actions,
            "{line}"
        );
    }
}

/// `PATH` with a git in front that only tells its version.
fn path_with_git(world: &World, version: &str) -> String {
    let dir = world.dir.path().join("git");
    fs::create_dir_all(&dir).unwrap();
    support::write_program(&dir.join("git"), &format!("#!/bin/sh\necho 'git version {version}'\n"));
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_that_ignores_where_its_credential_is_runs_nothing() {
    let world = healthy().await;
    for (version, too_old) in [("2.31.8", true), ("2.32.0", false)] {
        let path = path_with_git(&world, version);
        let told = world
            .command(&["doctor", "--json"])
            .env("PATH", &path)
            .output()
            .unwrap();
        let lines: Vec<Value> = serde_json::from_slice(&told.stdout).unwrap();
        let line = of(&lines, "git")[0];
        let status = if too_old { "failure" } else { "ok" };
        assert_eq!(line["status"], status, "{line}");
        assert!(line["detail"].as_str().unwrap().contains(version), "{line}");
        assert_eq!(
            line["fix"].as_str().is_some_and(|fix| fix.contains("2.32")),
            too_old,
            "{line}"
        );
        assert_eq!(told.status.code(), Some(i32::from(too_old)));
    }
    let path = path_with_git(&world, "2.31.8");
    for command in [["serve", "--allow-unisolated"], ["run", "--allow-unisolated"]] {
        let refused = world.command(&command).env("PATH", &path).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains("2.31.8") && said.contains("2.32"), "{command:?}: {said}");
    }
    assert!(
        !world.data().join("daemon.lock").exists(),
        "nothing is begun before git is seen"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_later_version_or_a_damaged_one_is_named_and_left_alone() {
    let world = healthy().await;
    let path = world.data().join("helios-ci.db");
    let (_, lines) = doctor(&world);
    assert!(
        of(&lines, "database")[0]["detail"]
            .as_str()
            .unwrap()
            .contains("schema 10"),
        "{lines:#?}"
    );
    let whole = fs::read(&path).unwrap();

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("INSERT INTO schema_versions (version, applied_ms) VALUES (999, 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    assert!(fails(&world, "database").contains("schema 999"));

    let mut damaged = whole;
    for byte in &mut damaged[100..4000] {
        *byte = 0xa5;
    }
    fs::write(&path, &damaged).unwrap();
    for side in ["db-wal", "db-shm"] {
        let _absent = fs::remove_file(path.with_extension(side));
    }
    fails(&world, "database");
    assert_eq!(fs::read(&path).unwrap(), damaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_others_can_enter_is_one_verdict_everywhere() {
    let world = healthy().await;
    fs::set_permissions(world.data(), fs::Permissions::from_mode(0o755)).unwrap();
    let verdict = "has mode 0755: others can read the logs and keys in it";
    let found = fails(&world, "data directory");
    assert!(found.contains(verdict) && found.contains("→ chmod 0700 /"), "{found}");
    for command in [&["config", "check"][..], &["serve", "--allow-unisolated"]] {
        let refused = world.cli(command);
        let said = String::from_utf8_lossy(&refused.stderr).replace(['│', '\n'], " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {said}");
        assert!(
            said.contains(verdict) && said.contains("chmod 0700 /"),
            "{command:?}: {said}"
        );
    }
    let mode = fs::metadata(world.data()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755, "nobody changes it");
    fs::set_permissions(world.data(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(world.cli(&["config", "check"]).status.success());
    assert_eq!(doctor(&world).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_and_the_daemon_say_the_same_of_kvm() {
    let mut world = World::stopped(Machines::Qemu, "").await;
    let verdict = |world: &World| {
        let (_, lines) = doctor(world);
        of(&lines, "kvm")[0]["detail"].as_str().unwrap().to_owned()
    };
    verdict(&world);
    assert!(!world.data().join("accel.json").exists(), "the doctor leaves nothing");
    world.up();
    // What the daemon remembers; a trial of its own may end otherwise on a machine that is busy.
    let said = verdict(&world);
    assert!(world.daemon_log().contains(&said), "{said}\n{}", world.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_forge_refuses_is_a_state_of_the_connection_and_ends() {
    let mut world = healthy().await;
    let token = fs::read_to_string(world.dir.path().join("forgejo-token")).unwrap();
    let token = token.trim().to_owned();
    let local = |world: &World| {
        let status = world.get("/api/v1/status");
        let all = status["details"]["connections"].as_array().unwrap();
        let found = all.iter().find(|c| c["name"] == "local").unwrap().clone();
        (status["state"].clone(), found)
    };
    let is = |world: &World, word: &str| {
        world.until(&format!("the connection is {word}"), || {
            let (_, connection) = local(world);
            (connection["state"] == word).then_some(())
        });
    };
    // The daemon starts, and says what the doctor says.
    world.forge.revoke_token(&token);
    world.up();
    is(&world, "refused");
    let (state, connection) = local(&world);
    assert_eq!(state, "degraded");
    let words = connection["detail"].as_str().unwrap();
    assert!(fails(&world, "connection local").contains(words), "{words}");
    assert!(
        world.daemon_log().contains("the connection is refused"),
        "{}",
        world.daemon_log()
    );
    // It ends by itself when the forge takes the token.
    world.forge.add_token("helios-ci", true, &token);
    is(&world, "working");
    world.until("its log says so", || {
        world.daemon_log().contains("the connection works again").then_some(())
    });
    assert_eq!(local(&world).0, "ready");
    // A call that is refused is enough to look at once, long before the timer.
    world.forge.revoke_token(&token);
    world
        .push("name: ci\non: push\njobs:\n  a:\n    steps:\n      - run: echo\n")
        .await;
    is(&world, "refused");
    // A new configuration is asked at once, too.
    let other = world.forge.create_token("helios-ci", true);
    fs::write(world.dir.path().join("forgejo-token"), other).unwrap();
    world.signal(nix::sys::signal::Signal::SIGHUP);
    is(&world, "working");
    assert_eq!(world.down(), Some(0));
    assert!(!world.daemon_log().contains(&token), "no secret is in the log");
}
