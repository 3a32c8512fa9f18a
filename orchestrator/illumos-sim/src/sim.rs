//! The handle of one simulated host, for its programs and for tests.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    act::Act,
    boot::{
        brand,
        guest::guest,
        life::{self, End},
    },
    console,
    faults::{Action, Faults},
    files,
    host::Host,
    kernel, mount,
    out::Out,
    ports, program,
    state::{Pending, State},
    trace::{self, Line},
};

/// Interval between two polls of a command that is held.
const RELEASE_POLL: Duration = Duration::from_millis(2);

/// How a run of a program goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Exit(Out),
    /// A fault kills it.
    Killed,
    /// A fault makes it hang.
    Hung,
    /// It waits for the guest: run the next pass a little later.
    Waiting,
}

/// Which pass of one run this is: faults are counted once for each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    First,
    Again,
}

/// One simulated host in one folder.
#[derive(Debug, Clone)]
pub struct Sim {
    dir: PathBuf,
}

impl Sim {
    /// A fresh host in a new or empty folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let sim = Self {
            dir: dir.canonicalize()?,
        };
        let root = sim.root();
        for sub in [
            "etc/zones",
            "etc/ipf",
            "var/run/zones",
            "dev/zvol/rdsk",
            "dev/zvol/dsk",
            "dev/vmm",
            "rpool",
        ] {
            fs::create_dir_all(root.join(sub))?;
        }
        files::replace(&root.join("etc/zones/index"), b"global:installed:/\n")?;
        files::replace(&root.join(ports::FILE), ports::FRESH.as_bytes())?;
        files::replace(&root.join("dev/vmmctl"), b"")?;
        for name in ["bhyve", "lipkg"] {
            let config = brand::CONFIG.replace("bhyve", name);
            files::replace(
                &root.join(format!("usr/lib/brand/{name}/config.xml")),
                config.as_bytes(),
            )?;
        }
        for name in brand::FIRMWARE.iter().chain(&["BHYVE_VARS"]) {
            files::replace(&root.join("usr/share/bhyve/firmware").join(format!("{name}.fd")), b"")?;
        }
        files::replace(
            &sim.dir.join("faults.json"),
            &serde_json::to_vec_pretty(&Faults::default())?,
        )?;
        files::replace(&sim.dir.join("state.json"), &serde_json::to_vec(&State::fresh())?)?;
        Ok(sim)
    }

    /// A host that exists.
    ///
    /// # Errors
    /// There is none in this folder.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let sim = Self {
            dir: dir.canonicalize()?,
        };
        sim.state()?;
        Ok(sim)
    }

    /// The host that the environment variable `ILLUMOS_SIM` or the file `/etc/illumos-sim` names.
    ///
    /// # Errors
    /// None is named, or there is none.
    pub fn find() -> io::Result<Self> {
        let dir = match std::env::var_os("ILLUMOS_SIM") {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from(fs::read_to_string("/etc/illumos-sim")?.trim()),
        };
        Self::open(&dir)
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its fake root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The model as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn state(&self) -> io::Result<State> {
        Ok(serde_json::from_slice(&fs::read(self.dir.join("state.json"))?)?)
    }

    /// The fault plan as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn faults(&self) -> io::Result<Faults> {
        Ok(serde_json::from_slice(&fs::read(self.dir.join("faults.json"))?)?)
    }

    /// Every run so far.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn trace(&self) -> io::Result<Vec<Line>> {
        trace::read(&self.dir.join("trace.jsonl"))
    }

    /// Changes model and fault plan under the lock, with no program in between.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn mutate<T>(&self, change: impl FnOnce(&mut Host) -> T) -> io::Result<T> {
        let _lock = self.lock()?;
        let (state, faults) = (self.state()?, self.faults()?);
        let act = Act::begin(&self.dir, &state)?;
        let mut host = Host {
            state: state.clone(),
            faults: faults.clone(),
            dir: self.dir.clone(),
            midway: false,
            killed: false,
            waiting: false,
        };
        let value = change(&mut host);
        if host.state != state {
            kernel::follow(&state, &host.state)?;
            files::replace(&self.dir.join("state.json"), &serde_json::to_vec(&host.state)?)?;
        }
        if host.faults != faults {
            files::replace(&self.dir.join("faults.json"), &serde_json::to_vec_pretty(&host.faults)?)?;
        }
        act.end(&self.dir, &state, &host.state)?;
        Ok(value)
    }

    /// Runs one program to its end, or to the first time it waits.
    ///
    /// # Errors
    /// The state folder cannot be read or written.
    pub fn run(&self, program: &str, args: &[&str]) -> io::Result<Ended> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.pass(program, &args, Pass::First)
    }

    /// One pass of one run.
    ///
    /// # Errors
    /// The state folder cannot be read or written.
    pub fn pass(&self, program: &str, args: &[String], pass: Pass) -> io::Result<Ended> {
        let (start, begun) = (Instant::now(), trace::now());
        // Now, because it may be gone at the end.
        let parent = std::os::unix::process::parent_id();
        let action = match pass {
            Pass::First => self.mutate(|host| host.faults.next(program, args))?,
            Pass::Again => None,
        };
        match &action {
            Some(Action::Slow { ms }) => std::thread::sleep(Duration::from_millis(*ms)),
            Some(Action::Held) => self.hold(program, args)?,
            _ => {}
        }
        let mut said = Out::default();
        let ended = match &action {
            Some(Action::Fail { code, stderr }) => Ended::Exit(Out {
                stderr: stderr.clone(),
                code: *code,
                ..Out::default()
            }),
            Some(Action::Hang) => Ended::Hung,
            Some(Action::Kill) => Ended::Killed,
            Some(Action::KillClient { after }) if program::zoneadm::is_daemons(program, args) => {
                let (args, after) = (args.to_vec(), *after);
                self.mutate(|host| host.state.pending.push(Pending { args, after }))?;
                Ended::Killed
            }
            _ => {
                let (out, killed, waiting) = self.mutate(|host| {
                    program::zoneadm::go_on(host);
                    host.midway = action == Some(Action::KillMidway);
                    let out = program::run(host, program, args);
                    (out, host.killed, host.waiting)
                })?;
                said = out.clone();
                match &action {
                    _ if killed => Ended::Killed,
                    Some(Action::FailAfter { code, stderr }) => Ended::Exit(Out {
                        stdout: out.stdout,
                        stderr: stderr.clone(),
                        code: *code,
                    }),
                    Some(Action::HangAfter) => Ended::Hung,
                    Some(Action::KillAfter | Action::KillClient { .. }) => Ended::Killed,
                    _ if waiting => return Ok(Ended::Waiting),
                    _ => Ended::Exit(out),
                }
            }
        };
        let fault = match (&ended, &action) {
            (Ended::Killed, _) => Some("killed".to_owned()),
            (Ended::Hung, _) => Some("hung".to_owned()),
            (_, Some(Action::Slow { .. })) => Some("slow".to_owned()),
            _ => None,
        };
        if ended == Ended::Hung
            && program == "zoneadm"
            && let Some(zone) = program::zoneadm::lock_of(args)
        {
            self.mutate(|host| host.state.locks.insert(zone.to_owned(), std::process::id()))?;
        }
        if let Ended::Exit(out) = &ended {
            said = out.clone();
        }
        let line = Line {
            argv: std::iter::once(program.to_owned())
                .chain(args.iter().cloned())
                .collect(),
            exit: matches!(ended, Ended::Exit(_)).then_some(said.code),
            fault,
            stdout: said.stdout,
            stderr: said.stderr,
            ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            pid: std::process::id(),
            parent,
            begun,
            ended: trace::now(),
        };
        trace::append(&self.dir.join("trace.jsonl"), &line)?;
        Ok(ended)
    }

    /// Waits as long as this process's file is among those of the held ones.
    fn hold(&self, program: &str, args: &[String]) -> io::Result<()> {
        let held = self.dir.join("held");
        fs::create_dir_all(&held)?;
        let mine = held.join(std::process::id().to_string());
        files::replace(&mine, format!("{program} {}", args.join(" ")).as_bytes())?;
        while mine.exists() {
            std::thread::sleep(RELEASE_POLL);
        }
        Ok(())
    }

    /// The commands that [`Action::Held`] keeps waiting now.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn held(&self) -> io::Result<Vec<String>> {
        self.held_files()?.iter().map(fs::read_to_string).collect()
    }

    /// Lets all of them go on.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn release(&self) -> io::Result<()> {
        self.held_files()?.iter().try_for_each(fs::remove_file)
    }

    fn held_files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.dir.join("held")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            // Not one that is still being written.
            let whole = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            files.extend(whole.map(|_| path));
        }
        Ok(files)
    }

    /// bhyve of a zone ends, as if by the guest's doing.
    ///
    /// # Errors
    /// The state folder cannot be read or written.
    pub fn guest_ends(&self, zone: &str, end: End) -> io::Result<()> {
        self.mutate(|host| life::ended(host, zone, end))?
    }

    /// The guest writes to its first serial port. Nobody keeps what it writes while no client is attached.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn guest_prints(&self, zone: &str, bytes: &[u8]) -> io::Result<()> {
        console::print(&self.dir, zone, bytes)
    }

    /// What was typed on the guest's first serial port so far.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn guest_heard(&self, zone: &str) -> io::Result<Vec<u8>> {
        console::typed(&self.dir, zone)
    }

    /// The host loses power and comes up again: links, addresses, kernel states and `/var/run` vanish;
    /// index, zone configurations and ZFS stay.
    ///
    /// # Errors
    /// The state folder cannot be read or written.
    pub fn host_reboot(&self) -> io::Result<()> {
        self.mutate(|host| {
            let running: Vec<String> = host.state.zones.keys().cloned().collect();
            for zone in running {
                guest(host).kill(host, &zone);
            }
            host.state.power_cycle();
            for emptied in ["/var/run", "/dev/vmm"] {
                files::empty(&host.path(emptied))?;
            }
            program::services::boot(host);
            mount::all(host)
        })?
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.dir.join("lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }
}
