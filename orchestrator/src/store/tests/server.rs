//! A Postgres server of this test program's own: Debian's packages, an empty folder, a free port.

#![allow(clippy::disallowed_methods, reason = "the server is started as a person would")]

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// Makes a cluster, starts it, says so, and ends it when its standard input ends: that is when the
/// test program does, however it does. A server refuses to run as root.
const SCRIPT: &str = r#"
set -eu
bin=$1 port=$2
dir=$(mktemp -d /tmp/hci-pg-XXXXXX)
trap 'rm -rf "$dir"' EXIT
as=
if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; as="setpriv --reuid=postgres --regid=postgres --clear-groups"; fi
$as "$bin/initdb" -D "$dir/data" -A trust -U postgres >"$dir.log" 2>&1 || { cat "$dir.log" >&2; exit 1; }
$as "$bin/postgres" -D "$dir/data" -p "$port" -k "$dir" -c listen_addresses=127.0.0.1 -c fsync=off \
    -c max_connections=1000 >"$dir.log" 2>&1 &
server=$!
until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do kill -0 $server 2>/dev/null || { cat "$dir.log" >&2; exit 1; }; sleep 0.1; done
echo ready
cat >/dev/null || :
kill -INT $server
wait $server || :
rm -f "$dir.log"
"#;

/// Held until the test program ends: then its pipe closes.
static KEEPER: Mutex<Option<Child>> = Mutex::new(None);

/// The URL of a server on which schemas may be made; `None`, with words, where Postgres is not
/// installed. `HELIOS_CI_TEST_POSTGRES` names one that is there already.
pub(super) fn url() -> Option<&'static str> {
    static URL: OnceLock<Option<String>> = OnceLock::new();
    URL.get_or_init(|| {
        if let Ok(url) = std::env::var("HELIOS_CI_TEST_POSTGRES") {
            return Some(url);
        }
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = installed
            .map(|version| version.path().join("bin"))
            .filter(|bin| bin.join("initdb").exists())
            .max();
        let Some(bin) = bin else {
            crate::prerequisites::skip_unless_full("Postgres is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "postgres-for-tests"])
            .arg(bin)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
        assert!(read.is_ok() && line == "ready\n", "Postgres did not start: {line:?}");
        *KEEPER.lock().unwrap() = Some(child);
        Some(format!("postgres://postgres@127.0.0.1:{port}/postgres"))
    })
    .as_deref()
}
