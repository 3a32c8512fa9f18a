//! The process that bhyve would be: started by zoneadmd's part that outlives the commands, watched by it, and
//! dead when it dies. All that is decided about it is decided under the lock of the model.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use rustix::io::{FdFlags, fcntl_setfd};

use super::{
    emulated::{buttons, order, process},
    life::{self, End},
};
use crate::{console, files, host::Host, zonecfg::index};

/// The emulator's last word on why it ends.
type Reason = Arc<Mutex<Option<String>>>;

/// What keeps the guest of one zone.
#[derive(Debug)]
pub struct Keeper {
    zone: String,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Which boot of the zone it belongs to, and which start of its bhyve.
    id: u64,
    starts: u32,
    reason: Reason,
    readers: Vec<JoinHandle<()>>,
    monitor: UnixStream,
    keyboard: Option<ChildStdin>,
    typed: VecDeque<u8>,
    pressed: usize,
}

impl Keeper {
    /// A keeper of a zone whose guest was not started yet.
    #[must_use]
    pub fn new(zone: &str) -> Self {
        Self {
            zone: zone.to_owned(),
            running: None,
        }
    }

    /// Starts the guest that the zone should have, and does what its end asks for.
    ///
    /// # Errors
    /// The simulator's files, or the emulator cannot be started.
    pub fn poll(&mut self, host: &mut Host) -> io::Result<()> {
        if let Some(running) = &mut self.running {
            let Some(status) = running.child.try_wait()? else {
                return Ok(());
            };
            if let Some(running) = self.running.take() {
                self.over(host, running, status)?;
            }
        }
        let Some(zone) = host.state.zones.get(&self.zone).filter(|zone| zone.guest) else {
            return Ok(());
        };
        let (id, starts) = (zone.id, zone.starts);
        if let Some(text) = files::text(&order(&host.dir, &self.zone))? {
            let argv: Vec<String> = serde_json::from_str(&text)?;
            self.running = Some(Running::start(host, &self.zone, argv, id, starts)?);
        }
        Ok(())
    }

    /// The emulator ended: by a command that has seen to everything, or by itself.
    fn over(&self, host: &mut Host, running: Running, status: ExitStatus) -> io::Result<()> {
        for reader in running.readers {
            reader.join().ok();
        }
        files::remove(&process(&host.dir, &self.zone))?;
        let Some(zone) = host.state.zones.get_mut(&self.zone) else {
            return Ok(());
        };
        if !zone.guest || zone.id != running.id || zone.starts != running.starts {
            return Ok(());
        }
        let reason = running.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
        let end = match (reason.as_deref(), status.signal(), status.code()) {
            (Some("guest-reset"), ..) => End::Code(0),
            (Some("guest-shutdown"), ..) => End::Code(1),
            (_, Some(signal), _) => End::Signal(signal),
            _ => End::Code(4),
        };
        // A halt waits for exactly this, and takes the zone down itself.
        if zone.halting_since.is_some() && end != End::Code(0) {
            zone.guest = false;
            return Ok(());
        }
        life::ended(host, &self.zone, end)
    }

    /// Hands what was typed to the guest, and presses its power button as often as it was pressed.
    ///
    /// # Errors
    /// The simulator's files.
    pub fn hand_over(&mut self, dir: &std::path::Path, typed: &[u8]) -> io::Result<()> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        running.typed.extend(typed);
        let pressed = fs::metadata(buttons(dir, &self.zone)).map_or(0, |meta| meta.len());
        let pressed = usize::try_from(pressed).unwrap_or(usize::MAX);
        while running.pressed < pressed {
            running.pressed += 1;
            // An emulator that just ended has no button.
            running.monitor.write_all(b"{\"execute\":\"system_powerdown\"}\n").ok();
        }
        if let Some(keyboard) = &mut running.keyboard
            && !running.typed.is_empty()
        {
            let bytes: Vec<u8> = running.typed.drain(..).collect();
            keyboard.write_all(&bytes).ok();
        }
        Ok(())
    }
}

/// No guest outlives its keeper.
impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            running.child.kill().ok();
            running.child.wait().ok();
        }
    }
}

impl Running {
    fn start(host: &Host, zone: &str, argv: Vec<String>, id: u64, starts: u32) -> io::Result<Self> {
        let (monitor, theirs) = UnixStream::pair()?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let monitor_socket = format!("socket,id=monitor,fd={}", theirs.as_raw_fd());
        let zonepath = index::find(host, zone)?.map(|entry| host.path(&entry.zonepath));
        // bhyve's own words; emptied at each of its starts.
        let log = match zonepath {
            Some(path) => Stdio::from(File::create(path.join("root/tmp/init.log"))?),
            None => Stdio::null(),
        };
        let mut child = Command::new("setpriv")
            // The kernel ends it with the process that started it, however that ends.
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(argv)
            .args(["-chardev", "stdio,id=com1,signal=off", "-serial", "chardev:com1"])
            .args(["-chardev", &monitor_socket, "-mon", "chardev=monitor,mode=control"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        drop(theirs);
        files::replace(&process(&host.dir, zone), child.id().to_string().as_bytes())?;
        let reason = Reason::default();
        let mut readers = Vec::new();
        if let Some(screen) = child.stdout.take() {
            let (dir, zone) = (host.dir.clone(), zone.to_owned());
            readers.push(std::thread::spawn(move || print_all(screen, &dir, &zone)));
        }
        let (said, sink) = (monitor.try_clone()?, Arc::clone(&reason));
        readers.push(std::thread::spawn(move || listen(said, &sink)));
        let mut running = Self {
            keyboard: child.stdin.take(),
            child,
            id,
            starts,
            reason,
            readers,
            monitor,
            typed: VecDeque::new(),
            pressed: 0,
        };
        running.monitor.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
        Ok(running)
    }
}

/// What the guest writes to its first serial port.
fn print_all(mut screen: impl Read, dir: &std::path::Path, zone: &str) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = screen.read(&mut bytes) {
        if console::print(dir, zone, &bytes[..count]).is_err() {
            return;
        }
    }
}

/// What the emulator says of itself: the first reason it gives for its end is the one.
fn listen(said: UnixStream, reason: &Reason) {
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
            continue;
        };
        if event["event"] == "SHUTDOWN"
            && let Some(word) = event["data"]["reason"].as_str()
        {
            let mut reason = reason.lock().unwrap_or_else(PoisonError::into_inner);
            reason.get_or_insert_with(|| word.to_owned());
        }
    }
}
