//! The options of `config init`, and how they, a person and the defaults become one set of answers.

use std::{
    env,
    fmt::{self, Display},
    fs,
    io::BufRead,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, ValueEnum};
use miette::miette;

use super::question::{Question, Questions};
use crate::{
    cli::commands::local::guest,
    config::{
        GuestKind, Tls,
        init::{Answers, ForgeAnswer, ImageAnswer},
    },
    forge::http::is_public,
    model::names::{ConnectionId, Label, NodeName, RepoPath},
};

const DATA_DIR: &str = "/var/lib/helios-ci";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Forge {
    /// Forgejo or Gitea.
    Forgejo,
    /// GitHub or GitHub Enterprise Server.
    Github,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    /// QEMU guests (Linux).
    Qemu,
    /// bhyve zones (illumos).
    Zone,
}

/// What can be answered beforehand. Secrets come from files or from standard input, never from here.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// What the forge is [default: forgejo].
    #[arg(long, value_enum)]
    forge: Option<Forge>,
    /// The forge's address [default for GitHub: `https://github.com`].
    #[arg(long)]
    url: Option<String>,
    /// Whether the forge may have a private or loopback address, and plain HTTP [default: as its address looks].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    allow_private: Option<bool>,
    /// The connection's name, the end of its webhook's address [default: what the forge is].
    #[arg(long)]
    name: Option<ConnectionId>,
    /// A repository to serve, OWNER/NAME; may be repeated.
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Vec<RepoPath>,
    /// GitHub: the App's number.
    #[arg(long)]
    app_id: Option<u64>,
    /// What people and the forge call [default: http:// and a loopback --listen].
    #[arg(long)]
    public_url: Option<String>,
    /// Where pages, API and webhooks are [default: 127.0.0.1:8080]; another address needs --tls-certificate.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The listener's certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key", value_parser = absolute)]
    tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate", value_parser = absolute)]
    tls_key: Option<PathBuf>,
    /// Where everything is stored [default: /var/lib/helios-ci].
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    data_dir: Option<PathBuf>,
    /// What machines are [default: zone on illumos, else qemu].
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// The image's label [default: tiny with QEMU, debian-12 with zones].
    #[arg(long)]
    image: Option<Label>,
    /// QEMU: the image's golden disk, qcow2 [default: the tiny guest's, where it is built].
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    disk: Option<PathBuf>,
    /// QEMU: the disk's digest [default: what SHA256SUMS beside it says].
    #[arg(long, value_name = "DIGEST")]
    sha256: Option<String>,
    /// QEMU: a kernel for direct boot [default: vmlinuz beside the disk, where there is one].
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    kernel: Option<PathBuf>,
    /// QEMU: its initial RAM disk [default: initrd.img beside the disk].
    #[arg(long, value_name = "FILE", requires = "kernel", value_parser = absolute)]
    initrd: Option<PathBuf>,
    /// Zones: what the golden disk holds: linux-uefi (the default), linux-bios or illumos.
    #[arg(long, value_parser = guest_kind)]
    kind: Option<GuestKind>,
    /// Another label for the image; may be repeated [default: ubuntu-latest, for Linux].
    #[arg(long)]
    alias: Vec<Label>,
    /// This node's name [default: the host's].
    #[arg(long)]
    node: Option<NodeName>,
    /// The agent's static binary [default: helios-agent beside this program].
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    agent: Option<PathBuf>,
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("a path is needed".to_owned()),
        text => std::path::absolute(text).map_err(|e| e.to_string()),
    }
}

fn guest_kind(text: &str) -> Result<GuestKind, String> {
    let known = GuestKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    known.ok_or_else(|| "possible: linux-uefi, linux-bios, illumos".to_owned())
}

/// As `config check` wants it; what is finer is found there.
fn address(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let uri = text.parse::<http::Uri>().ok();
    let fits = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    match fits && !text.contains('@') {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no address such as https://forge.example.org")),
    }
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}

fn word<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, true).map_err(|_| format!("`{text}` is not possible here"))
}

/// As it is typed.
struct Shown<T>(T);

impl<T: ValueEnum> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

struct YesNo(bool);

impl Display for YesNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "yes" } else { "no" })
    }
}

fn yes_no(text: &str) -> Result<YesNo, String> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(YesNo(true)),
        "n" | "no" => Ok(YesNo(false)),
        _ => Err("yes or no?".to_owned()),
    }
}

struct Repositories(Vec<RepoPath>);

impl Display for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(RepoPath::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

fn repositories(text: &str) -> Result<Repositories, String> {
    let words = text.split([' ', ',', '\t']).filter(|word| !word.is_empty());
    Ok(Repositories(words.map(parsed).collect::<Result<_, _>>()?))
}

/// A path that a person reads and types.
struct Typed(PathBuf);

impl Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

fn typed(text: &str) -> Result<Typed, String> {
    absolute(text).map(Typed)
}

/// The forge and how it is reached.
struct Reached {
    forge: ForgeAnswer,
    url: String,
    allow_private: bool,
    connection: ConnectionId,
    repositories: Vec<RepoPath>,
}

/// An option for another forge or back end than the chosen one does nothing, which must be said.
fn refuse(given: &[(&str, bool)], why: &str) -> miette::Result<()> {
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(miette!("{option} has no meaning {why}")),
    }
}

impl Options {
    /// Asks for what no option answers.
    pub(super) fn answers<R: BufRead>(self, questions: &mut Questions<R>) -> miette::Result<Answers> {
        let reached = self.forge(questions)?;
        let (listen, tls, public_url) = self.place(questions)?;
        let data_dir = questions
            .ask(
                Question {
                    option: "--data-dir",
                    text: "Where everything is stored",
                    given: self.data_dir.clone().map(Typed),
                    default: Some(Typed(DATA_DIR.into())),
                },
                typed,
            )?
            .0;
        let (label, image) = self.image(questions)?;
        let kind = GuestKind::Illumos;
        let mut aliases = match self.alias.is_empty() && image != (ImageAnswer::Volume { kind }) {
            true => "ubuntu-latest".parse().into_iter().collect(),
            false => self.alias,
        };
        aliases.retain(|alias| *alias != label);
        aliases.sort();
        aliases.dedup();
        Ok(Answers {
            node: self.node,
            data_dir,
            listen,
            public_url,
            tls,
            connection: reached.connection,
            forge: reached.forge,
            url: reached.url,
            allow_private: reached.allow_private,
            repositories: reached.repositories,
            agent: self.agent.or_else(agent),
            label,
            image,
            aliases,
        })
    }

    fn forge<R: BufRead>(&self, questions: &mut Questions<R>) -> miette::Result<Reached> {
        let kind = questions
            .ask(
                Question {
                    option: "--forge",
                    text: "Forge, forgejo or github",
                    given: self.forge.map(Shown),
                    default: Some(Shown(Forge::Forgejo)),
                },
                |text| word(text).map(Shown),
            )?
            .0;
        let given = self.url.as_deref().map(address).transpose();
        let url = questions.ask(
            Question {
                option: "--url",
                text: "The forge's address",
                given: given.map_err(|e| miette!("--url: {e}"))?,
                default: (kind == Forge::Github).then(|| "https://github.com".to_owned()),
            },
            address,
        )?;
        let allow_private = questions
            .ask(
                Question {
                    option: "--allow-private",
                    text: "May it have a private or loopback address, and plain HTTP?",
                    given: self.allow_private.map(YesNo),
                    default: Some(YesNo(looks_private(&url))),
                },
                yes_no,
            )?
            .0;
        let connection = questions.ask(
            Question {
                option: "--name",
                text: "The connection's name, the end of its webhook's address",
                given: self.name.clone(),
                default: Shown(kind).to_string().parse().ok(),
            },
            parsed,
        )?;
        let repositories = questions
            .ask(
                Question {
                    option: "--repository",
                    text: "Repositories to serve, OWNER/NAME with blanks between",
                    given: (!self.repository.is_empty()).then(|| Repositories(self.repository.clone())),
                    default: None,
                },
                repositories,
            )?
            .0;
        Ok(Reached {
            forge: self.speaks(kind, questions)?,
            url,
            allow_private,
            connection,
            repositories,
        })
    }

    fn speaks<R: BufRead>(&self, kind: Forge, questions: &mut Questions<R>) -> miette::Result<ForgeAnswer> {
        if kind == Forge::Forgejo {
            refuse(&[("--app-id", self.app_id.is_some())], "with Forgejo")?;
            return Ok(ForgeAnswer::Forgejo);
        }
        let app_id = questions.ask(
            Question {
                option: "--app-id",
                text: "The GitHub App's number",
                given: self.app_id,
                default: None,
            },
            parsed,
        )?;
        Ok(ForgeAnswer::Github { app_id })
    }

    fn place<R: BufRead>(&self, questions: &mut Questions<R>) -> miette::Result<(SocketAddr, Option<Tls>, String)> {
        let listen = questions.ask(
            Question {
                option: "--listen",
                text: "Where to listen for pages, API and webhooks",
                given: self.listen,
                default: Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
            },
            parsed,
        )?;
        let files = self.tls_certificate.clone().zip(self.tls_key.clone());
        let tls = files.map(|(certificate, key)| Tls { certificate, key });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let given = self.public_url.as_deref().map(address).transpose();
        let public_url = questions.ask(
            Question {
                option: "--public-url",
                text: "The address that people and the forge call",
                given: given.map_err(|e| miette!("--public-url: {e}"))?,
                default: listen.ip().is_loopback().then(|| format!("{scheme}://{listen}")),
            },
            address,
        )?;
        Ok((listen, tls, public_url))
    }

    fn image<R: BufRead>(&self, questions: &mut Questions<R>) -> miette::Result<(Label, ImageAnswer)> {
        let usual = match cfg!(target_os = "illumos") {
            true => Backend::Zone,
            false => Backend::Qemu,
        };
        let zones = self.backend.unwrap_or(usual) == Backend::Zone;
        let label = questions.ask(
            Question {
                option: "--image",
                text: "The image's label, for `runs-on`",
                given: self.image.clone(),
                default: if zones { "debian-12" } else { "tiny" }.parse().ok(),
            },
            parsed,
        )?;
        if zones {
            let given = [
                ("--disk", self.disk.is_some()),
                ("--sha256", self.sha256.is_some()),
                ("--kernel", self.kernel.is_some()),
            ];
            refuse(&given, "with zones, whose golden disks are imported")?;
            let kind = self.kind.unwrap_or(GuestKind::LinuxUefi);
            return Ok((label, ImageAnswer::Volume { kind }));
        }
        refuse(&[("--kind", self.kind.is_some())], "with QEMU")?;
        let disk = questions
            .ask(
                Question {
                    option: "--disk",
                    text: "Its golden disk, a qcow2 image",
                    given: self.disk.clone().map(Typed),
                    default: tiny_disk().map(Typed),
                },
                typed,
            )?
            .0;
        let beside = |name: &str| Some(disk.with_file_name(name)).filter(|file| file.is_file());
        let kernel = self.kernel.clone().or_else(|| beside("vmlinuz"));
        let initrd = match &self.kernel {
            Some(_) => self.initrd.clone(),
            None => kernel.as_ref().and_then(|_| beside("initrd.img")),
        };
        let sha256 = self.sha256.clone().or_else(|| listed_digest(&disk));
        Ok((
            label,
            ImageAnswer::File {
                disk,
                sha256,
                kernel,
                initrd,
            },
        ))
    }
}

/// Whether an address is evidently one of this host or network.
fn looks_private(url: &str) -> bool {
    let uri = url.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || literal.is_ok_and(|ip| !is_public(ip))
}

/// The disk of the tiny guest that `helios-ci run` would boot.
fn tiny_disk() -> Option<PathBuf> {
    guest::find(None).ok().map(|folder| folder.join(guest::DISK))
}

/// The agent, where it does not lie beside this program.
fn agent() -> Option<PathBuf> {
    let beside = env::current_exe().ok()?.with_file_name("helios-agent");
    if beside.is_file() {
        return None;
    }
    let named = env::var_os(guest::AGENT)
        .map(PathBuf::from)
        .filter(|agent| agent.is_file());
    fs::canonicalize(named.or_else(guest::built_agent)?).ok()
}

/// What `SHA256SUMS` beside a disk says of it.
fn listed_digest(disk: &Path) -> Option<String> {
    let sums = fs::read_to_string(disk.with_file_name("SHA256SUMS")).ok()?;
    let name = disk.file_name()?.to_str()?;
    sums.lines().find_map(|line| {
        let (digest, file) = line.split_once("  ")?;
        (file == name && digest.len() == 64).then(|| digest.to_ascii_lowercase())
    })
}
