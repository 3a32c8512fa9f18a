//! Turning the machine off.

use std::io;

/// Writes what the disks have not got yet and takes the power away. Returns only when it may not.
pub fn off() -> io::Error {
    nix::unistd::sync();
    #[cfg(target_os = "linux")]
    {
        use nix::sys::reboot::{RebootMode, reboot};
        match reboot(RebootMode::RB_POWER_OFF) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        }
    }
    #[cfg(target_os = "illumos")]
    {
        use std::os::raw::c_int;
        unsafe extern "C" {
            fn uadmin(command: c_int, function: c_int, argument: usize) -> c_int;
        }
        /// `A_SHUTDOWN` and `AD_POWEROFF` of `<sys/uadmin.h>`.
        const SHUTDOWN: c_int = 2;
        const POWEROFF: c_int = 6;
        // SAFETY: three integers; the call does not return when it succeeds.
        unsafe { uadmin(SHUTDOWN, POWEROFF, 0) };
        io::Error::last_os_error()
    }
}
