//! Everything that can be wrong with a configuration, tried before anything is started, or stopped for it.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use miette::miette;
use tokio::net::TcpListener;

use super::super::backend;
use crate::{
    cli::report,
    config::{Config, Database},
    forge::{self, ConnectionHealth, Forge},
    machine::Machines,
    model::names::ConnectionId,
    web::http::serve,
};

/// A configuration with what was made of it.
pub(super) struct Ready {
    pub config: Arc<Config>,
    pub forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    pub connections: ConnectionHealth,
    pub machines: Arc<dyn Machines>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub web: ListeningSocket,
    pub metrics: Option<ListeningSocket>,
}

impl Ready {
    /// Makes everything, with the sockets of the configuration before where they stay the same: who connects while
    /// the parts behind are exchanged waits in the kernel's queue.
    pub(super) async fn new(mut config: Config, before: Option<&Self>, allow_unisolated: bool) -> miette::Result<Self> {
        if let Some(before) = before {
            same_daemon(&before.config, &config)?;
        }
        backend::admit(&mut config)?;
        let connections = ConnectionHealth::of(&config.connections);
        let mut forges = HashMap::new();
        for (id, connection) in &config.connections {
            let forge = forge::connect_noting_refusals(id, connection, connections.recheck(id)).map_err(report)?;
            forges.insert(id.clone(), forge);
        }
        let known = |at: SocketAddr| {
            before
                .into_iter()
                .flat_map(|before| [Some(&before.web), before.metrics.as_ref()])
                .flatten()
                .find(move |socket| socket.at == at)
        };
        Ok(Self {
            forges,
            connections,
            machines: backend::machines(&config, allow_unisolated).await?,
            tls: config.tls.as_ref().map(serve::tls_config).transpose().map_err(report)?,
            web: ListeningSocket::open(config.listen, known(config.listen)).await?,
            metrics: match config.metrics_listen {
                Some(at) => Some(ListeningSocket::open(at, known(at)).await?),
                None => None,
            },
            config: Arc::new(config),
        })
    }
}

/// What makes this daemon the one it is cannot change under it.
fn same_daemon(before: &Config, config: &Config) -> miette::Result<()> {
    let database = |config: &Config| match &config.database {
        Database::Sqlite(path) => path.display().to_string(),
        Database::Postgres(url) => url.expose().to_owned(),
    };
    for (key, same) in [
        ("node", before.node == config.node),
        ("data_dir", before.data_dir == config.data_dir),
        ("database", database(before) == database(config)),
    ] {
        if !same {
            return Err(miette!(
                help = "restart the daemon; jobs that run on the old one are lost to the new",
                "`{key}` cannot change while the daemon runs"
            ));
        }
    }
    Ok(())
}

/// A listening socket that outlives the parts which accept from it.
pub(super) struct ListeningSocket {
    at: SocketAddr,
    socket: std::net::TcpListener,
}

impl ListeningSocket {
    async fn open(at: SocketAddr, before: Option<&Self>) -> miette::Result<Self> {
        let cannot = |e: std::io::Error| miette!("cannot listen on {at}: {e}");
        let socket = match before {
            Some(socket) => socket.socket.try_clone(),
            None => TcpListener::bind(at).await.and_then(TcpListener::into_std),
        };
        Ok(Self {
            at,
            socket: socket.map_err(cannot)?,
        })
    }

    /// A listener on it, for as long as somebody accepts.
    pub(super) fn listener(&self) -> miette::Result<TcpListener> {
        self.socket
            .try_clone()
            .and_then(TcpListener::from_std)
            .map_err(|e| miette!("cannot listen on {}: {e}", self.at))
    }
}
