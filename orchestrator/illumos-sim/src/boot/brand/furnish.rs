//! What the hook does beside the command line: the order of booting, and files in the zone's root.

use std::fs;

use super::{FIRMWARE_DIR, Machine, Seed};
use crate::{
    files,
    host::Host,
    zonecfg::{self, Config},
};

/// The shell that is built into the firmware.
pub(super) const SHELL: &str = "7c04a583-9e3e-4f1c-ad65-e05268d0b4d1";

impl Machine {
    /// Whether the firmware is told of this entry of a boot order; what nothing is known of is left out.
    fn resolves(&self, entry: &str) -> Result<bool, String> {
        let numbered = |kind: &str, bare: bool| {
            let digits = entry.strip_prefix(kind);
            digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()) && (bare || !digits.is_empty()))
        };
        if numbered("path", true) || numbered("boot", false) {
            return Ok(true);
        }
        let mut name = entry;
        if entry.starts_with("net") {
            match entry.split('=').collect::<Vec<_>>()[..] {
                [_] | [_, "pxe" | "http" | ""] => {}
                [card, protocol] => return Err(format!("Invalid protocol '{protocol}' for '{card}'")),
                _ => return Err("ValueError: too many values to unpack (expected 2)".into()),
            }
            name = entry.split('=').next().unwrap_or_default();
        }
        Ok(self.boot_options.iter().any(|(known, _)| known == name))
    }

    /// Whether the firmware is to do something else at the next boot only. Without variables of its own nobody asks.
    fn boots_once(&self) -> Result<bool, String> {
        if !self.uefivars {
            return Ok(false);
        }
        for entry in self.options.get("bootorder").split(',') {
            self.resolves(entry)?;
        }
        match self.options.get("bootnext") {
            "" => Ok(false),
            entry => self.resolves(entry),
        }
    }
}

/// What the hook puts into the zone's root before bhyve starts.
///
/// # Errors
/// The sentence it fails with.
pub fn furnish(host: &Host, config: &Config, machine: &Machine) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("I/O error of the simulator: {error}");
    let root = host.path(&config.zonepath).join("root");
    let vars = root.join("etc/uefivars");
    // The guest's own settings: kept from boot to boot.
    if machine.uefivars && !vars.exists() {
        let template = format!("{FIRMWARE_DIR}/BHYVE_VARS.fd");
        if !host.path(&template).is_file() {
            return Err(format!("Could not find template UEFI variables file at {template}"));
        }
        fs::copy(host.path(&template), vars).map_err(broken)?;
    }
    if machine.boots_once()? {
        // The zone's own configuration forgets it.
        let mut left = config.clone();
        left.resources
            .retain(|attr| attr.kind != "attr" || attr.get("name") != "bootnext");
        files::replace(
            &zonecfg::file(host, &config.name),
            zonecfg::xml::write(&left).as_bytes(),
        )
        .map_err(broken)?;
    }
    if let Seed::Made(file) = &machine.seed {
        // A path without a file is no error: the hook then writes its own.
        let given = file.as_ref().map(|file| host.given(file)).filter(|file| file.is_file());
        let user = match given {
            Some(file) => fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?,
            None => format!("#cloud-config\ndisable_root: false\nhostname: {}\n", config.name),
        };
        let uuid = machine.uuid.as_deref().unwrap_or_default();
        let meta = format!("instance-id: {uuid}\nlocal-hostname: {}\n", config.name);
        // What is on the CD; the CD itself has no content, for no guest that has one is emulated.
        for (name, text) in [
            ("cloud-init/meta-data", meta.as_str()),
            ("cloud-init/user-data", &user),
            ("cloud-init.iso", ""),
        ] {
            files::replace(&root.join(name), text.as_bytes()).map_err(broken)?;
        }
    }
    Ok(())
}
