//! From a configured connection to its adapter: the only place that knows all of them.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Notify;

use super::{
    Forge,
    forgejo::Forgejo,
    github::{self, Github},
    http::{BadTarget, Outgoing},
    push::Served,
};
use crate::{
    config::{Connection, ConnectionKind},
    model::names::ConnectionId,
};

/// A connection that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Its address.
    #[error("connection {connection} has an address that cannot be used")]
    Target {
        /// Which.
        connection: ConnectionId,
        /// Why.
        #[source]
        source: BadTarget,
    },
    /// Its App key.
    #[error("connection {connection} has an App key that cannot be used")]
    Key {
        /// Which.
        connection: ConnectionId,
        /// Why.
        #[source]
        source: github::BadKey,
    },
    /// Its token.
    #[error(
        "connection {connection} has a token with characters that no token has: check the file it is read from for line ends"
    )]
    Token {
        /// Which.
        connection: ConnectionId,
    },
}

/// The adapter of a connection. Needs a running tokio runtime; contacts nobody.
///
/// # Errors
/// When an address, key or token cannot be used.
pub fn connect(id: &ConnectionId, connection: &Connection) -> Result<Arc<dyn Forge>, ConnectError> {
    connect_noting_refusals(id, connection, Arc::default())
}

/// As [`connect`]; `refused` is notified when the forge answers 401 to any call.
///
/// # Errors
/// As [`connect`].
pub fn connect_noting_refusals(
    id: &ConnectionId,
    connection: &Connection,
    refused: Arc<Notify>,
) -> Result<Arc<dyn Forge>, ConnectError> {
    let served = Served {
        connection: id.clone(),
        repositories: connection.repositories.clone(),
    };
    let outgoing = |url: &str| {
        let outgoing = Outgoing::new(url, connection.allow_private).map_err(|source| ConnectError::Target {
            connection: id.clone(),
            source,
        })?;
        Ok(outgoing.notifying_when_refused(Arc::clone(&refused)))
    };
    Ok(match &connection.kind {
        ConnectionKind::Forgejo { token } => Arc::new(Forgejo::new(
            served,
            &connection.url,
            outgoing(&connection.url)?,
            token,
        )?),
        ConnectionKind::Github {
            api_url,
            app_id,
            private_key,
        } => Arc::new(Github::new(
            served,
            &connection.url,
            outgoing(api_url)?,
            *app_id,
            private_key,
        )?),
    })
}

/// What may stand in a path as it is.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One part of a path.
pub(super) fn encode_part(part: &str) -> String {
    utf8_percent_encode(part, &PLAIN).to_string()
}

/// A ref or branch name, whose slashes stay. Its parts are checked: none begins with a dot.
pub(super) fn encode_ref(name: &str) -> String {
    name.split('/').map(encode_part).collect::<Vec<_>>().join("/")
}
