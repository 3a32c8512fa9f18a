//! pfexec(1): the same command with its profile's powers, which here are none.

use std::{
    ffi::CString,
    io,
    path::{Path, PathBuf},
};

/// Replaces this process. A program that these links hold is taken from `ILLUMOS_SIM_LINKS` if it is set.
///
/// # Errors
/// There is no such program.
pub fn exec(args: &[String]) -> io::Result<u8> {
    let Some((program, _)) = args.split_first() else {
        eprintln!("pfexec: no command specified\nusage: pfexec [-P privset] cmd [arg ..]");
        return Ok(1);
    };
    if program.starts_with('-') {
        eprintln!("pfexec: illegal option -- {program}\nusage: pfexec [-P privset] cmd [arg ..]");
        return Ok(1);
    }
    let plain = PathBuf::from(program);
    let linked = std::env::var_os("ILLUMOS_SIM_LINKS")
        .map(|links| Path::new(&links).join(plain.file_name().unwrap_or_default()))
        .filter(|path| path.exists());
    let path = CString::new(linked.unwrap_or(plain).into_os_string().into_encoded_bytes())?;
    let argv: Vec<CString> = args
        .iter()
        .map(|arg| CString::new(arg.as_str()))
        .collect::<Result<_, _>>()?;
    match nix::unistd::execv(&path, &argv) {
        Ok(never) => match never {},
        Err(errno) => {
            eprintln!("pfexec: {program}: {}", errno.desc());
            Ok(1)
        }
    }
}
