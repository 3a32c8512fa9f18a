//! The listener. It is hyper itself and not axum's `serve`, because a connection must be able to end
//! without an answer.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use crate::{Error, api, auth::App, delivery, schema::Schemas, state::Shared};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why a connection ends without an answer.
#[derive(Debug)]
struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut off, as ordered")
    }
}

impl std::error::Error for CutOff {}

/// Listens and serves until the guard is dropped.
pub(crate) async fn start(
    listen: SocketAddr,
    root: PathBuf,
    app: App,
    schemas: Option<Schemas>,
    client: reqwest::Client,
) -> Result<(Arc<Shared>, DropGuard), Error> {
    let refused = |source| Error::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let (outgoing, queue) = mpsc::unbounded_channel();
    let shared = Shared::new(format!("http://{address}"), root, app, schemas, outgoing);
    shared.change(|state| state.listening = true);
    let router = api::router(shared.clone());
    let stop = CancellationToken::new();
    let courier = delivery::courier(shared.clone(), queue, client);
    tokio::spawn(stop.clone().run_until_cancelled_owned(courier));
    let accept = serve(shared.clone(), listener, address, router, stop.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
    Ok((shared, stop.drop_guard()))
}

/// Serves whenever the forge is not stopped.
async fn serve(
    shared: Arc<Shared>,
    mut listener: TcpListener,
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    loop {
        let connections = stop.child_token();
        tokio::select! {
            () = accept(&listener, &router, &connections) => {}
            () = shared.until_stopped(true) => {}
        }
        drop(listener);
        connections.cancel();
        let reserved = reserve(address).await;
        shared.change(|state| state.listening = false);
        shared.until_stopped(false).await;
        listener = match reserved.listen(BACKLOG) {
            Ok(listener) => listener,
            // Whoever waits for the forge says so.
            Err(_) => return,
        };
        shared.change(|state| state.listening = true);
    }
}

/// Takes connections.
async fn accept(listener: &TcpListener, router: &Router, connections: &CancellationToken) {
    loop {
        // A connection that broke while it was accepted is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            async move {
                let Ok(response) = router.oneshot(request.map(Body::new)).await;
                match response.extensions().get::<api::Cut>() {
                    Some(_) => Err(CutOff),
                    None => Ok(response),
                }
            }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // Its error is its caller's: a cut or a caller that went away.
        let served = async move { drop(connection.await) };
        tokio::spawn(connections.clone().run_until_cancelled_owned(served));
    }
}

/// Keeps an address without listening there: connections are refused, and nobody who asks for a free port is given it.
async fn reserve(address: SocketAddr) -> TcpSocket {
    loop {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let bound = socket.and_then(|socket| {
            // Connections that were cut would keep it for a while.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        });
        match bound {
            Ok(socket) => return socket,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
