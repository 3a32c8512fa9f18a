//! `helios-ci login-link`: works on the database itself, so whoever may write it needs no token to log in.

use clap::Args;

use crate::{
    cli::{Common, Exit, Outcome},
    clock::now_ms,
    store::{AuditEntry, NewToken, Store},
    web::identity::{LOGIN_SCOPE, new_token, token_hash},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  helios-ci login-link\n  helios-ci login-link --minutes 2")]
pub(in crate::cli) struct LoginLinkArgs {
    /// For how many minutes it can be used, ten at most.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10))]
    minutes: u32,
}

pub(in crate::cli) async fn run(common: &Common, args: &LoginLinkArgs) -> Outcome {
    let config = super::config::load(common)?;
    let store = Store::open(&config.database).await.map_err(crate::cli::report)?;
    let who = format!("uid {}", nix::unistd::getuid());
    let code = new_token();
    let Some(hash) = token_hash(code.expose()) else {
        miette::bail!("a code could not be made")
    };
    let new = NewToken {
        name: "login link".into(),
        hash,
        owner: who.clone(),
        expires_ms: now_ms() + i64::from(args.minutes) * 60_000,
        scopes: vec![LOGIN_SCOPE.into()],
    };
    let id = store.create_token(new).await.map_err(crate::cli::report)?;
    let entry = AuditEntry {
        who,
        action: "login_link.create".into(),
        subject: id.to_string(),
        evidence: "may write the database".into(),
        request_id: String::new(),
    };
    store.audit(entry).await.map_err(crate::cli::report)?;
    // The only place that shows the code, to the terminal or pipe of whoever asked for it.
    println!("{}/login#{}", config.public_url.trim_end_matches('/'), code.expose());
    eprintln!("works once, for {} minutes", args.minutes);
    store.close().await;
    Ok(Exit::Success)
}
