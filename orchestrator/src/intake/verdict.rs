//! What a delivery means: read from its body and the configuration alone, so that the answer to a delivery
//! can say at once what the planner decides later.

use crate::{
    config::Config,
    forge::{Forge, Parsed},
    model::{
        names::{ConnectionId, RepoPath},
        trigger::{Repository, Retry},
    },
    store::DeliveryOutcome,
};

/// The verdict on a delivery's body. Pure.
#[must_use]
pub fn verdict(
    forge: Option<&dyn Forge>,
    config: &Config,
    connection: &ConnectionId,
    event: &str,
    body: &[u8],
) -> DeliveryOutcome {
    let not_listed = |reason| DeliveryOutcome::Ignored {
        reason,
        retry: Retry::Automatic,
    };
    let Some(forge) = forge else {
        return DeliveryOutcome::Failed {
            reason: format!("the connection {connection} is no longer configured"),
            retry: Retry::Automatic,
        };
    };
    let Some(webhooks) = forge.webhooks() else {
        return DeliveryOutcome::Failed {
            reason: format!("the forge of connection {connection} sends no webhooks"),
            retry: Retry::OnRequest,
        };
    };
    match webhooks.parse(event, body) {
        Err(error) => DeliveryOutcome::Failed {
            reason: error.to_string(),
            retry: error.retry,
        },
        Ok(Parsed::Ignored(reason)) => DeliveryOutcome::Ignored {
            reason,
            retry: Retry::Never,
        },
        Ok(Parsed::NotServed(reason)) => not_listed(reason),
        Ok(Parsed::Triggers(triggers)) => {
            let (served, others): (Vec<_>, Vec<_>) = triggers.into_iter().partition(|t| serves(config, &t.repository));
            match others.first() {
                Some(other) if served.is_empty() => not_listed(format!(
                    "the repository {} is not in the list of connection {connection}",
                    other.repository.path
                )),
                _ => DeliveryOutcome::Planned(served),
            }
        }
    }
}

/// Whether the configuration lists this repository.
#[must_use]
pub fn serves(config: &Config, repository: &Repository) -> bool {
    let connection = config.connections.get(&repository.connection);
    let same = |path: &RepoPath| path.as_str().eq_ignore_ascii_case(repository.path.as_str());
    connection.is_some_and(|c| c.repositories.is_empty() || c.repositories.iter().any(same))
}

/// The verdict in one sentence, for the log and for the sender.
#[must_use]
pub fn verdict_text(outcome: &DeliveryOutcome) -> String {
    match outcome {
        DeliveryOutcome::Planned(triggers) => {
            let refs: Vec<String> = triggers
                .iter()
                .map(|t| match t.event.commit() {
                    Some(commit) => format!("{} at {}", t.event.ref_name(), commit.short()),
                    None => t.event.ref_name().to_string(),
                })
                .collect();
            format!("to be planned: {}", refs.join(", "))
        }
        DeliveryOutcome::Ignored { reason, retry } => format!("ignored: {reason}{}", remedy(*retry)),
        DeliveryOutcome::Failed { reason, retry } => format!("failed: {reason}{}", remedy(*retry)),
    }
}

fn remedy(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "",
        Retry::OnRequest => "; once this is mended, delivering it again plans it",
        Retry::Automatic => "; once the administrator has mended this, it is planned, or when it is delivered again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_delivers_learns_what_to_do() {
        let ignored = |retry| {
            verdict_text(&DeliveryOutcome::Ignored {
                reason: "not listed".into(),
                retry,
            })
        };
        assert_eq!(ignored(Retry::Never), "ignored: not listed");
        for retry in [Retry::OnRequest, Retry::Automatic] {
            assert!(ignored(retry).contains("mended"), "{}", ignored(retry));
        }
    }
}
