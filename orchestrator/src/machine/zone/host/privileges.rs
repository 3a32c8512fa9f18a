//! What the keeper of zones must be allowed: everything. `zoneadm` and `zlogin` refuse a caller whose effective set is
//! not full, and commands get no more than the limit set leaves them, so a service with `privileges` or
//! `limit_privileges` in its method context would start, and then fail job after job.

use std::io;

use nix::unistd::Uid;

/// Why this process cannot keep zones.
#[derive(Debug, thiserror::Error)]
pub enum Lacking {
    /// Devices, sockets of consoles and most commands are root's alone.
    #[error("zones are kept by root, and this process runs as user {0}")]
    Root(Uid),
    /// Privileges were taken away: privileges(7).
    #[error("this process lacks privileges: its {0} set is not full, so zoneadm will refuse it")]
    Privileges(&'static str),
    /// The system does not tell.
    #[error("cannot ask for the privileges of this process")]
    Unknown(#[from] io::Error),
}

/// Whether this process may do all that a zone needs.
///
/// # Errors
/// When it may not, or the system does not tell.
pub fn check() -> Result<(), Lacking> {
    let user = Uid::effective();
    if !user.is_root() {
        return Err(Lacking::Root(user));
    }
    match sets::reduced()? {
        Some(set) => Err(Lacking::Privileges(set)),
        None => Ok(()),
    }
}

#[cfg(target_os = "illumos")]
mod sets {
    use std::{
        ffi::{CStr, c_char, c_int, c_void},
        io, ptr,
    };

    /// `boolean_t` of `<sys/types.h>`: an enum with `B_FALSE` 0.
    type Boolean = c_int;

    // getppriv(2), priv_addset(3C); `priv_ptype_t` is a string, `priv_set_t` opaque.
    unsafe extern "C" {
        fn priv_allocset() -> *mut c_void;
        fn priv_freeset(set: *mut c_void);
        fn priv_isfullset(set: *const c_void) -> Boolean;
        fn getppriv(which: *const c_char, set: *mut c_void) -> c_int;
    }

    /// `PRIV_EFFECTIVE` and `PRIV_LIMIT` of `<sys/priv_names.h>`.
    const SETS: [(&CStr, &str); 2] = [(c"Effective", "effective"), (c"Limit", "limit")];

    /// A set that is not full.
    pub fn reduced() -> io::Result<Option<&'static str>> {
        // SAFETY: it takes nothing, and its result is checked before use.
        let set = Set(ptr::NonNull::new(unsafe { priv_allocset() }).ok_or_else(io::Error::last_os_error)?);
        for (which, name) in SETS {
            // SAFETY: `which` ends with a zero, and the set was allocated by priv_allocset.
            if unsafe { getppriv(which.as_ptr(), set.0.as_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: getppriv filled the set.
            if unsafe { priv_isfullset(set.0.as_ptr()) } == 0 {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    struct Set(ptr::NonNull<c_void>);

    impl Drop for Set {
        fn drop(&mut self) {
            // SAFETY: allocated by priv_allocset, freed once.
            unsafe { priv_freeset(self.0.as_ptr()) };
        }
    }
}

#[cfg(not(target_os = "illumos"))]
mod sets {
    use std::io;

    /// Only illumos has such sets.
    pub fn reduced() -> io::Result<Option<&'static str>> {
        Ok(None)
    }
}
