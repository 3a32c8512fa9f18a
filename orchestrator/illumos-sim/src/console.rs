//! The console of a zone: what zoneadmd serves on `/var/run/zones/NAME.console_sock`. One client at a
//! time, a line each way first, then raw bytes; what the guest prints while nobody is attached is lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{boot::keeper::Keeper, files, host::Host, sim::Sim, state::ZoneState, tty::Raw, zonecfg::index};

/// Interval between two reads of the guest's output.
const TICK: Duration = Duration::from_millis(5);
/// Interval between two polls of the zone's state.
const POLL: Duration = Duration::from_millis(100);
/// How long a daemon without zone and client waits for its first client.
const FIRST_CLIENT: Duration = Duration::from_secs(5);
/// How long a daemon that goes may still hold its lock.
const GOING: Duration = Duration::from_secs(1);
/// How long a client may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);

fn output(dir: &Path, zone: &str) -> PathBuf {
    dir.join("console").join(format!("{zone}.out"))
}

fn input(dir: &Path, zone: &str) -> PathBuf {
    dir.join("console").join(format!("{zone}.in"))
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(bytes)
}

/// The guest prints.
///
/// # Errors
/// The state folder cannot be written.
pub fn print(dir: &Path, zone: &str, bytes: &[u8]) -> io::Result<()> {
    append(&output(dir, zone), bytes)
}

/// What was typed so far.
///
/// # Errors
/// The state folder cannot be read.
pub fn typed(dir: &Path, zone: &str) -> io::Result<Vec<u8>> {
    match fs::read(input(dir, zone)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// zoneadmd puts a notice into the stream.
///
/// # Errors
/// The state folder cannot be written.
pub fn notice(host: &Host, zone: &str, text: &str) -> io::Result<()> {
    print(&host.dir, zone, format!("\r\n[NOTICE: {text}]\r\n").as_bytes())
}

/// The zone whose daemon a successful command leaves behind.
#[must_use]
pub fn wanted<'a>(program: &str, args: &'a [String]) -> Option<&'a str> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match (program, words.as_slice()) {
        ("zoneadmd", ["-z", zone]) | ("zoneadm", ["-z", zone, "boot" | "reboot"]) => Some(zone),
        _ => None,
    }
}

/// The zone to whose console a successful command connects.
#[must_use]
pub fn attached<'a>(program: &str, args: &'a [String]) -> Option<&'a str> {
    (program == "zlogin").then_some(args.last()?.as_str())
}

fn run_dir(sim: &Sim) -> PathBuf {
    sim.root().join("var/run/zones")
}

fn claim(sim: &Sim, zone: &str) -> io::Result<Option<Flock<File>>> {
    let path = run_dir(sim).join(format!("{zone}.zoneadmd_lock"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

/// Whether a daemon serves the zone's console.
///
/// # Errors
/// `/var/run/zones` cannot be written.
pub fn is_served(sim: &Sim, zone: &str) -> io::Result<bool> {
    let free = claim(sim, zone)?.is_some();
    Ok(!free && run_dir(sim).join(format!("{zone}.console_sock")).exists())
}

/// The attached client: its process, whether it leaves at a halt, how much was printed before it came, its
/// stream.
struct Client {
    pid: i32,
    leaves: bool,
    from: u64,
    stream: UnixStream,
}

/// Who sits at the console, and whether anybody ever did.
#[derive(Default)]
struct Seat {
    client: Option<Client>,
    attended: bool,
}

type Holder = Arc<Mutex<Seat>>;

fn held(holder: &Holder) -> std::sync::MutexGuard<'_, Seat> {
    holder.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes what the client had open: its caller's locks and pipes are not zoneadmd's to keep.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The folder's own descriptor is among them, and closed by now.
        nix::unistd::close(fd).ok();
    }
    Ok(())
}

/// Serves the console of one zone, until the zone is down and nobody is attached, it is uninstalled, or
/// `/var/run` is gone. A second daemon for the same zone ends at once.
///
/// # Errors
/// The socket or the state folder.
pub fn serve(sim: &Sim, zone: &str) -> io::Result<()> {
    close_inherited()?;
    let started = Instant::now();
    let _claim = loop {
        if let Some(claim) = claim(sim, zone)? {
            break claim;
        }
        // Either another daemon serves already, or one is just going.
        if started.elapsed() > GOING {
            return Ok(());
        }
        std::thread::sleep(TICK);
    };
    let dir = run_dir(sim);
    let socket = dir.join(format!("{zone}.console_sock"));
    files::remove(&socket)?;
    let mut tail = Tail::new(output(sim.dir(), zone))?;
    // Under a relative name, and then renamed: the whole path may be longer than a socket's may be, and
    // whoever sees the socket can connect.
    std::env::set_current_dir(&dir)?;
    let fresh = format!(".{zone}.s");
    files::remove(Path::new(&fresh))?;
    let listener = UnixListener::bind(&fresh)?;
    fs::rename(&fresh, &socket)?;
    // After a reboot the socket of this name may be another daemon's.
    let ours = fs::metadata(&socket)?.ino();
    let holder: Holder = Holder::default();
    let (accepts, typed, printed) = (Arc::clone(&holder), input(sim.dir(), zone), output(sim.dir(), zone));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (holder, typed, printed) = (Arc::clone(&accepts), typed.clone(), printed.clone());
            std::thread::spawn(move || attend(stream, &holder, &typed, &printed));
        }
    });
    let (start, mut polled) = (Instant::now(), None::<Instant>);
    let (mut keeper, mut keys) = (Keeper::new(zone), Tail::new(input(sim.dir(), zone))?);
    let mut ran = false;
    loop {
        let fresh = tail.read()?;
        if !fresh.is_empty() {
            // Not under the lock: a client that reads slowly stalls the guest, not the other clients' refusals.
            let client = held(&holder)
                .client
                .as_ref()
                .and_then(|client| Some((client.from, client.stream.try_clone().ok()?)));
            if let Some((from, mut stream)) = client {
                let old = usize::try_from(from.saturating_sub(tail.at - fresh.len() as u64)).unwrap_or(usize::MAX);
                // A client that went away is its own thread's matter.
                stream.write_all(fresh.get(old..).unwrap_or_default()).ok();
            }
        }
        keeper.hand_over(sim.dir(), &keys.read()?)?;
        if polled.is_none_or(|at| at.elapsed() >= POLL) {
            polled = Some(Instant::now());
            if fs::metadata(&socket).map_or(true, |meta| meta.ino() != ours) {
                return Ok(());
            }
            // Decided under the lock of the model: a boot comes before, and is seen, or after, and finds no
            // socket any more.
            let ends = sim.mutate(|host| -> io::Result<bool> {
                if host.state.real.is_some() {
                    keeper.poll(host)?;
                }
                let installed = index::find(host, zone)?.is_some_and(|entry| entry.state >= ZoneState::Installed);
                let up = host.state.zones.contains_key(zone);
                let mut seat = held(&holder);
                let leaves = ran && !up && seat.client.as_ref().is_some_and(|client| client.leaves);
                ran |= up;
                let idle = ran || seat.attended || start.elapsed() > FIRST_CLIENT;
                let ends = !installed || !up && seat.client.is_none() && idle;
                if (ends || leaves)
                    && let Some(client) = seat.client.take()
                {
                    client.stream.shutdown(std::net::Shutdown::Both).ok();
                }
                if ends {
                    files::remove(&socket)?;
                }
                Ok(ends)
            })??;
            if ends {
                return Ok(());
            }
        }
        std::thread::sleep(TICK);
    }
}

/// The process at the other end.
#[cfg(target_os = "linux")]
fn peer(stream: &UnixStream) -> i32 {
    rustix::net::sockopt::socket_peercred(stream).map_or(0, |peer| peer.pid.as_raw_nonzero().get())
}

/// The process at the other end: only Linux is asked, where this simulator is for.
#[cfg(not(target_os = "linux"))]
fn peer(_stream: &UnixStream) -> i32 {
    0
}

/// One client: who it is, whether it may have the console, and what it types.
fn attend(mut stream: UnixStream, holder: &Holder, typed: &Path, printed: &Path) {
    if stream.set_read_timeout(Some(HANDSHAKE)).is_err() {
        return;
    }
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 256 && matches!(stream.read(&mut byte), Ok(1)) && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    if byte[0] != b'\n' || !line.starts_with(b"IDENT ") {
        return;
    }
    let pid = peer(&stream);
    {
        let mut seat = held(holder);
        if let Some(client) = &seat.client {
            stream.write_all(format!("{}\n", client.pid).as_bytes()).ok();
            return;
        }
        let (Ok(copy), Ok(meta)) = (stream.try_clone(), fs::metadata(printed)) else {
            return;
        };
        if stream.write_all(b"OK\n").is_err() || stream.set_read_timeout(None).is_err() {
            return;
        }
        seat.attended = true;
        seat.client = Some(Client {
            pid,
            leaves: line.ends_with(b"1"),
            from: meta.len(),
            stream: copy,
        });
    }
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if append(typed, &bytes[..count]).is_err() {
            break;
        }
    }
    held(holder).client.take();
}

/// The end of a growing file.
struct Tail {
    path: PathBuf,
    at: u64,
}

impl Tail {
    fn new(path: PathBuf) -> io::Result<Self> {
        append(&path, b"")?;
        let at = fs::metadata(&path)?.len();
        Ok(Self { path, at })
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        if fs::metadata(&self.path)?.len() <= self.at {
            return Ok(Vec::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        file.take(64 << 10).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

/// `zlogin -C ZONE`: this process's standard streams at the console until either side ends.
///
/// # Errors
/// The sentence zlogin ends with.
pub fn attach(sim: &Sim, zone: &str) -> Result<(), String> {
    let refused = |error: io::Error| format!("could not connect to the console of zone '{zone}': {error}");
    std::env::set_current_dir(run_dir(sim)).map_err(refused)?;
    let mut stream = UnixStream::connect(format!("{zone}.console_sock")).map_err(refused)?;
    stream.write_all(b"IDENT C 0\n").map_err(refused)?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    while matches!(stream.read(&mut byte), Ok(1)) && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    if line != b"OK" {
        return Err(format!(
            "Zone is already in use by process ID {}.",
            String::from_utf8_lossy(&line)
        ));
    }
    println!("[Connected to zone '{zone}' console]");
    let _raw = Raw::begin()?;
    let mut typed = stream.try_clone().map_err(refused)?;
    std::thread::spawn(move || {
        io::copy(&mut io::stdin(), &mut typed).ok();
        typed.shutdown(std::net::Shutdown::Both).ok();
    });
    let mut out = io::stdout();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        out.write_all(&bytes[..count])
            .and_then(|()| out.flush())
            .map_err(refused)?;
    }
    println!("\n[Connection to zone '{zone}' console closed]");
    Ok(())
}
