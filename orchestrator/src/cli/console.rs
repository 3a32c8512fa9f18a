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
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    Common, Exit, Outcome,
    client::{Client, ClientError},
    machine::plain,
    runs::{encode, text},
};
use crate::{machine::INPUT_LIMIT, web::utf8::Decoder};

/// How long the daemon waits for a silent console, in seconds.
const WAIT: u32 = 10;
/// After a broken connection.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries in a row before giving up.
const TRIES: u32 = 10;
/// How long the node may take to let go of a console.
const RELEASE: Duration = Duration::from_secs(30);
/// Between two looks at a console that is being released.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal every key goes to the guest; `~.` at the beginning of a line leaves, `~~` types one `~`. Otherwise the
lines of standard input are typed. While the job of the machine runs, its console can only be watched.

Examples:
  helios-ci machine keep 01k9zk6x0f5t3b8w2q7m4d1c0e --for 1h
  helios-ci console 01k9zk6x0f5t3b8w2q7m4d1c0e
  helios-ci console --release hci-01k9zk6x0f5t3b8w2q7m4d1c0e")]
pub(super) struct ConsoleArgs {
    /// The id of a job, or the name of a machine.
    id: String,
    /// Type nothing.
    #[arg(long)]
    watch: bool,
    /// Only let go of the console of a kept machine, and say how else it is reached.
    #[arg(long, conflicts_with = "watch")]
    release: bool,
}

pub(super) async fn run(common: &Common, args: ConsoleArgs) -> Outcome {
    let client = Client::connect(common).await?;
    let machine = client.get(&format!("/api/v1/machines/{}", encode(&args.id))).await;
    let outcome = match machine {
        Err(error) => Err(error.into()),
        Ok(machine) if args.release => release(&client, &text(&machine["name"])).await,
        Ok(machine) => {
            let mut session = Session {
                client: &client,
                path: format!("/api/v1/machines/{}", encode(&text(&machine["name"]))),
                typing: None,
                attached: false,
                words: Decoder::default(),
            };
            let followed = session.follow(args.watch).await;
            session.leave().await;
            followed
        }
    };
    client.close().await;
    outcome
}

/// Has the node let go of a console, and says how it is reached now.
async fn release(client: &Client, name: &str) -> Outcome {
    let path = format!("/api/v1/machines/{}", encode(name));
    let mut machine = client.post(&format!("{path}/console/release"), None).await?;
    let until = tokio::time::Instant::now() + RELEASE;
    while machine["keep"]["console_free"] != true {
        if tokio::time::Instant::now() > until {
            return Err(miette!(
                help = "its daemon's log says why",
                "the node of {name} has not let go of the console yet"
            ));
        }
        tokio::time::sleep(LOOK).await;
        machine = client.get(&path).await?;
    }
    println!("{}", text(&machine["keep"]["attach"]));
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
    words: Decoder,
}

/// Standard input on its way to a guest.
struct Typing {
    input: mpsc::Receiver<Vec<u8>>,
    escape: Option<Escape>,
    _raw: Option<Raw>,
}

enum Turn {
    Read(Result<Value, ClientError>),
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
            Box::pin(async move { client.get(&path).await })
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
                    at = answer["next"].as_u64().unwrap_or(at);
                    self.show(&answer).into_diagnostic()?;
                    match answer["state"].as_str() {
                        Some("draining" | "gone") => {
                            eprintln!("helios-ci: the machine is gone\r");
                            return Ok(Exit::Success);
                        }
                        Some("kept") if !watch && !said => {
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
    fn show(&mut self, answer: &Value) -> io::Result<()> {
        let bytes = answer["base64"].as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(bytes)
            .unwrap_or_default();
        let mut out = io::stdout().lock();
        if self.typing.as_ref().is_some_and(|typing| typing.escape.is_some()) {
            out.write_all(&bytes)?;
        } else {
            let mut text = String::new();
            self.words.feed(&bytes, &mut text);
            out.write_all(plain(&text).as_bytes())?;
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
            self.client
                .post_bytes(&format!("{}/console", self.path), Vec::new())
                .await?;
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
            self.client
                .post_bytes(&format!("{}/console", self.path), part.to_vec())
                .await?;
        }
        Ok(stay)
    }

    /// Leaves the console to others when it was taken here.
    async fn leave(&mut self) {
        self.typing = None;
        if self.attached {
            let _it_may_be_gone = self.client.post(&format!("{}/console/release", self.path), None).await;
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
