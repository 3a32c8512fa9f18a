//! `helios-ci token`: works on the database itself, so the first token needs no token.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    cli::{Common, Exit, Outcome, client::json_text},
    clock::now_ms,
    model::ids::TokenId,
    store::{AuditEntry, NewToken, Store, TokenRow},
    web::identity::{ADMIN_SCOPE, new_token, token_hash},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Make a token and print it; it is shown only this once.
    #[command(after_help = "\
Examples:
  helios-ci token create ada
  helios-ci token create --days 7 release-bot > token && chmod 600 token")]
    Create(CreateArgs),
    /// List tokens, never their values.
    #[command(after_help = "Example:\n  helios-ci token list")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token; it stops working at once.
    #[command(after_help = "Example:\n  helios-ci token revoke 01k9zk6x0f5t3b8w2q7m4d1c0e")]
    Revoke {
        /// Its id.
        id: TokenId,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    /// What it is for.
    name: String,
    /// After how many days it expires, a year at most.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
}

/// One row of `token list --json`.
#[derive(Serialize)]
struct Row<'a> {
    id: TokenId,
    name: &'a str,
    owner: &'a str,
    expires_ms: i64,
    revoked: bool,
    scopes: &'a [String],
}

impl<'a> Row<'a> {
    fn of(token: &'a TokenRow) -> Self {
        Self {
            id: token.id,
            name: &token.name,
            owner: &token.owner,
            expires_ms: token.expires_ms,
            revoked: token.revoked,
            scopes: &token.scopes,
        }
    }
}

pub(in crate::cli) async fn run(common: &Common, command: TokenCommand) -> Outcome {
    let config = super::config::load(common)?;
    let store = Store::open(&config.database).await.map_err(crate::cli::report)?;
    let who = format!("uid {}", nix::unistd::getuid());
    let audit = |action: &str, subject: String| AuditEntry {
        who: who.clone(),
        action: action.into(),
        subject,
        evidence: "may write the database".into(),
        request_id: String::new(),
    };
    match command {
        TokenCommand::Create(args) => {
            let token = new_token();
            let Some(hash) = token_hash(token.expose()) else {
                miette::bail!("a token could not be made")
            };
            let expires_ms = now_ms() + i64::from(args.days) * 86_400_000;
            let new = NewToken {
                name: args.name,
                hash,
                owner: who.clone(),
                expires_ms,
                scopes: vec![ADMIN_SCOPE.into()],
            };
            let id = store.create_token(new).await.map_err(crate::cli::report)?;
            store
                .audit(audit("token.create", id.to_string()))
                .await
                .map_err(crate::cli::report)?;
            // The only place that shows a token, to the terminal or pipe of whoever asked for it.
            println!("{}", token.expose());
        }
        TokenCommand::List { json } => {
            let tokens = store.tokens().await.map_err(crate::cli::report)?;
            if json {
                let rows: Vec<_> = tokens.iter().map(Row::of).collect();
                println!("{}", json_text(&rows)?);
            } else {
                for token in tokens {
                    let state = if token.revoked {
                        "revoked"
                    } else if token.expires_ms <= now_ms() {
                        "expired"
                    } else {
                        "valid"
                    };
                    println!("{}  {:<8} {:<12} {}", token.id, state, token.owner, token.name);
                }
            }
        }
        TokenCommand::Revoke { id } => {
            if !store.revoke_token(id).await.map_err(crate::cli::report)? {
                miette::bail!("there is no token {id}, or it was revoked before");
            }
            store
                .audit(audit("token.revoke", id.to_string()))
                .await
                .map_err(crate::cli::report)?;
            println!("revoked {id}");
        }
    }
    store.close().await;
    Ok(Exit::Success)
}
