//! What machines are made of: git, the back end, the agent, images.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::{Findings, Line};
use crate::{
    config::{Backend, Config},
    error_chain::chain,
    exec::Cmd,
    images::Library,
    machine::{
        Machines, machined,
        qemu::{accel, firmware},
    },
    source::{GIT_FIX, git_version},
};

const SOON: Duration = Duration::from_secs(20);
/// A machined that runs answers within this time.
const NOW: Duration = Duration::from_secs(3);

pub(super) async fn check(config: &Config, findings: &mut Findings) {
    findings.add(git().await);
    match (&config.machined, config.backend) {
        (Some(keeper), _) => match machined::connect_within(&keeper.socket, &config.node, NOW).await {
            Ok(machines) => {
                let detail = format!(
                    "answers on {}, back end {}",
                    keeper.socket.display(),
                    machines.backend()
                );
                findings.add(Line::ok("machined", detail));
                machine_findings(machines.as_ref(), findings).await;
            }
            Err(error) => findings.add(Line::failure(
                "machined",
                chain(&error),
                "svcadm enable helios-ci/machined; where it is in maintenance, `svcs -x helios-ci/machined` names its log",
            )),
        },
        (None, Backend::Qemu) => {
            qemu(config, findings).await;
            firmware(config, findings);
        }
        (None, Backend::Process) => findings.add(Line::warning(
            "back end",
            "`process` isolates nothing: jobs run as the daemon's user",
            "use `backend: qemu`",
        )),
        (None, Backend::Zone) => {}
    }
    findings.add(agent(config).await);
    if config.backend != Backend::Zone {
        images(config, findings);
    }
}

/// What only a person can mend.
async fn machine_findings(machines: &dyn Machines, findings: &mut Findings) {
    match machines.findings().await {
        Ok(found) => found.into_iter().for_each(|finding| {
            findings.add(Line::warning(
                "machines",
                finding,
                "look into it, then run doctor again",
            ));
        }),
        Err(error) => findings.add(Line::warning("machines", chain(&error), "svcs -xv")),
    }
}

async fn git() -> Line {
    match git_version().await {
        Ok(found) => Line::ok("git", found),
        Err(error) => Line::failure("git", chain(&error), GIT_FIX),
    }
}

async fn qemu(config: &Config, findings: &mut Findings) {
    for program in ["qemu-system-x86_64", "qemu-img"] {
        let version = Cmd::new(program).arg("--version").deadline(SOON).run().await;
        findings.add(match version {
            Ok(output) if output.code == Some(0) => Line::ok(program, output.text().lines().next().unwrap_or_default()),
            Ok(output) => Line::failure(program, output.stderr_tail(), "install it again"),
            Err(error) => Line::failure(program, chain(&error), "apt-get install qemu-system-x86 qemu-utils"),
        });
    }
    // What the daemon goes by, in its words.
    findings.add(
        match accel::decide(&config.data_dir, config.images.values(), accel::Remember::No).await {
            Ok(verdict) => match verdict.fix() {
                None => Line::ok("kvm", verdict),
                Some(fix) => Line::warning("kvm", verdict, fix),
            },
            Err(error) => Line::failure(
                "kvm",
                chain(&error),
                "install QEMU, and run doctor as the daemon's user",
            ),
        },
    );
}

/// Only where an image needs it.
fn firmware(config: &Config, findings: &mut Findings) {
    if config.images.values().any(firmware::is_needed) {
        findings.add(match firmware::find() {
            Ok(path) => Line::ok("firmware", path.display().to_string()),
            Err(error) => Line::failure("firmware", error.to_string(), "apt-get install ovmf"),
        });
    }
}

async fn agent(config: &Config) -> Line {
    let (path, fix) = (&config.agent, "set `agent:` to the static helios-agent of this version");
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) => Line::failure("agent", format!("{shown}: {error}"), fix),
        Ok(meta) if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 => Line::failure(
            "agent",
            format!("{shown} is not executable"),
            format!("chmod 0755 {shown}"),
        ),
        Ok(meta) => match Cmd::new(path).arg("--version").deadline(SOON).run().await {
            Ok(output) if output.code == Some(0) => {
                let detail = format!("{shown}, {}, {} KiB", output.text().trim(), meta.len() / 1024);
                if output.text().contains(env!("CARGO_PKG_VERSION")) {
                    Line::ok("agent", detail)
                } else {
                    Line::warning("agent", format!("{detail}; this is {}", env!("CARGO_PKG_VERSION")), fix)
                }
            }
            // An agent for guests of another system does not run here.
            _ => Line::warning(
                "agent",
                format!("{shown} does not run on this host"),
                "fine if it is for other guests",
            ),
        },
    }
}

fn images(config: &Config, findings: &mut Findings) {
    let library = Library::new(&config.data_dir, config.images.clone());
    let entries = match library.list() {
        Ok(entries) => entries,
        Err(error) => {
            findings.add(Line::failure(
                "images",
                chain(&error),
                "check the rights of the data directory",
            ));
            return;
        }
    };
    for entry in entries.into_iter().filter(|entry| entry.configured) {
        let name = format!("image {}", entry.label);
        findings.add(match (entry.state, entry.sha256) {
            (Err(problem), _) => Line::failure(
                name,
                format!("{}: {problem}", entry.disk.display()),
                format!("helios-ci image import FILE {} --sha256 DIGEST", entry.label),
            ),
            (Ok(bytes), Some(_)) => Line::ok(
                name,
                format!(
                    "{} MiB; `helios-ci image verify {}` reads it whole",
                    bytes >> 20,
                    entry.label
                ),
            ),
            (Ok(bytes), None) => Line::warning(
                name,
                format!("{} MiB, without a digest", bytes >> 20),
                "add `sha256:` to the image, or import it",
            ),
        });
    }
    for (label, image) in &config.images {
        for file in [&image.kernel, &image.initrd].into_iter().flatten() {
            if let Err(error) = fs::File::open(file) {
                findings.add(Line::failure(
                    format!("image {label}"),
                    format!("{}: {error}", file.display()),
                    "repair the path or its rights",
                ));
            }
        }
    }
    if config.images.is_empty() {
        findings.add(Line::failure(
            "images",
            "none are configured",
            "add one under `images:`; docs/config.example.yaml shows how",
        ));
    }
}
