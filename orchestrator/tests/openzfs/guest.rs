//! The guest: boots it with this test program in its initrd, and hears what that says.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use super::{deadline, prerequisites};

/// The pool of everything, and one that is to be filled.
const DISKS: [(&str, u64); 2] = [("large", 8 << 30), ("small", 96 << 20)];

/// It does not outlive the test, however that ends.
struct Qemu(Child);

impl Qemu {
    fn end(&mut self) {
        let _ended_or_hangs = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

/// The folder of `make openzfs`, when it was made.
pub fn image() -> Option<PathBuf> {
    let built = prerequisites::built("openzfs", "HELIOS_CI_OPENZFS");
    if built.is_none() {
        prerequisites::skip_unless_full("no OpenZFS guest (`make openzfs`)");
    }
    built
}

fn run_here(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// Lays a program without its debugging information, and the libraries that it has on this host.
fn lay(program: &Path, name: &str, inner: &Path) {
    run_here(Command::new("strip").arg("-o").arg(inner.join(name)).arg(program));
    for line in run_here(Command::new("ldd").arg(program)).lines() {
        let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
            continue;
        };
        let file = Path::new(library).file_name().expect("a library's name");
        let file = file.to_str().expect("a plain name");
        let file = if file.starts_with("ld-linux") { "ld.so" } else { file };
        fs::copy(library, inner.join("lib").join(file)).expect("a library");
    }
}

/// An empty disk that is one partition: a whole one `zpool` would divide itself, and wait for udev to name the parts.
fn partitioned(disk: &Path, bytes: u64) -> io::Result<()> {
    const START: u32 = 2048;
    let sectors = u32::try_from(bytes / 512).expect("a small disk") - START;
    let mut table = [0; 66];
    // The first of four entries: type 0xbf, first sector, how many; then the mark of a table.
    table[4] = 0xbf;
    table[8..12].copy_from_slice(&START.to_le_bytes());
    table[12..16].copy_from_slice(&sectors.to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    let file = fs::File::create(disk)?;
    file.set_len(bytes)?;
    file.write_all_at(&table, 446)
}

/// Runs this program inside with these arguments; returns all that the console said.
pub fn run(image: &Path, arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("root");
    let inner = root.join("inner");
    fs::create_dir_all(inner.join("lib")).expect("folders");
    lay(&std::env::current_exe().expect("this program"), "program", &inner);
    lay(Path::new(env!("CARGO_BIN_EXE_helios-ci")), "helios-ci", &inner);
    fs::write(inner.join("arguments"), arguments.join("\n") + "\n").expect("a file");

    // The kernel unpacks one archive after the other.
    let initrd = dir.path().join("initrd");
    fs::copy(image.join("initrd.img"), &initrd).expect("the initrd");
    run_here(Command::new("chmod").arg("u+w").arg(&initrd));
    let pack = "find inner | cpio --quiet -o -H newc >>../initrd";
    run_here(Command::new("sh").args(["-ec", pack]).current_dir(&root));

    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1280",
    ])
    .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
    .arg("-kernel")
    .arg(image.join("vmlinuz"))
    .arg("-initrd")
    .arg(&initrd)
    .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check"]);
    for (name, bytes) in DISKS {
        let disk = dir.path().join(name);
        partitioned(&disk, bytes).expect("a disk");
        qemu.arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()));
    }
    let mut qemu = Qemu(qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("QEMU"));
    let console = BufReader::new(qemu.0.stdout.take().expect("a console"));
    let (says, heard) = mpsc::channel();
    let began = Instant::now();
    let reader = std::thread::spawn(move || {
        for line in console.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            // Seen at once with `--nocapture`.
            eprintln!("guest, {} s: {line}", began.elapsed().as_secs());
            if says.send(line).is_err() {
                break;
            }
        }
    });
    let (mut said, until) = (String::new(), Instant::now() + deadline::OPENZFS);
    loop {
        match heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                said.push_str(&line);
                said.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                said.push_str("the guest did not end in time\n");
                break;
            }
        }
    }
    qemu.end();

    reader.join().expect("the console's reader");
    said
}
