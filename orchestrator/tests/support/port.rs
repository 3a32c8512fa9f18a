//! Ports of this host that a test gives to a program before that program listens there.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port that nobody else who asks for a free one is given while this lives, also between two lives of the program that
/// listens there: a socket that is bound and does not listen keeps it, and whoever allows the reuse of addresses may
/// listen beside it.
pub struct Port(TcpSocket);

impl Port {
    /// Any that is free.
    pub fn reserve() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("its option");
        socket
            .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .expect("a free port");
        Self(socket)
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.0.local_addr().expect("its address").port()
    }
}
