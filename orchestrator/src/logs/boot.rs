//! Which boot of the host this is: after another one, what was written but not synced may be gone.

/// A text that differs between two boots of this host; none where it cannot be read, and every
/// opening of a log then counts as one after a power loss, which costs readers a fresh start only.
#[cfg(target_os = "linux")]
pub(super) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// See above. illumos counts its boots nowhere, and `/proc/1` is not there for a service without the privileges
/// `proc_info` and `proc_session`; when this host or zone was booted stands in the user accounting database, for
/// everybody. svc.startd writes it once for each boot, before it starts any service like this one. A clock that is
/// set later is recorded in entries of other types beside it.
#[cfg(target_os = "illumos")]
pub(super) fn boot_id() -> Option<String> {
    accounting::boot_time()
}

/// See above.
#[cfg(not(any(target_os = "linux", target_os = "illumos")))]
pub(super) fn boot_id() -> Option<String> {
    None
}

/// getutxent(3C), as illumos and the GNU library have it: its tests run on either.
#[cfg(any(target_os = "illumos", all(test, target_env = "gnu")))]
mod accounting {
    use std::sync::{Mutex, PoisonError};

    use nix::libc;

    /// The library has one place in the database for the whole process, and nothing else here uses it.
    static READING: Mutex<()> = Mutex::new(());

    /// When the system says that it was booted: seconds and microseconds since 1970.
    pub(super) fn boot_time() -> Option<String> {
        let _reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: it takes nothing; nobody else uses the database now.
        unsafe { libc::setutxent() };
        let mut found = None;
        while found.is_none() {
            // SAFETY: what it returns is null or an entry in the library's own memory, which lives until the next of
            // these calls and is read before that.
            let Some(entry) = (unsafe { libc::getutxent().as_ref() }) else {
                break;
            };
            let at = entry.ut_tv;
            if entry.ut_type == libc::BOOT_TIME {
                found = Some(format!("{}.{:06}", at.tv_sec, at.tv_usec));
            }
        }
        // SAFETY: it takes nothing; no entry is looked at any more.
        unsafe { libc::endutxent() };
        found
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::{ffi::CString, mem, os::unix::ffi::OsStrExt as _, path::Path};

    use nix::libc;

    use super::accounting::boot_time;

    /// Adds an entry to the database, as svc.startd, date(1) and logins do.
    fn put(kind: libc::c_short, id: u8, at: i32) {
        // SAFETY: all zeros are an entry without a type.
        let mut entry: libc::utmpx = unsafe { mem::zeroed() };
        entry.ut_type = kind;
        entry.ut_id[0] = id.cast_signed();
        entry.ut_tv.tv_sec = at;
        // SAFETY: the entry is whole, and is copied; nothing else here uses the database.
        unsafe {
            libc::setutxent();
            assert!(!libc::pututxline(&raw const entry).is_null());
            libc::endutxent();
        }
    }

    fn use_database(path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name ends with a zero and is copied.
        assert_eq!(unsafe { libc::utmpxname(path.as_ptr()) }, 0);
    }

    #[test]
    fn a_boot_is_the_same_until_the_next_one_whatever_else_happens() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("utmpx");
        use_database(&database);
        assert_eq!(boot_time(), None, "no database");

        std::fs::write(&database, b"").unwrap();
        assert_eq!(boot_time(), None, "an empty one");
        put(libc::RUN_LVL, b'r', 1_700_000_001);
        assert_eq!(boot_time(), None, "no boot in it");
        put(libc::BOOT_TIME, b'b', 1_700_000_000);
        let first = boot_time();
        assert_eq!(first.as_deref(), Some("1700000000.000000"));

        // Somebody logs in and sets the clock.
        put(libc::USER_PROCESS, b'u', 1_700_000_100);
        put(libc::OLD_TIME, b'o', 1_700_000_200);
        put(libc::NEW_TIME, b'n', 1_600_000_000);
        assert_eq!(boot_time(), first);

        put(libc::BOOT_TIME, b'b', 1_700_000_500);
        assert_eq!(boot_time().as_deref(), Some("1700000500.000000"));
        use_database(Path::new("/var/run/utmpx"));
    }
}
