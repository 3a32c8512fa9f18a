//! The program as the demonstration uses it.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use crate::common::call;
use serde_json::{Value, json};

#[tokio::test]
async fn it_says_where_everything_is_and_ends_when_told() {
    let root = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_helios-fakeforge"))
        .args(["--root".as_ref(), root.path().as_os_str()])
        .args(["--private", "--hook-url", "http://127.0.0.1:1/hooks/{kind}"])
        .args(["--repository", "forgejo:acme/app", "--repository", "github:acme/lib"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let token_file = said["files"]["forgejo_token"].as_str().unwrap();
    assert_eq!(
        std::fs::metadata(token_file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let token = format!("token {}", std::fs::read_to_string(token_file).unwrap());
    let url = format!("{}/api/v1/repos/acme/app", said["url"].as_str().unwrap());
    let (status, repository) = call("GET", &url, Some(&token), None).await;
    assert_eq!((status, &repository["id"]), (200, &said["repositories"][0]["id"]));
    assert_eq!(said["repositories"][1]["kind"], json!("github"));
    let pid = program.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(program.wait().unwrap().success());
}
