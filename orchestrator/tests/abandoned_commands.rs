//! Commands that nobody waits for any more. A file of its own: what is tried here is decided once for a whole process.

#[path = "support/deadline.rs"]
mod deadline;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use helios_ci::exec::{self, Cmd};

async fn appears(path: &Path) {
    let until = Instant::now() + deadline::PROMPT;
    while !path.exists() {
        assert!(Instant::now() < until, "never: {}", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Begins a command, gives it up in the middle, and returns its process id and how it can be let go on.
async fn given_up(dir: &Path) -> u32 {
    fs::create_dir(dir).unwrap();
    let script = "echo $$ > begun.new; mv begun.new begun; until test -e go; do sleep 0.01; done; touch done";
    let command = Cmd::new("/bin/sh").args(["-c", script]).cwd(dir);
    let running = tokio::spawn(async move { command.run().await });
    appears(&dir.join("begun")).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    fs::read_to_string(dir.join("begun")).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn what_nobody_waits_for_is_ended_until_all_is_to_be_finished() {
    let dir = tempfile::tempdir().unwrap();
    let (ended, finished) = (dir.path().join("ended"), dir.path().join("finished"));
    let pid = given_up(&ended).await;
    let until = Instant::now() + deadline::PROMPT;
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < until, "it was not ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!ended.join("done").exists());

    exec::finish_commands();
    given_up(&finished).await;
    fs::write(finished.join("go"), "").unwrap();
    appears(&finished.join("done")).await;
}
