//! `images`, `aliases` and `sizes`: what `runs-on` can ask for, and what its machines get.

use std::collections::BTreeMap;

use super::{
    Backend, Image,
    read::{Map, Reader, shown},
    zone,
};
use crate::{
    model::{names::Label, size::Size},
    yaml::{Node, Value, nearest},
};

/// A size; `ceiling` is how many virtual processors this node's machines can have, where that is known.
fn read_size(
    reader: &mut Reader,
    node: &Node,
    path: &str,
    presets: &BTreeMap<String, Size>,
    ceiling: Option<u32>,
) -> Option<Size> {
    let size = read_any_size(reader, node, path, presets)?;
    if let Some(most) = ceiling.filter(|most| size.cpus > *most) {
        let message = format!("{path} has {} processors, and bhyve takes {most} here", size.cpus);
        let help = "ask for fewer, or raise zone.max_vcpus where this host's bhyve takes more".to_owned();
        reader.problem(node.span, message, help);
    }
    Some(size)
}

fn read_any_size(reader: &mut Reader, node: &Node, path: &str, presets: &BTreeMap<String, Size>) -> Option<Size> {
    if let Some(text) = node.scalar().map(|scalar| &scalar.written) {
        let found = presets.get(text).copied();
        if found.is_none() {
            let help = format!("possible: {}", presets.keys().cloned().collect::<Vec<_>>().join(", "));
            reader.problem(node.span, format!("{path}: there is no size `{}`", shown(text)), help);
        }
        return found;
    }
    let map = reader.map(node, path, &["cpus", "memory_mib", "disk_gib"]);
    let default = Size::default();
    let number = |reader: &mut Reader, key: &str, range| reader.number(map.get(key), &map.path(key), range);
    Some(Size {
        cpus: reader
            .number(map.get("cpus"), &map.path("cpus"), 1..=256)
            .unwrap_or(default.cpus),
        memory_mib: number(reader, "memory_mib", 64..=4 << 20).unwrap_or(default.memory_mib),
        disk_gib: number(reader, "disk_gib", 1..=64 << 10),
    })
}

pub(super) fn sizes(reader: &mut Reader, top: &Map<'_>, ceiling: Option<u32>) -> BTreeMap<String, Size> {
    let mut sizes = Size::presets();
    let entries = top
        .get("sizes")
        .map(|node| reader.entries(node, "sizes"))
        .unwrap_or_default();
    for (key, node) in entries {
        // A size's name has the rule of a label's: both stand in workflow files.
        let Some(name) = reader.key::<Label>(key) else {
            continue;
        };
        if !matches!(node.value, Value::Mapping(_)) {
            reader.problem(
                node.span,
                format!("sizes.{name} must be a mapping of cpus, memory_mib and disk_gib"),
                None,
            );
        } else if let Some(size) = read_size(reader, node, &format!("sizes.{name}"), &BTreeMap::new(), ceiling) {
            sizes.insert(name.to_string(), size);
        }
    }
    sizes
}

pub(super) fn images(
    reader: &mut Reader,
    top: &Map<'_>,
    sizes: &BTreeMap<String, Size>,
    backend: Backend,
    ceiling: Option<u32>,
) -> BTreeMap<Label, Image> {
    let mut images = BTreeMap::new();
    let entries = top
        .get("images")
        .map(|node| reader.entries(node, "images"))
        .unwrap_or_default();
    for (key, node) in entries {
        let Some(label) = reader.key::<Label>(key) else {
            continue;
        };
        let path = format!("images.{label}");
        let known = [
            "disk",
            "kind",
            "attributes",
            "sha256",
            "kernel",
            "initrd",
            "cmdline",
            "size",
            "boot_timeout_s",
        ];
        let map = reader.map(node, &path, &known);
        if map.get("disk").is_none() && backend != Backend::Zone {
            reader.problem(
                key.span,
                format!("{path}.disk is missing"),
                "write the path of its golden disk".to_owned(),
            );
        }
        let sha256 = map.get("sha256").and_then(|node| {
            let text = reader.text(node, &map.path("sha256"))?.to_owned();
            let fits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !fits {
                reader.problem(
                    node.span,
                    format!("{path}.sha256 must be 64 lower-case hexadecimal digits"),
                    None,
                );
            }
            fits.then_some(text)
        });
        let image = Image {
            disk: reader.path(map.get("disk"), &map.path("disk")),
            kind: zone::kind(reader, &map),
            attributes: zone::attributes(reader, &map),
            sha256,
            kernel: reader.path(map.get("kernel"), &map.path("kernel")),
            initrd: reader.path(map.get("initrd"), &map.path("initrd")),
            cmdline: map
                .get("cmdline")
                .and_then(|n| reader.text(n, &map.path("cmdline")))
                .map(str::to_owned),
            size: map
                .get("size")
                .and_then(|n| read_size(reader, n, &map.path("size"), sizes, ceiling))
                .unwrap_or_default(),
            boot_timeout_s: reader
                .number(map.get("boot_timeout_s"), &map.path("boot_timeout_s"), 1..=3600)
                .unwrap_or(120),
        };
        if backend == Backend::Zone {
            zone::check_attributes(reader, &map, &image);
        }
        for (key, given) in [("initrd", image.initrd.is_some()), ("cmdline", image.cmdline.is_some())] {
            if given && map.get("kernel").is_none() {
                let at = map.get(key).map_or(map.span, |node| node.span);
                reader.problem(at, format!("{path}.{key} has no meaning without {path}.kernel"), None);
            }
        }
        images.insert(label, image);
    }
    images
}

pub(super) fn aliases(reader: &mut Reader, top: &Map<'_>, images: &BTreeMap<Label, Image>) -> BTreeMap<Label, Label> {
    let mut aliases = BTreeMap::new();
    let entries = top
        .get("aliases")
        .map(|node| reader.entries(node, "aliases"))
        .unwrap_or_default();
    for (key, node) in entries {
        let path = format!("aliases.{}", shown(&key.text));
        let (Some(alias), Some(target)) = (reader.key::<Label>(key), reader.parsed::<Label>(Some(node), &path)) else {
            continue;
        };
        if images.contains_key(&alias) {
            reader.problem(
                key.span,
                format!("`{alias}` is an image; an alias needs another name"),
                None,
            );
        }
        if !images.contains_key(&target) {
            let near = nearest(target.as_str(), images.keys().map(Label::as_str));
            let help = near.map(|near| format!("did you mean `{near}`?"));
            reader.problem(node.span, format!("{path} names `{target}`, which is no image"), help);
        }
        aliases.insert(alias, target);
    }
    aliases
}
