//! QEMU's command line: everything that decides what a guest can reach.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::accel::{Accel, SYSTEM};
use crate::{exec::Cmd, model::names::MachineName};

/// The overlay that takes the guest's writes.
pub(super) const OVERLAY: &str = "overlay.qcow2";
/// The seed disk.
pub(super) const SEED: &str = "seed.img";
/// QEMU's own monitor.
pub(super) const QMP: &str = "qmp.sock";
/// The guest's serial port.
pub(super) const CONSOLE_SOCKET: &str = "console.sock";
/// Where the daemon listens for the agent.
pub(super) const AGENT_SOCKET: &str = "agent.sock";
/// Where the daemon listens for git.
pub(super) const GIT_SOCKET: &str = "git.sock";
/// How the guest names the agent's forward.
pub(super) const AGENT_AUTHORITY: &str = "10.0.2.100:9417";
/// How the guest names git's forward.
pub(super) const GIT_AUTHORITY: &str = "10.0.2.100:9418";
/// For images with a kernel and no command line of their own. Beside other work an emulated timer may be too late for the
/// kernel's check of it at boot, which panics then (kernel-parameters.txt, `no_timer_check`); with KVM the kernel leaves
/// that check out by itself.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// What is remembered of a specification to start its guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Direct boot; the disk's own boot loader without.
    pub kernel: Option<Kernel>,
    /// UEFI firmware that starts the disk's boot loader; QEMU's own BIOS without. A plain path.
    #[serde(default)]
    pub firmware: Option<std::path::PathBuf>,
}

/// A kernel for direct boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kernel {
    /// The kernel's file on this host.
    pub image: std::path::PathBuf,
    /// Its initial RAM disk.
    pub initrd: Option<std::path::PathBuf>,
    /// Its command line.
    pub cmdline: Option<String>,
}

/// The machine's name as QEMU's `-name` has it; no child of QEMU has this argument.
pub(super) fn guest(name: &MachineName) -> String {
    format!("guest={name},process={name},debug-threads=on")
}

/// Whether a path can stand in a QEMU option and in the command of a `guestfwd`: QEMU splits the
/// first at commas and the second like a shell would, at blanks and quotes.
pub(super) fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@".contains(byte))
}

/// The command that runs a guest. `dir` and `helios_ci` are plain paths (see [`is_plain`]).
pub(super) fn command(dir: &Path, name: &MachineName, plan: &Plan, accel: Accel, helios_ci: &Path) -> Cmd {
    let at = |file: &str| dir.join(file).display().to_string();
    let relay = |authority: &str, socket: &str| {
        let (program, socket) = (helios_ci.display(), at(socket));
        format!("guestfwd=tcp:{authority}-cmd:{program} relay {socket}")
    };
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg", "max"),
    };
    let network = format!(
        "user,id=net0,restrict=on,{},{}",
        relay(AGENT_AUTHORITY, AGENT_SOCKET),
        relay(GIT_AUTHORITY, GIT_SOCKET)
    );
    let mut cmd = Cmd::new(SYSTEM)
        .args(["-name", &guest(name), "-nodefaults", "-no-user-config", "-no-reboot"])
        .args([
            "-display",
            "none",
            "-machine",
            &format!("q35,accel={accel},usb=off,vmport=off"),
        ])
        .args([
            "-cpu",
            cpu,
            "-smp",
            &plan.cpus.to_string(),
            "-m",
            &format!("{}M", plan.memory_mib),
        ])
        .args(["-rtc", "base=utc"])
        // Neither `spawn=deny` nor `elevateprivileges=deny`: the first kills QEMU at the guest's first
        // connection to a forward, the second (and `children`) the forward at its `setsid`, before
        // the relay begins. That nobody gains privileges by executing a program holds all the same:
        // loading the filter sets no_new_privs, which a test reads.
        .args(["-sandbox", "on,obsolete=deny,resourcecontrol=deny"])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", at(QMP))])
        // QEMU waits for the console's recorder, so not a byte of the boot is lost.
        .args([
            "-chardev",
            &format!("socket,id=console,path={},server=on,wait=on", at(CONSOLE_SOCKET)),
        ])
        .args(["-serial", "chardev:console"])
        // The overlay dies with the machine: nothing in it needs to survive the host.
        .args([
            "-drive",
            &format!(
                "if=none,id=disk0,file={},format=qcow2,cache=unsafe,discard=unmap",
                at(OVERLAY)
            ),
        ])
        // A kernel given to QEMU has boot index 0.
        .args(["-device", "virtio-blk-pci,drive=disk0,bootindex=1"])
        .args([
            "-drive",
            &format!("if=none,id=disk1,file={},format=raw,readonly=on", at(SEED)),
        ])
        .args(["-device", "virtio-blk-pci,drive=disk1"])
        .args(["-device", "virtio-rng-pci"])
        .args(["-netdev", &network, "-device", "virtio-net-pci,netdev=net0,romfile="]);
    if let Some(firmware) = &plan.firmware {
        // Without a second flash for variables the firmware keeps them in memory.
        let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", firmware.display());
        cmd = cmd.args(["-drive", &code]);
    }
    if let Some(kernel) = &plan.kernel {
        cmd = cmd.arg("-kernel").arg(&kernel.image);
        if let Some(initrd) = &kernel.initrd {
            cmd = cmd.arg("-initrd").arg(initrd);
        }
        cmd = cmd.args(["-append", kernel.cmdline.as_deref().unwrap_or(CMDLINE)]);
    }
    cmd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_exactly_this() {
        let name: MachineName = "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap();
        let plan = Plan {
            cpus: 2,
            memory_mib: 512,
            kernel: Some(Kernel {
                image: "/i/vmlinuz".into(),
                initrd: Some("/i/initrd.img".into()),
                cmdline: None,
            }),
            firmware: None,
        };
        let cmd = command(
            Path::new("/d/m"),
            &name,
            &plan,
            Accel::Tcg,
            Path::new("/usr/bin/helios-ci"),
        );
        let expected = "qemu-system-x86_64 \
            -name guest=hci-01k9zk6x0f5t3b8w2q7m4d1c0e,process=hci-01k9zk6x0f5t3b8w2q7m4d1c0e,debug-threads=on \
            -nodefaults -no-user-config -no-reboot -display none -machine q35,accel=tcg,usb=off,vmport=off \
            -cpu max -smp 2 -m 512M -rtc base=utc \
            -sandbox on,obsolete=deny,resourcecontrol=deny \
            -qmp unix:/d/m/qmp.sock,server=on,wait=off \
            -chardev socket,id=console,path=/d/m/console.sock,server=on,wait=on -serial chardev:console \
            -drive if=none,id=disk0,file=/d/m/overlay.qcow2,format=qcow2,cache=unsafe,discard=unmap \
            -device virtio-blk-pci,drive=disk0,bootindex=1 \
            -drive if=none,id=disk1,file=/d/m/seed.img,format=raw,readonly=on -device virtio-blk-pci,drive=disk1 \
            -device virtio-rng-pci -netdev 'user,id=net0,restrict=on,\
            guestfwd=tcp:10.0.2.100:9417-cmd:/usr/bin/helios-ci relay /d/m/agent.sock,\
            guestfwd=tcp:10.0.2.100:9418-cmd:/usr/bin/helios-ci relay /d/m/git.sock' \
            -device virtio-net-pci,netdev=net0,romfile= \
            -kernel /i/vmlinuz -initrd /i/initrd.img -append 'console=ttyS0 quiet panic=-1 no_timer_check'";
        assert_eq!(cmd.to_string(), expected);
        let firmware = Plan {
            kernel: None,
            firmware: Some("/f/OVMF_CODE.fd".into()),
            ..plan
        };
        let cmd = command(Path::new("/d/m"), &name, &firmware, Accel::Kvm, Path::new("/h")).to_string();
        assert!(
            cmd.contains("accel=kvm") && cmd.contains("-cpu host") && !cmd.contains("-append"),
            "{cmd}"
        );
        let code = "-drive if=pflash,unit=0,format=raw,readonly=on,file=/f/OVMF_CODE.fd";
        assert!(cmd.ends_with(code), "{cmd}");
    }

    #[test]
    fn paths_that_qemu_would_split_are_not_plain() {
        for path in [
            "/a b", "/a,b", "/a'b", "/a\"b", "a/b", "/a\nb", "/a$b", "/a\\b", "/a;b", "",
        ] {
            assert!(!is_plain(Path::new(path)), "{path}");
        }
        assert!(is_plain(Path::new("/var/lib/helios-ci_2/x.y+z@w")));
    }
}
