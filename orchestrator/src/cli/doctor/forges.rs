//! The forges: whether they answer and accept us.

use std::time::Duration;

use super::{Findings, Line};
use crate::{config::Config, driver::chain, forge};

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    for (id, connection) in &config.connections {
        let name = format!("connection {id}");
        let hook = format!("{}/hooks/{id}", config.public_url);
        let forge = match forge::connect(id, connection) {
            Ok(forge) => forge,
            Err(error) => {
                findings.add(Line::failure(name, chain(&error), "repair the connection's settings"));
                continue;
            }
        };
        findings.add(match tokio::time::timeout(PATIENCE, forge.check()).await {
            Ok(Ok(words)) => Line::ok(name, format!("{} answers: {words}; webhook {hook}", connection.url)),
            Ok(Err(error)) => Line::failure(name, chain(&error), "check address, network and credential"),
            Err(_) => Line::failure(
                name,
                format!("{} gave no answer within {} s", connection.url, PATIENCE.as_secs()),
                "check address, network and proxy",
            ),
        });
    }
}
