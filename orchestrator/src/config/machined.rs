//! `machined`: the privileged process that keeps the machines.

use std::path::Path;

use super::{
    Backend, Machined,
    read::{Map, Reader, shown},
};

/// Zones are made by root alone, so with them there is always a machined.
pub(super) fn read(reader: &mut Reader, top: &Map<'_>, backend: Backend, data_dir: &Path) -> Option<Machined> {
    let zones = backend == Backend::Zone;
    let default = Machined {
        socket: if zones {
            "/var/run/helios-ci/machined.sock".into()
        } else {
            data_dir.join("machined.sock")
        },
        user: zones.then(|| "helios-ci".to_owned()),
    };
    let Some(node) = top.get("machined") else {
        return zones.then_some(default);
    };
    let map = reader.map(node, "machined", &["socket", "user"]);
    let socket = reader.path(map.get("socket"), "machined.socket");
    let user = map.get("user").and_then(|node| {
        let user = reader.text(node, "machined.user")?;
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if user.is_empty() || user.len() > 32 || !user.bytes().all(plain) {
            reader.problem(
                node.span,
                format!("machined.user `{}` is no user's name", shown(user)),
                "1 to 32 letters, digits, `-`, `_` and `.`".to_owned(),
            );
            return None;
        }
        Some(user.to_owned())
    });
    Some(Machined {
        socket: socket.unwrap_or(default.socket),
        user: user.or(default.user),
    })
}
