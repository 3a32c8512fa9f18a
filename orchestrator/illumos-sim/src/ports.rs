//! Names of ports: the host's services file.

use crate::{files, host::Host};

pub const FILE: &str = "etc/inet/services";

/// What a fresh host has there, as far as somebody may choose such a port for himself.
pub const FRESH: &str = "# Network services, Internet style
ssh\t\t22/tcp
domain\t\t53/udp
domain\t\t53/tcp
http\t\t80/tcp\twww www-http
sunrpc\t\t111/udp\trpcbind
sunrpc\t\t111/tcp\trpcbind
https\t\t443/tcp
nfsd\t\t2049/udp\tnfs
nfsd\t\t2049/tcp\tnfs
mysql\t\t3306/tcp
postgresql\t5432/tcp
http-alt\t8080/tcp
";

/// The services of a host.
#[derive(Debug)]
pub struct Services(Vec<Service>);

#[derive(Debug)]
struct Service {
    /// Its name, then other ones.
    names: Vec<String>,
    port: u16,
    protocol: String,
}

impl Services {
    /// Reads them; a line that is none is passed over, and without a file there are none.
    #[must_use]
    pub fn read(host: &Host) -> Self {
        let text = files::text(&host.path(FILE)).ok().flatten().unwrap_or_default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        Self(lines.filter_map(service).collect())
    }

    /// The name of a port. A rule for both protocols has it only if both call it so.
    #[must_use]
    pub fn name(&self, port: u16, protocol: &str) -> Option<&str> {
        let one = |protocol: &str| {
            let known = self
                .0
                .iter()
                .find(|known| known.port == port && known.protocol == protocol);
            known.and_then(|known| known.names.first()).map(String::as_str)
        };
        match protocol {
            "tcp/udp" => one("tcp").filter(|name| one("udp") == Some(name)),
            protocol => one(protocol),
        }
    }

    /// The port of this name, or a number itself.
    #[must_use]
    pub fn port(&self, text: &str) -> Option<u16> {
        let named = self.0.iter().find(|known| known.names.iter().any(|name| name == text));
        named.map(|known| known.port).or_else(|| text.parse().ok())
    }
}

fn service(line: &str) -> Option<Service> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let (port, protocol) = words.next()?.split_once('/')?;
    Some(Service {
        names: std::iter::once(name).chain(words.map(str::to_owned)).collect(),
        port: port.parse().ok()?,
        protocol: protocol.to_owned(),
    })
}
