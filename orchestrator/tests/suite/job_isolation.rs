//! What one job may not have of another: its source, its place at the node.

#![allow(clippy::disallowed_methods, reason = "an agent is started as an attacker would")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{self, Machines, World, hold};

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// DESIGN's invariant 8: a mirror's objects are handed out by id over protocol 2, so they must not be there.
#[tokio::test(flavor = "multi_thread")]
async fn no_version_of_git_hands_out_what_was_not_granted() {
    let world = World::start(Machines::Process).await;
    let small = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - uses: actions/checkout@v4\n";
    let foreign = world.push_to(world.github, ".github/workflows/ci.yml", small).await;
    world.wait(&foreign, "success").await;
    let old = world.push(small).await;
    world.wait(&old, "success").await;
    // A commit of the same repository that no branch or tag reaches any more.
    let files = [("other", "x", 0o644), (".forgejo/workflows/ci.yml", small, 0o644)];
    let aside = world
        .forge
        .push(world.repository, "aside", &files, "aside")
        .await
        .unwrap();
    world.wait(&aside, "success").await;
    let deleted = world.forge.update_ref(world.repository, "refs/heads/aside", None);
    deleted.await.unwrap();
    let script = "\
url=$(git config --get remote.origin.url || git config --get-regexp 'url$' | head -1 | cut -d' ' -f2)
          test -n \"$url\" || url=$HELIOS_TEST_URL
          echo \"asking $url\"
          for version in 0 1 2; do
            for commit in FOREIGN ASIDE; do
              rm -rf /tmp/asked.$$; git init -q /tmp/asked.$$
              if git -C /tmp/asked.$$ -c protocol.version=$version fetch -q \"$url\" $commit; then echo \"version $version gave $commit\"; else echo \"version $version refused $commit\"; fi
            done
            git -C /tmp/asked.$$ -c protocol.version=$version fetch -q \"$url\" refs/heads/main || true
            git -C /tmp/asked.$$ -c protocol.version=$version ls-remote \"$url\" | sed \"s/^/version $version lists /\"
            git -C /tmp/asked.$$ -c protocol.version=$version fetch -q \"$url\" $GITHUB_SHA && echo \"version $version gave its own\"
          done
          rm -rf /tmp/asked.$$"
        .replace("FOREIGN", &foreign)
        .replace("ASIDE", &aside);
    let workflow = format!(
        "name: ci\non: push\njobs:\n  job:\n    steps:\n      - uses: actions/checkout@v4\n        with: {{fetch-depth: 0}}\n      - run: |\n          {script}\n"
    );
    // The address is the machine's own; the test reads it beside the machine, a guest from its checkout.
    let gate = world.dir.path().join("url");
    let workflow = workflow.replace(
        "test -n \"$url\" || url=$HELIOS_TEST_URL",
        &format!("until [ -s {0} ]; do sleep 0.05; done; url=$(cat {0})", gate.display()),
    );
    // Those of the jobs before may still be on their way out.
    world.wait_clean();
    let sha = world.push(&workflow).await;
    world.wait_job(&sha, "job", "active");
    let machine = world.machine();
    let spec: Value = serde_json::from_slice(&fs::read(machine.join("spec.json")).unwrap()).unwrap();
    let authority = spec["endpoints"]["git_authority"]
        .as_str()
        .unwrap_or_else(|| panic!("{spec}"));
    fs::write(world.dir.path().join("url.new"), format!("git://{authority}/repo")).unwrap();
    fs::rename(world.dir.path().join("url.new"), &gate).unwrap();
    let job = world.wait_job(&sha, "job", "success");
    let log = world.log(id(&job));
    assert!(
        !log.contains("gave a") && !log.contains(&format!("gave {foreign}")),
        "{log}"
    );
    for version in 0..3 {
        for commit in [&foreign, &aside] {
            assert!(log.contains(&format!("version {version} refused {commit}")), "{log}");
            assert!(!log.contains(&format!("version {version} lists {commit}")), "{log}");
        }
        assert!(log.contains(&format!("version {version} gave its own")), "{log}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// TRUST.md: the seed's token is good for one join by one key.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_lets_nobody_in_twice() {
    let world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let workflow = format!(
        "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: |\n          echo begun\n          until [ -e {} ]; do sleep 0.05; done\n          echo mine\n",
        gate.display()
    );
    let sha = world.push(&workflow).await;
    let job = world.wait_job(&sha, "job", "active");
    world.until("its first line", || {
        world.log_now(id(&job)).contains("begun").then_some(())
    });
    // Another agent with a copy of the seed and a key of its own, at the live endpoint.
    let (stolen, state) = (world.dir.path().join("stolen"), world.dir.path().join("thief"));
    copy(&world.machine().join("seed"), &stolen);
    fs::create_dir(&state).unwrap();
    let file = stolen.join("helios.json");
    let mut seed: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    seed["state_dir"] = state.display().to_string().into();
    fs::write(&file, seed.to_string()).unwrap();
    let thief = Command::new(support::agent())
        .arg("--seed")
        .arg(&stolen)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = thief.wait_with_output().unwrap();
    let words = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success(), "{words}");
    assert!(words.contains("refuses this agent"), "{words}");
    let token = seed["token"].as_str().unwrap();
    assert!(!world.daemon_log().contains(token) && !words.contains(token));
    // The job never noticed.
    fs::write(gate, "").unwrap();
    let job = world.wait_job(&sha, "job", "success");
    assert_eq!(world.log(id(&job)).matches("mine\n").count(), 1);
    assert_eq!(world.detail(id(&job))["attempts"].as_array().unwrap().len(), 1);
    // Afterwards there is nothing to knock at.
    hold::until("the machine is gone", || world.leftovers().is_empty());
}
