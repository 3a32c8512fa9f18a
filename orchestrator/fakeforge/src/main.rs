//! The local forge as a program, for the demonstration: it makes repositories, prints one line of JSON
//! that says where everything is, and serves until it is told to stop.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use helios_fakeforge::{FakeForge, Kind, Options, new_webhook_secret, write_private};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// A small local forge: Forgejo's and GitHub's API over real git. For demonstrations and tests only.
#[derive(Debug, Parser)]
#[command(name = "helios-fakeforge", version)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A new or empty folder for repositories and secrets.
    #[arg(long)]
    root: PathBuf,
    /// A repository to make, as `forgejo:owner/name` or `github:owner/name`.
    #[arg(long = "repository", value_name = "KIND:OWNER/NAME", value_parser = parse_repository)]
    repositories: Vec<(Kind, String)>,
    /// Where webhooks go; `{kind}` becomes `forgejo` or `github`.
    #[arg(long)]
    hook_url: Option<String>,
    /// Repositories may be read only with a token.
    #[arg(long)]
    private: bool,
    /// A folder with the forges' published descriptions, to check every body with.
    #[arg(long)]
    schemas: Option<PathBuf>,
}

fn parse_repository(text: &str) -> Result<(Kind, String), String> {
    match text.split_once(':') {
        Some(("forgejo", path)) => Ok((Kind::Forgejo, path.to_owned())),
        Some(("github", path)) => Ok((Kind::Github, path.to_owned())),
        _ => Err("write `forgejo:owner/name` or `github:owner/name`".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("helios-fakeforge: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                line = format!("{line}: {next}");
                cause = next.source();
            }
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    std::fs::create_dir_all(&args.root)?;
    // CGI programs and git run in other folders, so the root must not depend on ours.
    let root = args.root.canonicalize()?;
    let forge = FakeForge::start(Options {
        root: Some(root.clone()),
        listen: args.listen,
        schemas: args.schemas,
        ..Options::default()
    })
    .await?;
    let file = |name: &str| root.join(name);
    let bot = forge.create_token("helios-ci", true);
    let person = forge.create_token("alice", true);
    let secret = new_webhook_secret();
    write_private(&file("forgejo-token"), &bot)?;
    write_private(&file("person-token"), &person)?;
    write_private(&file("webhook-secret"), &secret)?;
    write_private(&file("github-app.pem"), forge.app_private_key())?;
    let mut repositories = Vec::new();
    for (kind, path) in &args.repositories {
        let id = forge.create_repository(*kind, path, args.private).await?;
        if let Some(url) = &args.hook_url {
            forge.add_hook(id, &url.replace("{kind}", kind.name()), &secret);
        }
        let clone_url = forge.clone_url(id)?;
        repositories.push(json!({"kind": kind.name(), "path": path, "id": id, "clone_url": clone_url}));
    }
    println!(
        "{}",
        json!({
            "url": forge.url(),
            "github_api_url": forge.github_api_url(),
            "app_id": forge.app_id(),
            "repositories": repositories,
            "files": {
                "forgejo_token": file("forgejo-token"), "person_token": file("person-token"),
                "webhook_secret": file("webhook-secret"), "github_private_key": file("github-app.pem"),
            },
        })
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
