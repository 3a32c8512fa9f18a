//! The main job, end to end, whatever the machines are.

use super::World;

const PASSING: &str = "\
name: ci
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    env:
      GREETING: hello
    steps:
      - uses: actions/checkout@v4
      - name: Greet
        run: |
          echo \"$GREETING from $(uname -s)\"
          test \"$(git rev-parse HEAD)\" = \"$GITHUB_SHA\" && echo exact commit
          cat README
  after:
    needs: build
    steps:
      - run: echo second job
";

/// A push becomes machines, logs, and statuses; nothing of it stays. The world is given back.
pub async fn a_push_is_tested(world: World) -> World {
    let sha = world.push(PASSING).await;
    world.wait(&sha, "success").await;
    assert_eq!(
        world.words(&sha, "helios-ci").last().map(String::as_str),
        Some("success")
    );
    let job = world.wait_job(&sha, "build", "success");
    let log = world.log(job["id"].as_str().unwrap());
    assert!(
        log.contains("hello from Linux") && log.contains("exact commit") && log.contains("pushed at"),
        "{log}"
    );
    world.wait_job(&sha, "after", "success");
    assert_eq!(world.forge.violations(), []);
    world.wait_clean();
    world
}
