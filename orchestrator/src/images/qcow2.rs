//! The header of a qcow2 file, read by ourselves: a foreign image may name other files of this host
//! as its backing or data file, and QEMU would open them.

use std::{fs::File, io::Read, path::Path};

/// What we want to know of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// The disk's size as the guest sees it, in bytes.
    pub virtual_size: u64,
}

/// An image that is not used.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
    /// It is something else.
    #[error("is not a qcow2 image; convert it with qemu-img convert -O qcow2")]
    Magic,
    /// It ends within its header.
    #[error("is cut short: its header is not whole")]
    Short,
    /// A header that makes no sense.
    #[error("has a broken qcow2 header: {0}")]
    Broken(&'static str),
    /// It needs another file.
    #[error("refers to another file ({0}); flatten it with qemu-img convert -O qcow2")]
    Refers(&'static str),
    /// It is encrypted.
    #[error("is encrypted, which golden images must not be")]
    Encrypted,
}

/// The part of the file that may hold header and extensions that we read.
const HEAD: u64 = 64 * 1024;
/// The largest disk that makes sense: 64 TiB.
const LARGEST: u64 = 64 << 40;
/// Header extension: the name of an external data file.
const DATA_FILE_NAME: u32 = 0x4441_5441;
/// Incompatible feature: the data is in an external file.
const DATA_FILE: u64 = 1 << 2;

/// Reads and checks an image's header.
///
/// # Errors
/// When it is no whole qcow2 image that stands alone.
pub fn read(path: &Path) -> Result<Header, Qcow2Error> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEAD).read_to_end(&mut head))
        .map_err(Qcow2Error::Io)?;
    parse(&head)
}

fn u32_at(head: &[u8], at: usize) -> Result<u32, Qcow2Error> {
    let bytes = at
        .checked_add(4)
        .and_then(|end| head.get(at..end))
        .ok_or(Qcow2Error::Short)?;
    Ok(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
}

fn u64_at(head: &[u8], at: usize) -> Result<u64, Qcow2Error> {
    Ok(u64::from(u32_at(head, at)?) << 32 | u64::from(u32_at(head, at + 4)?))
}

fn parse(head: &[u8]) -> Result<Header, Qcow2Error> {
    if !head.starts_with(b"QFI\xfb") {
        return Err(Qcow2Error::Magic);
    }
    let version = u32_at(head, 4)?;
    if !matches!(version, 2 | 3) {
        return Err(Qcow2Error::Broken("its version is neither 2 nor 3"));
    }
    if u64_at(head, 8)? != 0 || u32_at(head, 16)? != 0 {
        return Err(Qcow2Error::Refers("a backing file"));
    }
    if !(9..=21).contains(&u32_at(head, 20)?) {
        return Err(Qcow2Error::Broken("its cluster size is out of range"));
    }
    let virtual_size = u64_at(head, 24)?;
    if virtual_size == 0 || virtual_size > LARGEST {
        return Err(Qcow2Error::Broken("its disk size is zero or absurd"));
    }
    if u32_at(head, 32)? != 0 {
        return Err(Qcow2Error::Encrypted);
    }
    let mut at = 72;
    if version == 3 {
        if u64_at(head, 72)? & DATA_FILE != 0 {
            return Err(Qcow2Error::Refers("an external data file"));
        }
        at = u32_at(head, 100)? as usize;
        if !(104..=4096).contains(&at) || at % 8 != 0 {
            return Err(Qcow2Error::Broken("its header length is out of range"));
        }
    }
    // Extensions: type, length, data padded to 8 bytes; type 0 ends them.
    loop {
        let kind = u32_at(head, at)?;
        let length = u32_at(head, at + 4)? as usize;
        match kind {
            0 => break,
            DATA_FILE_NAME => return Err(Qcow2Error::Refers("an external data file")),
            _ => {
                at = at
                    .checked_add(8 + length.next_multiple_of(8))
                    .ok_or(Qcow2Error::Short)?
            }
        }
    }
    Ok(Header { version, virtual_size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exec::Cmd;

    fn create(args: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let made = Cmd::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .args(args)
            .cwd(dir.path());
        made.run_blocking().unwrap().ok().unwrap();
        let path = dir.path().join("a.qcow2");
        (dir, path)
    }

    #[test]
    fn images_of_the_real_tool_are_understood() {
        for compat in ["compat=0.10", "compat=1.1"] {
            let (_dir, path) = create(&["-o", compat, "a.qcow2", "3M"]);
            assert_eq!(read(&path).unwrap().virtual_size, 3 << 20, "{compat}");
        }
    }

    #[test]
    fn images_that_refer_to_other_files_are_refused() {
        let (_dir, path) = create(&["-u", "-F", "raw", "-b", "/etc/passwd", "a.qcow2", "3M"]);
        assert!(matches!(read(&path), Err(Qcow2Error::Refers("a backing file"))));
        let (_dir, path) = create(&["-o", "data_file=d.raw", "a.qcow2", "3M"]);
        assert!(matches!(read(&path), Err(Qcow2Error::Refers("an external data file"))));
        // The name alone, the feature bit cleared.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[79] &= !4;
        assert!(matches!(
            parse(&bytes),
            Err(Qcow2Error::Refers("an external data file"))
        ));
    }

    #[test]
    fn every_cut_of_a_header_is_refused() {
        let (_dir, path) = create(&["a.qcow2", "3M"]);
        let bytes = std::fs::read(&path).unwrap();
        for end in 0..112 {
            assert!(parse(&bytes[..end]).is_err(), "{end}");
        }
        assert!(matches!(parse(b"KDMV"), Err(Qcow2Error::Magic)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut head in prop::collection::vec(any::<u8>(), 8..600), three in any::<bool>()) {
            head[..8].copy_from_slice(if three { b"QFI\xfb\0\0\0\x03" } else { b"QFI\xfb\0\0\0\x02" });
            let _any = parse(&head);
        }
    }
}
