//! Both ends over a real socket, with a back end that a test can hold.

mod fuzz;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use helios_proto::machine::{self as message, machined_client::MachinedClient};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{net::UnixStream, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Callers, MachinedError, connect, serve, wire};
use crate::{
    deadline,
    machine::{
        Console, Endpoints, ListenAt, MachineError, MachineSpec, Machines, Observed, Operation, OwnedMachine, Seed,
    },
    model::{ids::AttemptId, names::MachineName},
    secret::Secret,
};

/// A back end that waits, fails and counts as it is told.
#[derive(Debug, Default)]
struct Held {
    go_on: Notify,
    began: Notify,
    ended: AtomicUsize,
    died: Notify,
    typed: std::sync::Mutex<Vec<Vec<u8>>>,
}

#[async_trait]
impl Machines for Held {
    fn backend(&self) -> &'static str {
        "qemu"
    }
    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError> {
        assert_eq!(spec.seed.token.expose(), "t0ken");
        Ok(endpoints())
    }
    async fn endpoints(&self, _: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        Ok(None)
    }
    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        Err(error(Operation::Start, name, "no such image", false))
    }
    async fn console(&self, _: &MachineName, from: u64) -> Result<Console, MachineError> {
        Ok(Console {
            bytes: vec![0, 255, b'x'],
            next: from + 3,
        })
    }
    async fn stop(&self, name: &MachineName, grace: Duration) -> Result<(), MachineError> {
        Err(error(
            Operation::Stop,
            name,
            &format!("grace {}", grace.as_millis()),
            true,
        ))
    }
    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        Err(error(Operation::Keep, name, "a process cannot be kept", false))
    }
    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        self.typed.lock().unwrap().push(bytes.to_vec());
        if bytes == b"again" {
            return Err(error(Operation::Write, name, "the guest does not read", true));
        }
        Ok(())
    }
    async fn release_console(&self, _: &MachineName) -> Result<(), MachineError> {
        Ok(())
    }
    async fn destroy(&self, _: &MachineName) -> Result<(), MachineError> {
        self.began.notify_one();
        self.go_on.notified().await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn observe(&self, _: &MachineName) -> Result<Observed, MachineError> {
        Ok(Observed::Stopped("bhyve failed".into()))
    }
    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError> {
        Ok((0..3000)
            .map(|_| OwnedMachine {
                name: MachineName::of(AttemptId::new()),
                observed: Observed::Running,
            })
            .collect())
    }
    async fn wait_stopped(&self, _: &MachineName) -> Result<Observed, MachineError> {
        self.began.notify_one();
        self.died.notified().await;
        Ok(Observed::Absent)
    }
}

fn error(operation: Operation, name: &MachineName, reason: &str, retryable: bool) -> MachineError {
    MachineError {
        operation,
        machine: name.to_string(),
        reason: reason.into(),
        retryable,
    }
}

fn endpoints() -> Endpoints {
    Endpoints {
        agent: ListenAt::Slot {
            address: "10.77.0.1:9417".parse().unwrap(),
            guest: "10.77.0.2".parse().unwrap(),
        },
        git: ListenAt::Tcp("10.0.0.1:9418".parse().unwrap()),
        git_authority: "10.0.0.1:9418".into(),
        home: "/work".into(),
    }
}

fn spec() -> MachineSpec {
    MachineSpec {
        name: MachineName::of(AttemptId::new()),
        node: "n1".parse().unwrap(),
        image: "tiny".parse().unwrap(),
        cpus: 1,
        memory_mib: 256,
        disk_gib: Some(2),
        seed: Seed {
            fingerprint: "ab".repeat(32),
            token: Secret::new("t0ken"),
            time_ms: 1,
        },
    }
}

struct Room {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    held: Arc<Held>,
    stop: CancellationToken,
    served: JoinHandle<Result<bool, MachinedError>>,
}

impl Room {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("machined.sock");
        let held = Arc::new(Held::default());
        let stop = CancellationToken::new();
        let served = run(&held, &socket, &stop);
        let room = Self {
            _dir: dir,
            socket,
            held,
            stop,
            served,
        };
        room.client().await;
        room
    }

    async fn client(&self) -> Arc<dyn Machines> {
        connect(&self.socket, &"n1".parse().unwrap()).await.unwrap()
    }
}

fn run(
    held: &Arc<Held>,
    socket: &std::path::Path,
    stop: &CancellationToken,
) -> JoinHandle<Result<bool, MachinedError>> {
    let (held, socket, stop) = (Arc::clone(held), socket.to_owned(), stop.clone());
    tokio::spawn(async move {
        serve(
            held,
            "n1".parse().unwrap(),
            &socket,
            Callers { user: None },
            stop,
            deadline::PROMPT,
        )
        .await
    })
}

#[tokio::test]
async fn every_call_travels_and_its_failure_too() {
    let room = Room::open().await;
    let (machines, spec) = (room.client().await, spec());
    let name = &spec.name;
    assert_eq!(machines.backend(), "qemu");
    assert_eq!(machines.prepare(&spec).await.unwrap(), endpoints());
    assert_eq!(machines.endpoints(name).await.unwrap(), None);
    let console = machines.console(name, 7).await.unwrap();
    assert_eq!((console.bytes, console.next), (vec![0, 255, b'x'], 10));
    assert_eq!(
        machines.observe(name).await.unwrap(),
        Observed::Stopped("bhyve failed".into())
    );
    assert_eq!(machines.list().await.unwrap().len(), 3000);

    let failed = machines.start(name).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        format!("cannot start machine {name}: no such image")
    );
    assert!(!failed.retryable);
    let failed = machines.stop(name, Duration::from_millis(1500)).await.unwrap_err();
    assert_eq!((failed.reason.as_str(), failed.retryable), ("grace 1500", true));
}

#[tokio::test]
async fn what_is_typed_arrives_once_whatever_becomes_of_it() {
    let room = Room::open().await;
    let (machines, name) = (room.client().await, &spec().name);
    machines.write_console(name, b"").await.unwrap();
    machines.write_console(name, &[0, 255, b'\r']).await.unwrap();
    let failed = machines.write_console(name, b"again").await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        format!("cannot write to the console of machine {name}: the guest does not read")
    );
    let long = machines.write_console(name, &[b'x'; 4097]).await.unwrap_err();
    assert!(
        long.reason.contains("more than 4096 bytes") && !long.retryable,
        "{long}"
    );
    assert_eq!(
        *room.held.typed.lock().unwrap(),
        [b"".to_vec(), vec![0, 255, b'\r'], b"again".to_vec()]
    );
    machines.release_console(name).await.unwrap();
    let failed = machines.keep(name).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        format!("cannot keep machine {name}: a process cannot be kept")
    );
    assert!(!failed.retryable);
    // With machined away nothing is asked a second time.
    room.stop.cancel();
    room.served.await.unwrap().unwrap();
    tokio::time::timeout(deadline::PROMPT, machines.write_console(name, b"lost"))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(room.held.typed.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn an_operation_ends_although_its_caller_is_gone() {
    let room = Room::open().await;
    let (machines, name) = (room.client().await, spec().name);
    let caller = tokio::spawn(async move { machines.destroy(&name).await });
    room.held.began.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    // The stop waits for it as well.
    room.stop.cancel();
    room.held.go_on.notify_one();
    tokio::time::timeout(deadline::PROMPT, room.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(room.held.ended.load(Ordering::SeqCst), 1);
    assert!(!room.socket.exists());
}

#[tokio::test]
async fn a_restart_of_machined_is_not_the_end_of_a_machine() {
    let room = Room::open().await;
    let (machines, name) = (room.client().await, spec().name);
    let waiting = tokio::spawn({
        let (machines, name) = (Arc::clone(&machines), name.clone());
        async move { machines.wait_stopped(&name).await }
    });
    room.held.began.notified().await;
    room.stop.cancel();
    room.served.await.unwrap().unwrap();
    // Asked while nobody is there; answered by the next one.
    let asking = tokio::spawn({
        let (machines, name) = (Arc::clone(&machines), name.clone());
        async move { machines.observe(&name).await }
    });
    tokio::task::yield_now().await;
    let stop = CancellationToken::new();
    let served = run(&room.held, &room.socket, &stop);
    let observed = tokio::time::timeout(deadline::PROMPT, asking)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(observed, Observed::Stopped("bhyve failed".into()));
    room.held.began.notified().await;
    assert!(!waiting.is_finished());
    room.held.died.notify_one();
    assert_eq!(
        tokio::time::timeout(deadline::PROMPT, waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap(),
        Observed::Absent
    );
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_node_is_told_so_and_a_second_machined_too() {
    let room = Room::open().await;
    let wrong = connect(&room.socket, &"n2".parse().unwrap()).await.unwrap_err();
    assert!(wrong.to_string().contains("keeps the machines of node `n1`"), "{wrong}");
    let second = run(&room.held, &room.socket, &CancellationToken::new()).await.unwrap();
    assert!(matches!(second, Err(MachinedError::Busy(_))), "{second:?}");
    // What lies there and is no socket is left alone.
    let file = room.socket.with_extension("txt");
    std::fs::write(&file, "mine").unwrap();
    let third = run(&room.held, &file, &CancellationToken::new()).await.unwrap();
    assert!(matches!(third, Err(MachinedError::Listen { .. })), "{third:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn values_are_parsed_again_at_the_door() {
    let room = Room::open().await;
    let path = room.socket.clone();
    let channel = tonic::transport::Endpoint::from_static("http://x")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .unwrap();
    let mut client = MachinedClient::new(channel);
    let good = wire::spec_to_wire(&spec());
    client.prepare(good.clone()).await.unwrap();
    let seed = good.seed.clone().unwrap();
    let bad = [
        message::PrepareRequest {
            name: "hci-../../etc".into(),
            ..good.clone()
        },
        message::PrepareRequest {
            node: "n2".into(),
            ..good.clone()
        },
        message::PrepareRequest {
            image: "a/b".into(),
            ..good.clone()
        },
        message::PrepareRequest {
            cpus: 0,
            ..good.clone()
        },
        message::PrepareRequest {
            memory_mib: u64::MAX,
            ..good.clone()
        },
        message::PrepareRequest {
            disk_gib: Some(0),
            ..good.clone()
        },
        message::PrepareRequest {
            seed: None,
            ..good.clone()
        },
        message::PrepareRequest {
            seed: Some(message::Seed {
                fingerprint: "AB".repeat(32),
                ..seed.clone()
            }),
            ..good.clone()
        },
        message::PrepareRequest {
            seed: Some(message::Seed {
                token: "a b".into(),
                ..seed.clone()
            }),
            ..good.clone()
        },
        message::PrepareRequest {
            seed: Some(message::Seed {
                token: "x".repeat(257),
                ..seed
            }),
            ..good
        },
    ];
    for request in bad {
        let status = client.prepare(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        assert!(
            !status.message().contains("a b") && !status.message().contains("xxx"),
            "{status}"
        );
    }
}

#[test]
fn root_the_own_user_and_the_daemons_may_call() {
    let own = nix::unistd::Uid::effective().as_raw();
    let callers = Callers {
        user: Some(nix::unistd::Uid::from_raw(4711)),
    };
    assert!(callers.admit(0) && callers.admit(own) && callers.admit(4711));
    assert!(!callers.admit(4712) && !Callers { user: None }.admit(4711));
}

proptest! {
    /// Whatever arrives is refused or becomes values within their bounds; nothing panics.
    #[test]
    fn any_request_is_refused_or_within_bounds(
        name in ".{0,80}", node in ".{0,80}", image in ".{0,80}",
        cpus: u32, memory_mib: u64, disk_gib: Option<u64>, fingerprint in "[0-9a-g]{0,70}", token in ".{0,300}", time_ms: i64,
    ) {
        let request = message::PrepareRequest {
            name, node, image, cpus, memory_mib, disk_gib,
            seed: Some(message::Seed { fingerprint, token, time_ms }),
        };
        if let Ok(spec) = wire::spec(request) {
            prop_assert!(spec.name.as_str().starts_with("hci-"));
            prop_assert!(spec.cpus >= 1 && spec.cpus <= 1024);
            prop_assert!(spec.seed.fingerprint.len() == 64);
        }
    }

    #[test]
    fn any_input_is_refused_or_within_bounds(data in proptest::collection::vec(any::<u8>(), 0..9000)) {
        let fits = data.len() <= crate::machine::INPUT_LIMIT;
        prop_assert_eq!(wire::input(data.clone()).ok(), fits.then_some(data));
    }

    #[test]
    fn any_answer_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        use prost::Message;
        if let Ok(reply) = message::Endpoints::decode(bytes.as_slice()) {
            let _read = wire::endpoints(reply);
        }
        if let Ok(reply) = message::Observed::decode(bytes.as_slice()) {
            let _read = wire::observed(reply);
        }
        if let Ok(reply) = message::ListReply::decode(bytes.as_slice()) {
            let _read: Vec<_> = reply.machines.into_iter().map(wire::owned).collect();
        }
    }
}
