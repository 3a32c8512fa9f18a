//! A disk's bytes: out of its file, onto a volume's device, and back.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::failpoint::{self, Point};

/// What is read and written at a time: zeroes of this size are not written at all.
const BLOCK: usize = 1 << 20;
/// A zstd frame begins so (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A new volume's device can be opened after this long at the latest.
const DEVICE: Duration = Duration::from_secs(2);
/// Largest disk that is imported.
const LARGEST: u64 = 16 << 40;

/// The disk in a file, packed or not.
pub(super) fn unpacked(path: &Path) -> io::Result<Box<dyn Read>> {
    let file = File::open(path)?;
    let mut begin = [0; 4];
    let read = file.read_at(&mut begin, 0)?;
    Ok(if read == 4 && begin == ZSTD {
        // Its window is at most 128 MiB, the library's own limit.
        Box::new(zstd::Decoder::new(file)?)
    } else {
        Box::new(file)
    })
}

/// Fills a block as far as there is something; 0 at the end.
fn fill(from: &mut dyn Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match from.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Digest and size of all that is there.
pub(super) fn digest(from: &mut dyn Read) -> io::Result<(String, u64)> {
    let (mut hash, mut bytes, mut block) = (Sha256::new(), 0_u64, vec![0; BLOCK]);
    loop {
        let count = fill(from, &mut block)?;
        if count == 0 {
            break;
        }
        hash.update(&block[..count]);
        bytes += count as u64;
        if bytes > LARGEST {
            return Err(io::Error::other("the disk is larger than 16 TiB"));
        }
    }
    Ok((hex::encode(hash.finalize()), bytes))
}

/// Writes everything that is not zero to a fresh volume, which reads as zeroes.
pub(super) fn write(from: &mut dyn Read, device: &Path) -> io::Result<()> {
    let until = Instant::now() + DEVICE;
    let to = loop {
        // The device of a new volume appears when it is first looked for, or a moment later.
        match OpenOptions::new().write(true).open(device) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < until => {
                #[allow(clippy::disallowed_methods, reason = "nothing tells when a device node appears")]
                std::thread::sleep(Duration::from_millis(50));
            }
            opened => break opened?,
        }
    };
    let (mut at, mut block) = (0_u64, vec![0; BLOCK]);
    loop {
        let count = fill(from, &mut block)?;
        if count == 0 {
            break;
        }
        // A raw device takes whole sectors; what is beyond the end of the disk is zero anyway.
        let whole = count.next_multiple_of(512).min(BLOCK);
        block[count..whole].fill(0);
        if block[..whole].iter().any(|byte| *byte != 0) {
            to.write_all_at(&block[..whole], at)?;
            failpoint::hit(Point::ImageBlockWritten);
        }
        at += count as u64;
    }
    let mut to = to;
    to.flush()?;
    to.sync_all()
}

/// The digest of a volume's first bytes, and whether the rest is zero. Exactly `size` bytes are read, which are all that
/// the volume has: a raw device of illumos answers a read at its end with EIO, not with 0 (`zvol_read` in
/// uts/common/fs/zfs/zvol.c).
pub(super) fn read_back(device: &Path, bytes: u64, size: u64) -> io::Result<(String, bool)> {
    compared(&mut File::open(device)?, bytes, size)
}

/// Reads the first sector, which every volume has.
pub(super) fn first_block(device: &Path) -> io::Result<()> {
    File::open(device)?.read_exact(&mut [0; 512])
}

fn compared(from: &mut dyn Read, bytes: u64, size: u64) -> io::Result<(String, bool)> {
    let (mut hash, mut disk_left, mut zero, mut block) = (Sha256::new(), bytes, true, vec![0; BLOCK]);
    let mut left = size;
    while left > 0 {
        // Whole sectors, as a volume's size is: a raw device takes nothing else.
        let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        from.read_exact(&mut block[..part])?;
        let (disk, rest) = block[..part].split_at(usize::try_from(disk_left).unwrap_or(part).min(part));
        hash.update(disk);
        disk_left -= disk.len() as u64;
        zero &= rest.iter().all(|byte| *byte == 0);
        left -= part as u64;
    }
    Ok((hex::encode(hash.finalize()), zero && disk_left == 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::illumos::names::VolumeSize;

    #[test]
    fn a_packed_disk_is_whole_and_needs_no_more_memory_than_is_usual() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.zst");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            digest(&mut unpacked(&file).unwrap())
        };
        let half = zstd::encode_all([7; 100_000].as_slice(), 1).unwrap();
        // Several frames are one disk, as `zstd` itself reads them.
        assert_eq!(read(&[half.as_slice(), &half].concat()).unwrap().1, 200_000);
        read(&half[..half.len() - 1]).unwrap_err();
        read(&[half.as_slice(), b"more"].concat()).unwrap_err();
        // A frame may ask for gigabytes.
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(30).unwrap();
        encoder.write_all(&[7; 100_000]).unwrap();
        let greedy = encoder.finish().unwrap();
        let error = read(&greedy).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    /// A raw device as illumos has it: lengths and places are whole sectors, and there is no end of file.
    struct Raw(io::Cursor<Vec<u8>>);

    impl Read for Raw {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if !to.len().is_multiple_of(512) || !self.0.position().is_multiple_of(512) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            if self.0.position() >= self.0.get_ref().len() as u64 {
                return Err(io::Error::from_raw_os_error(nix::libc::EIO));
            }
            self.0.read(to)
        }
    }

    #[test]
    fn a_raw_device_is_read_in_whole_sectors_and_never_past_its_end() {
        for size in [1, 512, 100_003, BLOCK, BLOCK + 1, 2 * BLOCK + 511] {
            let disk = vec![7; size];
            let mut volume = disk.clone();
            let whole = VolumeSize::at_least((size + 2 * BLOCK) as u64).bytes();
            volume.resize(usize::try_from(whole).unwrap(), 0);
            let wanted = hex::encode(Sha256::digest(&disk));
            let read = |volume: &[u8], whole| compared(&mut Raw(io::Cursor::new(volume.to_vec())), size as u64, whole);
            assert_eq!(read(&volume, whole).unwrap(), (wanted.clone(), true), "{size}");
            *volume.last_mut().unwrap() = 1;
            assert_eq!(read(&volume, whole).unwrap(), (wanted, false), "{size}");
            // A volume that is smaller than it was made is no end that one may come to.
            let error = read(&volume, whole + 512).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// A sparse file stands for the volume.
        #[test]
        fn what_is_written_is_read_back_whatever_its_size(
            size in 0usize..3_000_000, packed: bool, holes in prop::collection::vec(0usize..3_000_000, 0..4),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (source, device) = (dir.path().join("disk"), dir.path().join("device"));
            let mut disk: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap() + 1).collect();
            for hole in holes {
                let end = (hole + 1_200_000).min(size);
                disk[hole.min(end)..end].fill(0);
            }
            let bytes = if packed { zstd::encode_all(disk.as_slice(), 1).unwrap() } else { disk.clone() };
            std::fs::write(&source, bytes).unwrap();
            let volume = File::create(&device).unwrap();
            let whole = VolumeSize::at_least(size as u64).bytes();
            volume.set_len(whole).unwrap();
            let (wanted, length) = digest(&mut unpacked(&source).unwrap()).unwrap();
            prop_assert_eq!(length, size as u64);
            prop_assert_eq!(&wanted, &hex::encode(Sha256::digest(&disk)));
            write(&mut unpacked(&source).unwrap(), &device).unwrap();
            prop_assert_eq!(read_back(&device, length, whole).unwrap(), (wanted.clone(), true));
            if size > 0 {
                volume.write_all_at(&[disk[size - 1].wrapping_add(1)], length - 1).unwrap();
                prop_assert_ne!(read_back(&device, length, whole).unwrap(), (wanted, true));
            }
        }
    }
}
