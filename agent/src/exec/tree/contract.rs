//! Step trees as process contracts of illumos: what the leader forks is in its contract, whatever
//! session, group or environment it gives itself. A process leaves only on purpose: with an active template of its own
//! (`ct_tmpl_activate(3CONTRACT)`, which takes no privilege) its next fork begins a contract that this one does not
//! hold, as ctrun(1) and SMF's restarters do.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        raw::{c_int, c_uint, c_void},
    },
    ptr,
};

use nix::{errno::Errno, libc, sys::signal::Signal, unistd::Pid};

const TEMPLATE: &str = "/system/contract/process/template";
const LATEST: &str = "/system/contract/process/latest";

/// `P_CTID` of `<sys/procset.h>`.
const P_CTID: c_int = 13;
/// `CTD_COMMON` and `CTD_ALL` of `<sys/contract.h>`: how much of a status is read.
const CTD_COMMON: c_int = 0;
const CTD_ALL: c_int = 2;
/// `CT_PR_EV_HWERR` of `<sys/contract/process.h>`: the one event that may end all members.
const CT_PR_EV_HWERR: c_uint = 0x20;

#[link(name = "contract")]
unsafe extern "C" {
    fn ct_tmpl_activate(fd: c_int) -> c_int;
    fn ct_tmpl_clear(fd: c_int) -> c_int;
    fn ct_tmpl_set_critical(fd: c_int, events: c_uint) -> c_int;
    fn ct_tmpl_set_informative(fd: c_int, events: c_uint) -> c_int;
    fn ct_pr_tmpl_set_fatal(fd: c_int, events: c_uint) -> c_int;
    fn ct_ctl_abandon(fd: c_int) -> c_int;
    fn ct_status_read(fd: c_int, detail: c_int, status: *mut *mut c_void) -> c_int;
    fn ct_status_free(status: *mut c_void);
    fn ct_status_get_id(status: *mut c_void) -> libc::id_t;
    fn ct_pr_status_get_members(status: *mut c_void, pids: *mut *mut libc::pid_t, count: *mut c_uint) -> c_int;
}

unsafe extern "C" {
    fn sigsend(idtype: c_int, id: libc::id_t, signal: c_int) -> c_int;
}

/// libcontract returns an error number, not -1.
fn check(result: c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

/// One step. A leader that could not become its program leaves an empty contract behind, which the
/// system removes with the agent.
#[derive(Debug)]
pub struct Contract {
    template: File,
    id: Option<libc::id_t>,
}

impl Contract {
    pub(super) fn template() -> io::Result<Self> {
        let template = OpenOptions::new().read(true).write(true).open(TEMPLATE)?;
        let fd = template.as_raw_fd();
        // SAFETY: each call takes an open template and an event set, and touches no memory of ours.
        unsafe {
            // No event waits for us to acknowledge it: the leader's end is seen by waiting for it.
            check(ct_tmpl_set_critical(fd, 0))?;
            check(ct_tmpl_set_informative(fd, 0))?;
            check(ct_pr_tmpl_set_fatal(fd, CT_PR_EV_HWERR))?;
        }
        Ok(Self { template, id: None })
    }

    /// The next fork of this thread begins the contract.
    pub(super) fn open(&mut self) -> io::Result<()> {
        // SAFETY: the template is open.
        check(unsafe { ct_tmpl_activate(self.template.as_raw_fd()) })
    }

    pub(super) fn rooted(&mut self, _leader: Pid) -> io::Result<()> {
        // SAFETY: the template is open.
        check(unsafe { ct_tmpl_clear(self.template.as_raw_fd()) })?;
        let status = Status::read(&File::open(LATEST)?, CTD_COMMON)?;
        // SAFETY: the status was read and is not freed yet.
        self.id = Some(unsafe { ct_status_get_id(status.0) });
        Ok(())
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        // SAFETY: three integers.
        match Errno::result(unsafe { sigsend(P_CTID, id, signal as c_int) }) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Process ids; zombies are not among them.
    pub(super) fn members(&self) -> io::Result<Vec<i32>> {
        let Some(id) = self.id else { return Ok(Vec::new()) };
        let status = Status::read(&File::open(format!("/system/contract/process/{id}/status"))?, CTD_ALL)?;
        let (mut pids, mut count) = (ptr::null_mut(), 0);
        // SAFETY: the status was read in full detail, and both results outlive the call.
        check(unsafe { ct_pr_status_get_members(status.0, &raw mut pids, &raw mut count) })?;
        if pids.is_null() || count == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: the library says that `count` ids lie there as long as the status is not freed.
        Ok(unsafe { std::slice::from_raw_parts(pids, count as usize) }.to_vec())
    }
}

impl Drop for Contract {
    fn drop(&mut self) {
        // SAFETY: the template is open; clearing one that is not active does nothing.
        unsafe { ct_tmpl_clear(self.template.as_raw_fd()) };
        let Some(id) = self.id else { return };
        // An empty contract that nobody holds is gone; failing to let go costs a kernel object.
        if let Ok(control) = OpenOptions::new()
            .write(true)
            .open(format!("/system/contract/process/{id}/ctl"))
        {
            // SAFETY: the control file is open.
            unsafe { ct_ctl_abandon(control.as_raw_fd()) };
        }
    }
}

/// A contract's status as the library read it.
struct Status(*mut c_void);

impl Status {
    fn read(file: &File, detail: c_int) -> io::Result<Self> {
        let mut status = ptr::null_mut();
        // SAFETY: the file is open and `status` outlives the call.
        check(unsafe { ct_status_read(file.as_raw_fd(), detail, &raw mut status) })?;
        Ok(Self(status))
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: it was read once and is freed once.
        unsafe { ct_status_free(self.0) };
    }
}
