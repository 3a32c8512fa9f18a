//! Raw volumes as illumos has them, for programs of a simulated host. There a volume is a plain file, which has an end
//! and takes any number of bytes; a raw volume of illumos has neither (`zvol_read` and `zvol_write` in
//! uts/common/fs/zfs/zvol.c): a read or write at its end is EIO, and places and lengths are whole sectors. What is
//! preloaded (`LD_PRELOAD`) stands before the C library's calls of the same names.

#![cfg(target_os = "linux")]

use std::ffi::{c_int, c_long, c_void};

const SECTOR: usize = 512;

/// Whether a descriptor is of a raw volume.
fn is_raw(fd: c_int) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|path| path.starts_with("/dev/zvol/rdsk"))
}

fn refuse(errno: c_int) -> isize {
    // SAFETY: the C library's own place for this thread's error.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// What a raw volume says of a call that would move so many bytes from or to this place; none where it does it.
fn refused(fd: c_int, count: usize, at: libc::off_t) -> Option<isize> {
    let whole = count.is_multiple_of(SECTOR) && usize::try_from(at).is_ok_and(|at| at.is_multiple_of(SECTOR));
    (!whole && is_raw(fd)).then(|| refuse(libc::EINVAL))
}

/// The end of a file, which a raw volume does not have.
fn ended(fd: c_int, count: usize, moved: c_long) -> isize {
    match isize::try_from(moved).unwrap_or(-1) {
        0 if count > 0 && is_raw(fd) => refuse(libc::EIO),
        moved => moved,
    }
}

fn place(fd: c_int) -> libc::off_t {
    // SAFETY: asks for the position only; a descriptor without one answers -1.
    unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }.max(0)
}

/// read(2).
///
/// # Safety
/// As of the call that it stands before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, to: *mut c_void, count: usize) -> isize {
    if !count.is_multiple_of(SECTOR)
        && let Some(answer) = refused(fd, count, place(fd))
    {
        return answer;
    }
    // SAFETY: the caller's own arguments, passed on.
    let moved = unsafe { libc::syscall(libc::SYS_read, fd, to, count) };
    ended(fd, count, moved)
}

/// pread(2), by the name that programs with large files call.
///
/// # Safety
/// As of the call that it stands before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, to: *mut c_void, count: usize, at: libc::off_t) -> isize {
    if let Some(answer) = refused(fd, count, at) {
        return answer;
    }
    // SAFETY: the caller's own arguments, passed on.
    let moved = unsafe { libc::syscall(libc::SYS_pread64, fd, to, count, at) };
    ended(fd, count, moved)
}

/// pwrite(2). Its file would grow; a volume does not.
///
/// # Safety
/// As of the call that it stands before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, count: usize, at: libc::off_t) -> isize {
    if let Some(answer) = refused(fd, count, at) {
        return answer;
    }
    if is_raw(fd) {
        let path = format!("/proc/self/fd/{fd}");
        let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let end = u64::try_from(at).unwrap_or(u64::MAX).saturating_add(count as u64);
        if end > size {
            return refuse(libc::EIO);
        }
    }
    // SAFETY: the caller's own arguments, passed on.
    let moved = unsafe { libc::syscall(libc::SYS_pwrite64, fd, from, count, at) };
    isize::try_from(moved).unwrap_or(-1)
}
