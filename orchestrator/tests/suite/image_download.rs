//! `helios-ci image import URL`: a real server on this machine, and a client that is cut off, lied to, and killed.

#![allow(
    clippy::disallowed_methods,
    reason = "the command line is run as a person would, and killed"
)]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use helios_ci::images::download::{self, DownloadError, DownloadLimits};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::support;

/// What the server does with the next requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What RFC 9110 says.
    Well,
    /// It sends so many bytes of the answer, waits until it is told to, and breaks off.
    Stops(usize),
    /// It never answers.
    Silent,
    /// It knows no ranges.
    Whole,
    /// It sends what was asked for whether it is still the same or not.
    Careless,
    /// It does not say how long it is, nor what to call it.
    Nameless,
    /// It says that it is so long.
    Claims(u64),
}

/// What it was asked, and what it sent.
#[derive(Debug, Default)]
struct Asked {
    range: Option<String>,
    if_range: Option<String>,
    sent: u64,
}

struct Shared {
    content: Bytes,
    tag: String,
    way: Way,
    asked: Vec<Asked>,
    /// `/away` leads there.
    away: String,
}

/// A server with one file below any name, `/hop/N` that leads to it in N steps, `/none` and `/away`.
#[derive(Clone)]
struct Site {
    shared: Arc<Mutex<Shared>>,
    release: Arc<Notify>,
    port: u16,
}

async fn answer(State(site): State<Site>, request: Request) -> Response {
    let response = respond(site.clone(), &request);
    let silent = site.shared.lock().unwrap().way == Way::Silent;
    if silent {
        std::future::pending::<()>().await;
    }
    response
}

fn respond(site: Site, request: &Request) -> Response {
    let path = request.uri().path().to_owned();
    let header = |name: header::HeaderName| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let to = |place: String| {
        let head = Response::builder().status(StatusCode::FOUND);
        head.header("location", place).body(Body::from("elsewhere")).unwrap()
    };
    if let Some(hops) = path.strip_prefix("/hop/") {
        let hops: u32 = hops.parse().unwrap();
        return to(if hops > 1 {
            format!("{}", hops - 1)
        } else {
            "/disk".to_owned()
        });
    }
    let mut shared = site.shared.lock().unwrap();
    match path.as_str() {
        "/none" => return Response::builder().status(404).body(Body::empty()).unwrap(),
        "/away" => return to(shared.away.clone()),
        _ => {}
    }
    let (range, if_range) = (header(header::RANGE), header(header::IF_RANGE));
    let (way, all) = (shared.way, shared.content.len());
    let from = range.as_ref().map(|range| {
        let from = range.strip_prefix("bytes=").and_then(|rest| rest.strip_suffix('-'));
        from.expect("an open range").parse::<usize>().unwrap()
    });
    let same = way == Way::Careless || if_range.as_ref() == Some(&shared.tag);
    let from = from.filter(|_| same && !matches!(way, Way::Whole | Way::Nameless));
    let mut head = Response::builder();
    if way != Way::Nameless {
        head = head.header("etag", &shared.tag);
    }
    let rest = shared.content.slice(from.unwrap_or(0).min(all)..);
    head = match from {
        Some(from) if from >= all => head.status(416).header("content-range", format!("bytes */{all}")),
        Some(from) => head
            .status(206)
            .header("content-range", format!("bytes {from}-{}/{all}", all - 1)),
        None => head,
    };
    match way {
        Way::Claims(length) => head = head.header("content-length", length),
        Way::Nameless => {}
        _ => head = head.header("content-length", rest.len()),
    }
    let number = shared.asked.len();
    let sent = 0;
    shared.asked.push(Asked { range, if_range, sent });
    drop(shared);
    let stop = if let Way::Stops(after) = way { after } else { usize::MAX };
    let whole: Vec<Bytes> = (0..rest.len())
        .step_by(10_000)
        .map(|at| rest.slice(at..rest.len().min(at + 10_000)))
        .collect();
    let mut before = 0;
    let (counted, told) = (site.clone(), site);
    let pieces = stream::iter(whole)
        .take_while(move |piece| {
            before += piece.len();
            std::future::ready(before <= stop)
        })
        .map(move |piece| {
            counted.shared.lock().unwrap().asked[number].sent += piece.len() as u64;
            Ok(piece)
        });
    let end = stream::once(async move {
        if stop < usize::MAX {
            told.release.notified().await;
            return Err(std::io::Error::other("told to break off"));
        }
        Ok(Bytes::new())
    });
    head.body(Body::from_stream(pieces.chain(end))).unwrap()
}

impl Site {
    fn new(content: &[u8], port: u16) -> Self {
        let shared = Shared {
            content: Bytes::copy_from_slice(content),
            tag: "\"one\"".to_owned(),
            way: Way::Well,
            asked: Vec::new(),
            away: String::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            release: Arc::new(Notify::new()),
            port,
        }
    }

    async fn start(content: &[u8]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self::new(content, listener.local_addr().unwrap().port());
        let app = Router::new().fallback(answer).with_state(site.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        site
    }

    /// The same behind TLS; the certificate that a client must trust.
    async fn start_tls(content: &[u8]) -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self::new(content, listener.local_addr().unwrap().port());
        let app = Router::new().fallback(answer).with_state(site.clone());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, app) = (acceptor.clone(), app.clone());
                tokio::spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else {
                        return;
                    };
                    let service = hyper_util::service::TowerToHyperService::new(app);
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(socket), service);
                    let _ended = served.await;
                });
            }
        });
        (site, made.cert.pem())
    }

    fn way(&self, way: Way) {
        self.shared.lock().unwrap().way = way;
    }

    fn replace(&self, content: &[u8], tag: &str) {
        let mut shared = self.shared.lock().unwrap();
        shared.content = Bytes::copy_from_slice(content);
        tag.clone_into(&mut shared.tag);
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn requests(&self) -> usize {
        self.shared.lock().unwrap().asked.len()
    }

    /// What the last request asked for, and how much it got.
    fn last(&self) -> (Option<String>, Option<String>, u64) {
        let shared = self.shared.lock().unwrap();
        let asked = shared.asked.last().expect("a request");
        (asked.range.clone(), asked.if_range.clone(), asked.sent)
    }
}

/// A configuration, and what a person types with it.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::set_permissions(dir.path().join("data"), fs::Permissions::from_mode(0o700)).unwrap();
        let here = dir.path().display();
        fs::write(dir.path().join("agent"), "agent").unwrap();
        let text = format!(
            "node: n1\ndata_dir: {here}/data\nbackend: qemu\nagent: {here}/agent\n\
             images: {{tiny: {{disk: {here}/none.qcow2, size: {{cpus: 1, memory_mib: 512}}}}}}\n"
        );
        fs::write(dir.path().join("config.yaml"), text).unwrap();
        Self { dir }
    }

    fn command(&self, url: &str, digest: &str) -> Command {
        let mut command = Command::new(support::helios_ci());
        command.arg("--config").arg(self.dir.path().join("config.yaml"));
        command.args(["image", "import", url, "tiny", "--sha256", digest]);
        // Nothing goes through a proxy, whatever the environment says.
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(name, "http://127.0.0.1:1");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn import(&self, url: &str, digest: &str) -> Output {
        self.command(url, digest).output().unwrap()
    }

    fn bytes(&self) -> usize {
        let there = self.part().and_then(|part| fs::metadata(part).ok());
        there.map_or(0, |there| usize::try_from(there.len()).unwrap())
    }

    /// Starts an import from a server that stops once so many bytes are in the file.
    fn stopped(&self, site: &Site, digest: &str, bytes: usize) -> Child {
        site.way(Way::Stops(bytes - self.bytes()));
        let child = self.command(&site.url("/disk"), digest).spawn().unwrap();
        let until = Instant::now() + support::deadline::GUEST;
        while self.bytes() < bytes {
            assert!(Instant::now() < until, "{bytes} bytes never come");
            std::thread::sleep(Duration::from_millis(10));
        }
        site.way(Way::Well);
        child
    }

    /// Lets an import come to so many bytes, and no further.
    fn cut(&self, site: &Site, digest: &str, bytes: usize) {
        let child = self.stopped(site, digest, bytes);
        site.release.notify_one();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{text}");
        assert!(
            flat(&text).contains(&format!(
                "broke off; repeat the command: it continues after {bytes} bytes"
            )),
            "{text}"
        );
    }

    fn downloads(&self) -> PathBuf {
        self.dir.path().join("data/downloads")
    }

    /// All that lies among the downloads.
    fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.downloads())
            .map(|all| all.flatten().map(|e| e.file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    fn part(&self) -> Option<PathBuf> {
        let name = self.left().into_iter().find(|name| name.ends_with(".part"))?;
        Some(self.downloads().join(name))
    }

    /// The digests of what was imported.
    fn imported(&self) -> Vec<String> {
        let images = fs::read_dir(self.dir.path().join("data/images/tiny"));
        let names = images.map(|all| {
            all.flatten()
                .map(|e| e.file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        });
        let names = names.unwrap_or_default().into_iter();
        names
            .filter_map(|name| name.strip_suffix(".qcow2").map(str::to_owned))
            .collect()
    }

    /// It went well, and nothing but the disk is left.
    fn done(&self, output: &Output, digest: &str) {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        assert_eq!(
            (self.left(), self.imported()),
            (Vec::new(), vec![digest.to_owned()]),
            "{text}"
        );
    }

    /// It did not, and says why.
    fn refused(&self, output: &Output, word: &str) {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && flat(&text).contains(word),
            "no {word:?} in {text}"
        );
        assert_eq!(self.imported(), Vec::<String>::new(), "{text}");
    }
}

/// A message without the line breaks of its frame.
fn flat(text: &str) -> String {
    text.split([' ', '\n', '│'])
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn digest(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn noise(seed: u8, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..size).map(next).collect()
}

/// A qcow2 disk, another one for every seed after its first 320 KiB, and its digest.
fn disk(seed: u8) -> (Vec<u8>, String) {
    let dir = tempfile::tempdir().unwrap();
    let (raw, made) = (dir.path().join("raw"), dir.path().join("qcow2"));
    fs::write(&raw, noise(seed, 1 << 20)).unwrap();
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(&raw)
        .arg(&made);
    assert!(command.status().unwrap().success());
    let content = fs::read(made).unwrap();
    let digest = digest(&content);
    (content, digest)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_fetched_imported_and_only_then_used() {
    let ((content, sum), desk) = (disk(1), Desk::new());
    let site = Site::start(&content).await;
    let output = desk.import(&site.url("/debian.qcow2?token=geheim"), &sum.to_uppercase());
    desk.done(&output, &sum);
    let stored = desk.dir.path().join(format!("data/images/tiny/{sum}.qcow2"));
    assert_eq!(fs::read(stored).unwrap(), content);
    assert_eq!(mode(&desk.downloads()), 0o700);
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("http")).collect();
    assert_eq!(lines.len(), 2, "not on a terminal it is begin and end only: {text}");
    assert!(
        lines[0].contains("debian.qcow2: downloading ") && !text.contains("geheim"),
        "{text}"
    );
    assert_eq!(site.last(), (None, None, content.len() as u64));
    // Nothing travels for a digest that cannot be one.
    let before = site.requests();
    desk.command(&site.url("/disk"), "abc").output().unwrap();
    assert_eq!(site.requests(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_continues_where_it_ended() {
    let ((content, sum), desk) = (disk(2), Desk::new());
    let site = Site::start(&content).await;
    desk.cut(&site, &sum, 400_000);
    let part = desk.part().unwrap();
    assert_eq!((mode(&part), desk.imported()), (0o600, Vec::new()));
    assert_eq!(fs::read(&part).unwrap(), content[..400_000]);
    // And again, further on.
    desk.cut(&site, &sum, 700_000);
    assert_eq!(fs::read(&part).unwrap(), content[..700_000]);
    desk.done(&desk.import(&site.url("/disk"), &sum), &sum);
    let rest = content.len() as u64 - 700_000;
    assert_eq!(
        site.last(),
        (Some("bytes=700000-".into()), Some("\"one\"".into()), rest)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_continues_and_two_never_fetch_the_same() {
    let ((content, sum), desk) = (disk(3), Desk::new());
    let site = Site::start(&content).await;
    let mut first = desk.stopped(&site, &sum, 500_000);
    let asked = site.requests();
    desk.refused(&desk.import(&site.url("/disk"), &sum), "by another process");
    assert_eq!(site.requests(), asked, "it does not even ask");
    first.kill().unwrap();
    assert_eq!(first.wait().unwrap().signal(), Some(9));
    desk.done(&desk.import(&site.url("/disk"), &sum), &sum);
    assert_eq!(site.last().2, content.len() as u64 - 500_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_or_with_another_file_sends_all_of_it() {
    let ((content, sum), (newer, newer_sum)) = (disk(4), disk(5));
    let old = content.clone();
    for (way, content, sum, tag) in [
        (Way::Whole, &content, &sum, "\"one\""),
        (Way::Well, &newer, &newer_sum, "\"two\""),
    ] {
        let (site, desk) = (Site::start(&old).await, Desk::new());
        desk.cut(&site, sum, 600_000);
        site.replace(content, tag);
        site.way(way);
        desk.done(&desk.import(&site.url("/disk"), sum), sum);
        assert_eq!(
            site.last(),
            (
                Some("bytes=600000-".into()),
                Some("\"one\"".into()),
                content.len() as u64
            )
        );
    }
    // One that says by its tag only that it gave the rest of another file: it is asked again.
    let (site, desk) = (Site::start(&content).await, Desk::new());
    desk.cut(&site, &newer_sum, 600_000);
    site.replace(&newer, "\"two\"");
    site.way(Way::Careless);
    desk.done(&desk.import(&site.url("/disk"), &newer_sum), &newer_sum);
    assert_eq!((site.requests(), site.last()), (3, (None, None, newer.len() as u64)));
    // One that gives its file no name: nothing can be continued.
    let (site, desk) = (Site::start(&content).await, Desk::new());
    site.way(Way::Nameless);
    desk.done(&desk.import(&site.url("/disk"), &sum), &sum);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_expected_file_is_removed() {
    let ((content, sum), (newer, newer_sum), desk) = (disk(6), disk(7), Desk::new());
    let site = Site::start(&content).await;
    let output = desk.import(&site.url("/disk?token=geheim"), &newer_sum);
    desk.refused(
        &output,
        &format!("did not give the expected file: its digest is {sum}; it was removed"),
    );
    assert!(!String::from_utf8_lossy(&output.stderr).contains("geheim"));
    assert_eq!(desk.left(), Vec::<String>::new());
    // A server that takes one file for another makes a mixture: removed, and the next one is well.
    desk.cut(&site, &newer_sum, 600_000);
    site.replace(&newer, "\"one\"");
    desk.refused(&desk.import(&site.url("/disk"), &newer_sum), "it was removed");
    assert_eq!(desk.left(), Vec::<String>::new());
    desk.done(&desk.import(&site.url("/disk"), &newer_sum), &newer_sum);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_imported_is_not_fetched_again() {
    let (content, desk) = (noise(8, 1 << 20), Desk::new());
    let sum = digest(&content);
    let site = Site::start(&content).await;
    let output = desk.import(&site.url("/disk.raw"), &sum);
    desk.refused(&output, "the same command continues with it");
    assert_eq!(desk.left().len(), 2, "the file and its note");
    let output = desk
        .command(&site.url("/disk.raw"), &sum)
        .args(["--format", "raw"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((desk.left(), desk.imported().len()), (Vec::new(), 1));
    assert_eq!(site.last(), (Some("bytes=1048576-".into()), Some("\"one\"".into()), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_redirects_are_followed_and_https_is_never_left() {
    let ((content, sum), desk) = (disk(9), Desk::new());
    let site = Site::start(&content).await;
    desk.refused(
        &desk.import(&site.url("/hop/6"), &sum),
        "leads to other addresses more than 5 times",
    );
    site.shared.lock().unwrap().away = "away".to_owned();
    desk.refused(&desk.import(&site.url("/away"), &sum), "more than 5 times");
    site.shared.lock().unwrap().away = "http://ada:geheim@127.0.0.1/".to_owned();
    desk.refused(&desk.import(&site.url("/away"), &sum), "user's name");
    assert_eq!(site.requests(), 0);
    desk.done(&desk.import(&site.url("/hop/5"), &sum), &sum);

    let ((content, sum), desk) = (disk(10), Desk::new());
    let (secure, certificate) = Site::start_tls(&content).await;
    let roots = desk.dir.path().join("roots.pem");
    fs::write(&roots, certificate).unwrap();
    let import = |url: &str| desk.command(url, &sum).env("SSL_CERT_FILE", &roots).output().unwrap();
    let url = |path| format!("https://localhost:{}{path}", secure.port);
    secure.shared.lock().unwrap().away = site.url("/disk");
    desk.refused(&import(&url("/away")), "from https nothing is fetched by http");
    fs::rename(&roots, desk.dir.path().join("other.pem")).unwrap();
    fs::write(&roots, Site::start_tls(&content).await.1).unwrap();
    desk.refused(&import(&url("/disk")), "cannot be reached");
    assert_eq!((secure.requests(), desk.left()), (0, Vec::new()));
    fs::rename(desk.dir.path().join("other.pem"), &roots).unwrap();
    site.shared.lock().unwrap().away = url("/disk");
    desk.done(&import(&site.url("/away")), &sum);
    assert_eq!(secure.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_or_is_not_given_is_said_and_leaves_nothing() {
    let (content, desk) = (noise(11, 200_000), Desk::new());
    let (sum, site) = (digest(&content), Site::start(&content).await);
    site.way(Way::Claims(1 << 43));
    desk.refused(&desk.import(&site.url("/disk"), &sum), "no room for");
    site.way(Way::Claims(1 << 60));
    desk.refused(&desk.import(&site.url("/disk"), &sum), "which cannot be right");
    site.way(Way::Well);
    desk.refused(&desk.import(&site.url("/none"), &sum), "answered 404 Not Found");
    desk.refused(
        &desk.import("https://ada:geheim@localhost/disk", &sum),
        "user's name or password",
    );
    desk.refused(
        &desk.import("ftp://localhost/disk", &sum),
        "nothing is fetched by `ftp`",
    );
    desk.refused(&desk.import("http://127.0.0.1:1/disk", &sum), "cannot be reached");
    assert_eq!(desk.left(), Vec::<String>::new());
    // One that does not say how much comes is stopped.
    site.way(Way::Nameless);
    let dir = tempfile::tempdir().unwrap();
    let limits = DownloadLimits {
        largest: 150_000,
        ..DownloadLimits::default()
    };
    let address = site.url("/disk").parse().unwrap();
    let error = download::fetch(&address, dir.path(), &limits, &mut |_| ())
        .await
        .unwrap_err();
    assert!(
        matches!(error, DownloadError::TooLarge { largest: 150_000, .. }),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // Space that is left to others is not taken.
    site.way(Way::Well);
    let limits = DownloadLimits {
        reserve: u64::MAX,
        ..DownloadLimits::default()
    };
    let error = download::fetch(&address, dir.path(), &limits, &mut |_| ())
        .await
        .unwrap_err();
    assert!(
        matches!(error, DownloadError::NoRoom { needed: 200_000, .. }),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// As [`download::fetch`], once the folder is free: a child that a test beside this one has just forked holds the lock of
/// the fetch before for a moment.
async fn fetch_when_free(
    address: &download::Address,
    dir: &Path,
    limits: &DownloadLimits,
    progress: &mut dyn FnMut(download::Progress),
) -> Result<download::Part, DownloadError> {
    let until = Instant::now() + support::deadline::PROMPT;
    loop {
        match download::fetch(address, dir, limits, progress).await {
            Err(DownloadError::Busy { .. }) if Instant::now() < until => support::pause(),
            ended => return ended,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up() {
    let content = noise(12, 200_000);
    let (site, dir) = (Site::start(&content).await, tempfile::tempdir().unwrap());
    let address = site.url("/disk").parse().unwrap();
    // Where something comes, it is to come before the time is over.
    for (way, idle_s, wanted) in [
        (Way::Silent, 1, 0),
        (Way::Stops(50_000), 10, 50_000),
        (Way::Stops(20_000), 10, 70_000),
        (Way::Silent, 1, 70_000),
    ] {
        site.way(way);
        let limits = DownloadLimits {
            idle: Duration::from_secs(idle_s),
            ..DownloadLimits::default()
        };
        let error = fetch_when_free(&address, dir.path(), &limits, &mut |_| ())
            .await
            .unwrap_err();
        assert!(
            matches!(error, DownloadError::Idle { bytes, .. } if bytes == wanted),
            "{way:?}: {error:?}"
        );
    }
    site.way(Way::Well);
    let mut seen = Vec::new();
    let patient = DownloadLimits::default();
    let part = fetch_when_free(&address, dir.path(), &patient, &mut |progress| {
        seen.push(progress.bytes)
    })
    .await
    .unwrap();
    assert_eq!(fs::read(part.path()).unwrap(), content);
    assert_eq!((seen.first(), seen.last()), (Some(&70_000), Some(&200_000)));
    assert_eq!(site.last().2, 130_000);
}

#[test]
fn a_directory_that_is_anothers_or_a_link_is_not_used() {
    let (sum, desk) = ("0".repeat(64), Desk::new());
    let elsewhere = desk.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, desk.downloads()).unwrap();
    desk.refused(&desk.import("http://127.0.0.1:1/disk", &sum), "it is no directory");
    fs::remove_file(desk.downloads()).unwrap();
    fs::create_dir(desk.downloads()).unwrap();
    fs::set_permissions(desk.downloads(), fs::Permissions::from_mode(0o755)).unwrap();
    desk.refused(
        &desk.import("http://127.0.0.1:1/disk", &sum),
        "others have rights to it",
    );
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// What the answers of this server are like is what the standard says, or the tests above prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_these_tests_keeps_to_the_standard() {
    let site = Site::start(&noise(13, 100)).await;
    let ask = async |range: &str, tag: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("range", range.parse().unwrap());
        headers.insert("if-range", tag.parse().unwrap());
        let request = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(site.url("/disk"));
        let response = request.headers(headers).send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().len())
    };
    assert_eq!(ask("bytes=40-", "\"one\"").await, (206, 60));
    assert_eq!(ask("bytes=40-", "\"two\"").await, (200, 100));
    assert_eq!(ask("bytes=100-", "\"one\"").await, (416, 0));
}
