//! How often a read waits for a Postgres server that is far away.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::*;

/// Passes connections on to a server and counts how often a client began to speak after the server did.
struct Wire {
    port: u16,
    turns: Arc<AtomicUsize>,
}

impl Wire {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                server.set_nodelay(true).unwrap();
                client.set_nodelay(true).unwrap();
                // Whether the server spoke last, on this connection.
                let answered = Arc::new(AtomicUsize::new(1));
                let (asked, turns) = (Arc::clone(&answered), Arc::clone(&counted));
                pass(client.try_clone().unwrap(), server.try_clone().unwrap(), move || {
                    turns.fetch_add(asked.swap(0, Ordering::SeqCst), Ordering::SeqCst);
                });
                pass(server, client, move || answered.store(1, Ordering::SeqCst));
            }
        });
        Self { port, turns }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, heard: impl Fn() + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            heard();
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// The runtime has one thread, so nothing else of the store speaks between the two counts.
#[tokio::test]
async fn a_read_of_one_statement_is_one_round_trip_and_each_more_is_one_more() {
    let Some(url) = Lab::fresh_schema().await else { return };
    let (before, rest) = url.split_once("@").unwrap();
    let (server, path) = rest.split_once('/').unwrap();
    let wire = Wire::to(server.to_owned());
    let url = format!("{before}@127.0.0.1:{}/{path}", wire.port);
    let lab = Lab::of(Store::open(&Database::Postgres(Secret::new(url))).await.unwrap()).await;
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    let trips = async |what: &str| {
        let began = wire.turns.load(Ordering::SeqCst);
        match what {
            "waiting" => drop(lab.store.waiting().await.unwrap()),
            "attempt" => drop(lab.store.attempt(claimed.attempt).await.unwrap().unwrap()),
            "store" => drop(lab.store.create_trigger(&push(1, &sha(1)), "ann").await.unwrap()),
            "version" => drop(lab.store.job_version(claimed.job).await.unwrap().unwrap()),
            _ => drop(lab.store.job(claimed.job).await.unwrap().unwrap()),
        }
        wire.turns.load(Ordering::SeqCst) - began
    };
    let Pool::Postgres { pool, .. } = &lab.store.inner.pool else {
        return;
    };
    for (what, statements, transaction) in [
        ("waiting", 1, 0),
        ("attempt", 1, 0),
        ("version", 1, 0),
        // The server's time and the row, in a transaction that is begun and committed; its hint costs nothing.
        ("store", 2, 2),
        // The job with its plan, its run, its attempts and their steps, in one snapshot.
        ("job", 4, 1),
    ] {
        let settled = async {
            loop {
                // A connection is asked whether it is well when it is given back, for which nobody waits.
                while pool.num_idle() < pool.size() as usize {
                    tokio::task::yield_now().await;
                }
                // More at first: statements are prepared once for each connection.
                let trips = trips(what).await;
                assert!(trips >= statements + transaction, "`{what}` took only {trips}");
                if trips == statements + transaction {
                    break;
                }
            }
        };
        let settled = tokio::time::timeout(crate::deadline::PROMPT, settled).await;
        settled.unwrap_or_else(|_| panic!("`{what}` never takes {statements} + {transaction} round trips"));
    }
}
