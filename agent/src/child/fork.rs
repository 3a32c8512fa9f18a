//! fork and exec, with the child in its cgroup from the first moment.
//!
//! `std::process::Command` cannot say `CLONE_INTO_CGROUP` (clone3(2)), and moving a process afterwards, by a
//! write to `cgroup.procs`, waits for a grace period of the kernel: 4 to 20 ms for every command of a step.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    ptr,
};

use nix::{libc, sys::wait::waitpid, unistd::Pid};

use super::Launch;

/// What a shell cannot trap if it was ignored when the shell started, and whoever started the agent (a
/// shell in the background, nohup) may have ignored it; and what Rust's start ignores.
const ORDINARY: [i32; 5] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE];

/// Everything that the child needs, made before the fork: after it nothing may be allocated, as another
/// thread may have held the allocator.
struct Image {
    program: CString,
    directory: CString,
    argv: Strings,
    envp: Strings,
    /// Standard input, output and error.
    standard: [OwnedFd; 3],
    /// `cgroup.procs` of a cgroup that the child is not in yet.
    enter: Option<OwnedFd>,
    /// Where the child says why it failed; closed by a successful exec.
    failed: OwnedFd,
}

/// A NULL-terminated array of C strings.
struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    fn new(texts: impl Iterator<Item = io::Result<CString>>) -> io::Result<Self> {
        let owned = texts.collect::<io::Result<Vec<_>>>()?;
        let mut pointers: Vec<_> = owned.iter().map(|text| text.as_ptr()).collect();
        pointers.push(ptr::null());
        Ok(Self {
            _owned: owned,
            pointers,
        })
    }
}

fn text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

fn variable(name: &OsStr, value: &OsStr) -> io::Result<CString> {
    let mut pair = name.as_bytes().to_vec();
    pair.push(b'=');
    pair.extend_from_slice(value.as_bytes());
    Ok(CString::new(pair)?)
}

/// Starts a process that leads its own session. Returns once it has become the program.
pub(super) fn start(launch: &Launch<'_>, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Pid> {
    let (mut why, failed) = io::pipe()?;
    let arguments = launch.arguments.iter().map(|argument| text(OsStr::new(argument)));
    let mut image = Image {
        program: text(launch.program.as_os_str())?,
        directory: text(launch.directory.as_os_str())?,
        argv: Strings::new(std::iter::once(text(launch.program.as_os_str())).chain(arguments))?,
        envp: Strings::new(launch.environment.iter().map(|(name, value)| variable(name, value)))?,
        standard: [File::open("/dev/null")?.into(), stdout, stderr],
        enter: None,
        failed: failed.into(),
    };
    let born = match &launch.cgroup {
        Some(cgroup) => fork_into(cgroup.directory.as_raw_fd()),
        None => None,
    };
    let pid = match born {
        Some(pid) => pid,
        None => {
            image.enter = match &launch.cgroup {
                Some(cgroup) => Some(cgroup.procs()?),
                None => None,
            };
            // SAFETY: the child runs `become_program` only, which is made for the moment after a fork.
            unsafe { libc::fork() }
        }
    };
    match pid {
        0 => become_program(&image),
        ..0 => Err(io::Error::last_os_error()),
        pid => {
            let pid = Pid::from_raw(pid);
            drop(image);
            let mut said = Vec::new();
            why.read_to_end(&mut said)?;
            let Ok(code) = <[u8; 4]>::try_from(said) else {
                return Ok(pid);
            };
            waitpid(pid, None)?;
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
        }
    }
}

/// `CLONE_INTO_CGROUP` of Linux's `sched.h`, which does not fit the type that libc gives it.
#[cfg(target_os = "linux")]
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// As fork(2), with the child in the cgroup whose directory this is. `None` where the kernel (before Linux
/// 5.7) or a filter of system calls does not have it.
#[cfg(target_os = "linux")]
fn fork_into(directory: RawFd) -> Option<libc::pid_t> {
    let mut arguments = libc::clone_args {
        flags: INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::try_from(directory).ok()?,
    };
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child has its own copy of everything, as after fork(2); it runs
    // `become_program` only. `arguments` outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) };
    libc::pid_t::try_from(pid).ok().filter(|pid| *pid >= 0)
}

/// Other systems have no cgroups.
#[cfg(not(target_os = "linux"))]
fn fork_into(_directory: RawFd) -> Option<libc::pid_t> {
    None
}

/// The child's life before the program. Only async-signal-safe calls, and nothing is allocated or dropped.
fn become_program(image: &Image) -> ! {
    // SAFETY: every pointer and descriptor is `image`'s, which this process never drops; all calls are
    // async-signal-safe (signal-safety(7)).
    unsafe {
        if prepare(image) {
            libc::execve(
                image.program.as_ptr(),
                image.argv.pointers.as_ptr(),
                image.envp.pointers.as_ptr(),
            );
        }
        let code = errno().to_ne_bytes();
        libc::write(image.failed.as_raw_fd(), code.as_ptr().cast(), code.len());
        libc::_exit(127);
    }
}

/// Whether all of it succeeded; errno says why not.
///
/// # Safety
/// Only in a child that was forked just now.
unsafe fn prepare(image: &Image) -> bool {
    // SAFETY: as the caller promises; see there.
    unsafe {
        if libc::setsid() < 0 {
            return false;
        }
        for signal in ORDINARY {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        if let Some(procs) = &image.enter
            && libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
        {
            return false;
        }
        if libc::chdir(image.directory.as_ptr()) < 0 {
            return false;
        }
        // Ours are above 2, where Rust's start has seen to it that something is open: dup2(2) never
        // meets its own end, and clears FD_CLOEXEC of the copy alone.
        (0..)
            .zip(&image.standard)
            .all(|(standard, ours)| libc::dup2(ours.as_raw_fd(), standard) >= 0)
    }
}

fn errno() -> i32 {
    nix::errno::Errno::last_raw()
}
