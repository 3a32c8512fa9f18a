//! `helios-ci console`: the serial console of a machine, through the daemon. It is followed while the machine is
//! there; once the machine is kept after its job, what is typed here goes to the guest.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    time::Duration,
};

use base64::Engine as _;
use clap::Args;
use miette::{IntoDiagnostic as _, miette};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::runs::encode;
use crate::{
    cli::{
        Common, Exit, Outcome,
        client::{Client, ClientArgs, ClientError, NOTHING},
        report,
        wiring::backend,
    },
    config::Config,
    foreign_text::{printable, printable_lines},
    machine::{INPUT_LIMIT, Observed},
    model::{names::MachineName, state::MachineState},
    web::{
        api::types::{ConsoleRead, ConsoleTyped, Machine},
        live::utf8::Decoder,
    },
};

/// How long the daemon waits for a silent console, in seconds.
const WAIT: u32 = 10;
/// After a broken connection.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries in a row before giving up.
const TRIES: u32 = 10;
/// How long the node may take to let go of a console.
const RELEASE: Duration = Duration::from_secs(30);
/// Between two queries of a console that is being released.
const POLL: Duration = Duration::from_millis(200);
/// Between two queries of a machine whose console is read past the daemon.
const POLL_DIRECT: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal every key goes to the guest; `~.` at the beginning of a line leaves, `~~` types one `~`. Otherwise the
lines of standard input are typed. While the job of the machine runs, its console can only be watched.
What is printed is the guest's word: control characters are left out, except for a terminal on which somebody types.

Examples:
  helios-ci console --once 01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci machine keep 01k9zk6x0f5t3b8w2q7m4d1c0e --for 1h
  helios-ci console 01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci console --release hci-01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci console --direct hci-01k9zk6x0f5t3b8w2q7m4d1c0e")]
pub(in crate::cli) struct ConsoleArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The id of a job, or the name of a machine.
    id: String,
    /// Type nothing.
    #[arg(long)]
    watch: bool,
    /// Only let go of the console of a kept machine, and say how else it is reached.
    #[arg(long, conflicts_with = "watch")]
    release: bool,
    /// Print what was said so far, and end.
    #[arg(long, conflicts_with = "release")]
    once: bool,
    /// Read this host's machine without the daemon, and type nothing. As the daemon's user, or root.
    #[arg(long, conflicts_with_all = ["release", "server", "token_file"])]
    direct: bool,
}

pub(in crate::cli) async fn run(common: &Common, args: ConsoleArgs) -> Outcome {
    if args.direct {
        return direct(&super::config::load(common)?, &args).await;
    }
    let path = format!("/api/v1/machines/{}", encode(&args.id));
    if args.release || args.once {
        return Client::with(common, &args.client, async |client| {
            let machine: Machine = client.get(&path).await?;
            if args.release {
                release(client, machine.name).await
            } else {
                said_so_far(client, &machine.name).await
            }
        })
        .await;
    }
    Client::with_own_signals(common, &args.client, async |client| {
        let machine: Machine = client.get(&path).await?;
        let mut session = Session {
            client,
            path: format!("/api/v1/machines/{}", machine.name),
            typing: None,
            attached: false,
            decoder: Decoder::default(),
        };
        let followed = session.follow(args.watch).await;
        session.leave().await;
        followed
    })
    .await
}

/// Reads a machine's console from the back end of this host.
async fn direct(config: &Config, args: &ConsoleArgs) -> Outcome {
    let name: MachineName = args.id.parse().map_err(|e| {
        miette!(
            help = "`helios-ci machine list` names this host's machines",
            "--direct takes no job: {e}"
        )
    })?;
    let machines = backend::read_only(config).await?;
    let (mut at, mut decoder) = (0, Decoder::default());
    loop {
        // Asked before the reading, so that what a machine said at its end is read after its end is known.
        let running = machines.observe(&name).await.map_err(report)? == Observed::Running;
        loop {
            let read = machines.console(&name, at).await.map_err(report)?;
            if read.bytes.is_empty() {
                break;
            }
            at = read.next;
            print_plain(&mut decoder, &read.bytes);
        }
        if args.once || !running {
            return Ok(Exit::Success);
        }
        tokio::time::sleep(POLL_DIRECT).await;
    }
}

/// Prints a console's text up to now.
async fn said_so_far(client: &Client, name: &MachineName) -> Outcome {
    let (mut at, mut decoder) = (0, Decoder::default());
    loop {
        let read: ConsoleRead = client
            .get(&format!("/api/v1/machines/{name}/console?from={at}"))
            .await?;
        if read.base64.is_empty() || read.next == at {
            return Ok(Exit::Success);
        }
        at = read.next;
        print_plain(&mut decoder, &decoded(&read)?);
    }
}

/// Prints a guest's bytes; a character that is cut comes whole with the next ones.
fn print_plain(decoder: &mut Decoder, bytes: &[u8]) {
    let mut text = String::new();
    decoder.feed(bytes, &mut text);
    print!("{}", printable_lines(&text));
}

fn decoded(read: &ConsoleRead) -> Result<Vec<u8>, ClientError> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(&read.base64);
    bytes.map_err(|e| ClientError::NotUnderstood {
        call: "the console".to_owned(),
        reason: e.to_string(),
    })
}

/// Has the node let go of a console, and says how it is reached now.
async fn release(client: &Client, name: MachineName) -> Outcome {
    let path = format!("/api/v1/machines/{name}");
    let mut machine: Machine = client.post(&format!("{path}/console/release"), NOTHING).await?;
    let until = tokio::time::Instant::now() + RELEASE;
    let is_free = |machine: &Machine| {
        machine
            .keep
            .as_ref()
            .is_some_and(|keep| keep.console_free == Some(true))
    };
    while !is_free(&machine) {
        if tokio::time::Instant::now() > until {
            return Err(miette!(
                help = "its daemon's log says why",
                "the node of {name} has not let go of the console yet"
            ));
        }
        tokio::time::sleep(POLL).await;
        machine = client.get(&path).await?;
    }
    let attach = machine.keep.and_then(|keep| keep.attach);
    println!("{}", printable(attach.as_deref().unwrap_or_default()));
    Ok(Exit::Success)
}

/// One person at one console.
struct Session<'a> {
    client: &'a Client,
    path: String,
    /// What was read from standard input, once it may be typed.
    typing: Option<Typing>,
    /// The console was taken for this session.
    attached: bool,
    /// What the guest says, which comes in pieces.
    decoder: Decoder,
}

/// Standard input on its way to a guest.
struct Typing {
    input: mpsc::Receiver<Vec<u8>>,
    escape: Option<Escape>,
    _raw: Option<Raw>,
}

enum Turn {
    Read(Result<ConsoleRead, ClientError>),
    Typed(Option<Vec<u8>>),
    Interrupted,
}

impl Session<'_> {
    /// Until the machine is gone, or whoever sits here has had enough.
    async fn follow(&mut self, watch: bool) -> Outcome {
        let mut interrupt = signal(SignalKind::interrupt()).into_diagnostic()?;
        let mut terminate = signal(SignalKind::terminate()).into_diagnostic()?;
        let (client, path) = (self.client, self.path.clone());
        let read = |from: u64| {
            let path = format!("{path}/console?from={from}&wait_s={WAIT}");
            Box::pin(async move { client.get::<ConsoleRead>(&path).await })
        };
        let (mut at, mut broken, mut said) = (0, 0, false);
        let mut reading = read(at);
        loop {
            let turn = tokio::select! {
                answer = &mut reading => Turn::Read(answer),
                typed = next(&mut self.typing) => Turn::Typed(typed),
                _ = interrupt.recv() => Turn::Interrupted,
                _ = terminate.recv() => Turn::Interrupted,
            };
            match turn {
                Turn::Interrupted => return Ok(Exit::Success),
                Turn::Typed(None) => self.typing = None,
                Turn::Typed(Some(bytes)) => {
                    if !self.type_in(&bytes).await? {
                        return Ok(Exit::Success);
                    }
                }
                Turn::Read(Err(ClientError::Unreachable { .. })) if broken < TRIES => {
                    broken += 1;
                    tokio::time::sleep(AGAIN).await;
                    reading = read(at);
                }
                Turn::Read(Err(error)) => return Err(error.into()),
                Turn::Read(Ok(answer)) => {
                    broken = 0;
                    at = answer.next;
                    self.show(&decoded(&answer)?).into_diagnostic()?;
                    match answer.state {
                        MachineState::Draining | MachineState::Gone => {
                            eprintln!("helios-ci: the machine is gone\r");
                            return Ok(Exit::Success);
                        }
                        MachineState::Kept if !watch && !said => {
                            said = true;
                            self.begin_typing().await?;
                        }
                        _ => {}
                    }
                    reading = read(at);
                }
            }
        }
    }

    /// A terminal on which somebody types gets the guest's bytes as they are, like any terminal of a machine; all
    /// else is freed of control characters.
    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.typing.as_ref().is_some_and(|typing| typing.escape.is_some()) {
            out.write_all(bytes)?;
        } else {
            let mut text = String::new();
            self.decoder.feed(bytes, &mut text);
            out.write_all(printable_lines(&text).as_bytes())?;
        }
        out.flush()
    }

    async fn begin_typing(&mut self) -> miette::Result<()> {
        let terminal = io::stdin().is_terminal();
        let mut raw = None;
        if terminal {
            // Somebody sits here and wants to see an answer to the first key.
            self.take().await?;
            eprintln!("helios-ci: what is typed goes to the machine; `~.` at the beginning of a line leaves");
            raw = Some(Raw::enter().into_diagnostic()?);
        }
        let (sender, input) = mpsc::channel(16);
        // It may wait for input for ever and ends with the process.
        std::thread::spawn(move || {
            let mut buffer = vec![0; INPUT_LIMIT];
            while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
                let typed = buffer.get(..count).unwrap_or_default().to_vec();
                if sender.blocking_send(typed).is_err() {
                    return;
                }
            }
        });
        self.typing = Some(Typing {
            input,
            escape: terminal.then(Escape::new),
            _raw: raw,
        });
        Ok(())
    }

    async fn take(&mut self) -> Result<(), ClientError> {
        if !self.attached {
            self.post(Vec::new()).await?;
            self.attached = true;
        }
        Ok(())
    }

    /// Types; `false` when the one who types wants to leave.
    async fn type_in(&mut self, bytes: &[u8]) -> Result<bool, ClientError> {
        let escape = self.typing.as_mut().and_then(|typing| typing.escape.as_mut());
        let (bytes, stay) = match escape {
            Some(escape) => escape.pass(bytes),
            None => (bytes.to_vec(), true),
        };
        self.take().await?;
        for part in bytes.chunks(INPUT_LIMIT) {
            self.post(part.to_vec()).await?;
        }
        Ok(stay)
    }

    async fn post(&self, bytes: Vec<u8>) -> Result<(), ClientError> {
        let path = format!("{}/console", self.path);
        self.client.post_bytes::<ConsoleTyped>(&path, bytes).await.map(drop)
    }

    /// Leaves the console to others when it was taken here.
    async fn leave(&mut self) {
        self.typing = None;
        if self.attached {
            let path = format!("{}/console/release", self.path);
            let _it_may_be_gone = self.client.post::<_, Machine>(&path, NOTHING).await;
        }
    }
}

/// The next bytes from standard input; never while nothing may be typed.
async fn next(typing: &mut Option<Typing>) -> Option<Vec<u8>> {
    match typing {
        Some(typing) => typing.input.recv().await,
        None => std::future::pending().await,
    }
}

/// A terminal that passes every key on. Dropping it gives the terminal back as it was.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _the_terminal_may_be_gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Finds `~.` at the beginning of a line, however the bytes are cut.
#[derive(Debug, Clone)]
struct Escape {
    /// Nothing stands on the line yet.
    fresh: bool,
    /// A `~` at its beginning waits for what follows.
    tilde: bool,
}

impl Escape {
    fn new() -> Self {
        Self {
            fresh: true,
            tilde: false,
        }
    }

    /// What goes to the guest, and whether the session goes on.
    fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            match (self.tilde, byte) {
                (true, b'.') => return (passed, false),
                (true, b'~') => passed.push(b'~'),
                (true, other) => passed.extend([b'~', other]),
                (false, b'~') if self.fresh => {
                    self.tilde = true;
                    continue;
                }
                (false, other) => passed.push(other),
            }
            self.tilde = false;
            self.fresh = matches!(byte, b'\r' | b'\n');
        }
        (passed, true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut escape, mut all) = (Escape::new(), Vec::new());
        for part in parts {
            let (passed, stay) = escape.pass(part);
            all.extend(passed);
            if !stay {
                return (all, false);
            }
        }
        (all, true)
    }

    #[test]
    fn a_tilde_and_a_dot_at_the_beginning_of_a_line_leave_and_nowhere_else() {
        assert_eq!(pass(&[b"~."]), (b"".to_vec(), false));
        assert_eq!(pass(&[b"ls\r~.rest"]), (b"ls\r".to_vec(), false));
        assert_eq!(pass(&[b"ls\r", b"~", b"."]), (b"ls\r".to_vec(), false));
        assert_eq!(pass(&[b"a~.b\r"]), (b"a~.b\r".to_vec(), true));
        assert_eq!(pass(&[b"~~.\r"]), (b"~.\r".to_vec(), true));
        assert_eq!(pass(&[b"~/bin\r"]), (b"~/bin\r".to_vec(), true));
        assert_eq!(pass(&[b"~\r~."]), (b"~\r".to_vec(), false));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_keys_are_cut(
            bytes in prop::collection::vec(prop_oneof![Just(b'~'), Just(b'.'), Just(b'\r'), any::<u8>()], 0..40), cut in 1usize..8
        ) {
            let parts: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(pass(&parts), pass(&[&bytes]));
        }
    }
}
