//! bhyve's options as the brand makes them of a zone's configuration (`boot.py` of omniosorg/pkg5, branches r151054 to
//! r151058 and master), in its order. What it does not know it ignores without a word, so this is compared with its
//! own dry run wherever there is one.

use crate::{machine::zone::config::ZoneConfig, model::illumos::release::Release};

const FIRMWARE: &str = "/usr/share/bhyve/firmware";

struct Brand<'a> {
    config: &'a ZoneConfig,
    release: Release,
}

impl Brand<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let known = crate::config::brand_since(name).is_none_or(|since| self.release >= since);
        self.config.attr(name).filter(|_| known)
    }

    fn is_on(&self, name: &str, default: bool) -> bool {
        let on = |text: String| ["true", "yes", "on", "1"].contains(&text.as_str());
        self.get(name).map_or(default, on)
    }

    /// The interface of a disk: its own attribute, or the one for all.
    fn disk_interface(&self, own: &str) -> String {
        let named = self.get(own).or_else(|| self.get("diskif"));
        match named.as_deref() {
            None | Some("virtio") => "virtio-blk".to_owned(),
            Some("ahci") => "ahci-hd".to_owned(),
            Some(other) => other.to_owned(),
        }
    }
}

/// The options of a release for processors, memory, firmware, console, and the slots of boot disk, seed, network and
/// random numbers.
pub(super) fn of(config: &ZoneConfig, release: Release) -> Vec<String> {
    let brand = Brand { config, release };
    let kind = brand.get("type");
    let mut options = Vec::new();
    if kind.as_deref() == Some("openbsd") {
        options.push("-w".to_owned());
    }
    options.push(format!("-c {}", brand.get("vcpus").unwrap_or_default()));
    options.push(format!("-m {}", brand.get("ram").unwrap_or_default()));
    let firmware = brand.get("bootrom").unwrap_or_default();
    let variables = match brand.is_on("uefivars", true) && !firmware.contains("_CSM") {
        true => ",/etc/uefivars",
        false => "",
    };
    options.push(format!("-l bootrom,{FIRMWARE}/{firmware}.fd{variables}"));
    match brand.get("hostbridge").as_deref() {
        Some("none") => {}
        model => options.push(format!("-s 0,hostbridge,model={}", model.unwrap_or("i440fx"))),
    }
    // Windows finds its serial port in this slot only.
    let lpc = if kind.as_deref() == Some("windows") { 31 } else { 1 };
    options.push(format!("-s {lpc},lpc"));
    options.push("-l com1,/dev/zconsole".to_owned());
    for device in &config.devices {
        options.push(format!("-s 4:0,{},{device}", brand.disk_interface("bootdiskif")));
    }
    if let Some(seed) = brand.get("disk0") {
        options.push(format!("-s 5:0,{},{seed}", brand.disk_interface("diskif0")));
    }
    let interface = match brand.get("netif").as_deref() {
        None | Some("virtio") => "virtio-net-viona".to_owned(),
        Some(other) => other.to_owned(),
    };
    options.push(format!("-s 6:0,{interface},{}", config.vnic));
    if brand.is_on("rng", false) {
        options.push("-s 10:0,virtio-rnd".to_owned());
    }
    options
}
