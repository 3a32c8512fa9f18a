//! Whatever arrives at the socket: machined lives on, and its back end hears of nothing that is not a call with
//! parsed and bounded values.

use std::sync::atomic::AtomicBool;

use prost::{
    Message,
    bytes::{Buf, BufMut},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::*;

/// What begins an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So that none is forgotten.
const VOCABULARY: &str = include_str!("../../../../../proto/proto/helios/machine/v1/machine.proto");

/// Every call that machined knows.
fn methods() -> Vec<&'static str> {
    let calls = VOCABULARY.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    calls.filter_map(|call| call.split('(').next()).collect()
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most))
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }
}

/// A back end that takes every call and judges what came with it.
#[derive(Debug, Default)]
struct Judge {
    calls: AtomicUsize,
    outside: AtomicBool,
}

impl Judge {
    fn call(&self, name: Option<&MachineName>, fits: bool) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if !fits || name.is_some_and(|name| name.as_str().parse::<MachineName>().is_err()) {
            self.outside.store(true, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Machines for Judge {
    fn backend(&self) -> &'static str {
        "zone"
    }
    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError> {
        let fits = spec.node.as_str() == "n1"
            && (1..=1024).contains(&spec.cpus)
            && (16..=16 << 20).contains(&spec.memory_mib)
            && spec.disk_gib.is_none_or(|gib| (1..=1 << 20).contains(&gib))
            && spec.image.as_str().len() <= 64
            && spec.seed.fingerprint.len() == 64
            && (1..=256).contains(&spec.seed.token.expose().len());
        self.call(Some(&spec.name), fits);
        Ok(endpoints())
    }
    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        self.call(Some(name), true);
        Ok(None)
    }
    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Some(name), true);
        Ok(())
    }
    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError> {
        self.call(Some(name), true);
        Ok(Console {
            bytes: Vec::new(),
            next: from,
        })
    }
    async fn stop(&self, name: &MachineName, grace: Duration) -> Result<(), MachineError> {
        self.call(Some(name), grace <= Duration::from_secs(3600));
        Ok(())
    }
    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Some(name), true);
        Ok(())
    }
    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        self.call(Some(name), bytes.len() <= 4096);
        Ok(())
    }
    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Some(name), true);
        Ok(())
    }
    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Some(name), true);
        Ok(())
    }
    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError> {
        self.call(Some(name), true);
        Ok(Observed::Absent)
    }
    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError> {
        self.call(None, true);
        Ok(Vec::new())
    }
    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        self.call(Some(name), true);
        Ok(Observed::Absent)
    }
}

struct Target {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    judge: Arc<Judge>,
    served: JoinHandle<Result<bool, MachinedError>>,
}

impl Target {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, judge) = (dir.path().join("machined.sock"), Arc::new(Judge::default()));
        let served = tokio::spawn({
            let (judge, socket) = (judge.clone(), socket.clone());
            async move {
                let node = "n1".parse().unwrap();
                serve(
                    judge,
                    node,
                    &socket,
                    Callers { user: None },
                    CancellationToken::new(),
                    deadline::PROMPT,
                )
                .await
            }
        });
        let target = Self {
            _dir: dir,
            socket,
            judge,
            served,
        };
        target.answers().await;
        target
    }

    /// It lives, and a call that is one is heard once.
    async fn answers(&self) {
        let machines = connect(&self.socket, &"n1".parse().unwrap()).await.unwrap();
        let heard = self.judge.calls.load(Ordering::SeqCst);
        let list = tokio::time::timeout(deadline::PROMPT, machines.list()).await.unwrap();
        assert_eq!(list.unwrap().len(), 0);
        assert_eq!(self.judge.calls.load(Ordering::SeqCst), heard + 1);
        assert!(!self.served.is_finished() && !self.judge.outside.load(Ordering::SeqCst));
    }

    async fn channel(&self) -> tonic::transport::Channel {
        let path = self.socket.clone();
        tonic::transport::Endpoint::from_static("http://x")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .unwrap()
    }

    /// Writes, ends, and reads until it is hung up on.
    async fn throw(&self, bytes: &[u8]) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        // It may hang up in the middle.
        let _written = stream.write_all(bytes).await;
        let _ended = stream.shutdown().await;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(deadline::PROMPT, stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "a connection with {} bytes is never closed", bytes.len());
    }
}

/// Messages as bytes, in both directions.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

#[tokio::test]
async fn random_bytes_are_hung_up_on_and_heard_by_nobody() {
    let (target, mut random) = (Target::open().await, Random(1));
    let heard = target.judge.calls.load(Ordering::SeqCst);
    for round in 0..150 {
        let mut bytes = if round % 3 == 0 { Vec::new() } else { PREFACE.to_vec() };
        if round % 3 == 2 {
            // Frames with a length, a type and random rest.
            for _ in 0..random.below(8) {
                let payload = random.bytes(200);
                bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
                bytes.push(u8::try_from(random.below(12)).unwrap());
                bytes.extend(random.bytes(2).iter().chain(&[0; 5]).take(5));
                bytes.extend(payload);
            }
        }
        bytes.extend(random.bytes(2000));
        target.throw(&bytes).await;
    }
    assert_eq!(target.judge.calls.load(Ordering::SeqCst), heard);
    target.answers().await;
}

#[tokio::test]
async fn random_messages_to_every_method_stay_within_its_vocabulary() {
    let (target, mut random) = (Target::open().await, Random(2));
    let mut client = tonic::client::Grpc::new(target.channel().await);
    let good = wire::spec_to_wire(&spec()).encode_to_vec();
    let (methods, mut refused, mut taken) = (methods(), 0, 0);
    assert!(methods.contains(&"WriteConsole") && methods.contains(&"WaitStopped"));
    for round in 0..600 {
        let method = methods[random.below(methods.len())];
        let method = match round % 40 {
            0 => "Exec".to_owned(),
            1 => "../../etc".to_owned(),
            _ => method.to_owned(),
        };
        let message = match round % 5 {
            0 => random.bytes(300),
            1 => {
                let mut flipped = good.clone();
                for _ in 0..=random.below(4) {
                    let at = random.below(flipped.len());
                    flipped[at] ^= 1 << random.below(8);
                }
                flipped
            }
            2 => good[..random.below(good.len())].to_vec(),
            3 => message::Machine {
                name: String::from_utf8_lossy(&random.bytes(60)).into_owned(),
            }
            .encode_to_vec(),
            // Beyond what is read at all.
            _ => vec![u8::try_from(random.below(256)).unwrap(); 64 * 1024 + random.below(200_000)],
        };
        let path = format!("/helios.machine.v1.Machined/{method}").parse().unwrap();
        client.ready().await.unwrap();
        let call = client.unary(tonic::Request::new(message), path, Raw);
        match tokio::time::timeout(deadline::PROMPT, call).await.expect("an answer") {
            Ok(_) => taken += 1,
            Err(status) => {
                assert!(status.message().len() < 4096, "{} bytes", status.message().len());
                refused += 1;
            }
        }
    }
    assert!(refused > 300 && taken > 10, "{refused} refused, {taken} taken");
    target.answers().await;
}

#[tokio::test]
async fn a_connection_cut_anywhere_is_no_call() {
    let target = Target::open().await;
    // What a real client sends, taken down on its way.
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut near = Some(near);
    let channel =
        tonic::transport::Endpoint::from_static("http://x").connect_with_connector_lazy(tower::service_fn(move |_| {
            let near = near.take();
            async move { near.map(TokioIo::new).ok_or_else(|| std::io::Error::other("once")) }
        }));
    let request = wire::spec_to_wire(&spec());
    let calling = tokio::spawn(async move { MachinedClient::new(channel).prepare(request).await });
    let mut sent = Vec::new();
    // Its request is complete when the last bytes of the seed are there.
    while !sent.windows(5).any(|window| window == b"t0ken") {
        let mut buffer = [0; 4096];
        let count = tokio::time::timeout(deadline::PROMPT, far.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        sent.extend_from_slice(&buffer[..count]);
    }
    calling.abort();
    let heard = target.judge.calls.load(Ordering::SeqCst);
    let whole = sent.windows(5).position(|window| window == b"t0ken").unwrap();
    for cut in (0..whole).step_by(1 + whole / 60) {
        target.throw(&sent[..cut]).await;
    }
    assert_eq!(target.judge.calls.load(Ordering::SeqCst), heard);
    target.answers().await;
}

#[tokio::test]
async fn many_idle_connections_keep_nobody_out() {
    let target = Target::open().await;
    let mut idle = Vec::new();
    for at in 0..200 {
        let mut stream = UnixStream::connect(&target.socket).await.unwrap();
        if at % 2 == 0 {
            stream.write_all(&PREFACE[..at % PREFACE.len()]).await.unwrap();
        }
        idle.push(stream);
    }
    target.answers().await;
    drop(idle);
    target.answers().await;
}
