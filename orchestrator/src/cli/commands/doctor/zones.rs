//! What only an illumos host has: the zone, the brand, the processor's help, the tree, the rules, images.

use std::{fs, path::Path, time::Duration};

use super::{Findings, Line, Status};
use crate::{
    config::{Config, Image, brand_since},
    error_chain::chain,
    exec::Cmd,
    machine::zone::{
        TimeoutScale,
        command::{
            dispadmin, zfs,
            zoneadm::{self, State},
        },
        golden::{Golden, GoldenError},
        host::memory::Memory,
        setup::{
            self,
            rehearsal::{self, host::StepOutcome},
            scratch,
        },
    },
    model::{illumos::release::Release, names::Label},
};

const SOON: Duration = Duration::from_secs(20);
/// Less is soon none.
const SPACE: u64 = 10 << 30;
const BRAND: &str = "/usr/lib/brand/bhyve";
const FIRMWARE: &str = "/usr/share/bhyve/firmware/BHYVE_RELEASE.fd";
const VMM: &str = "/dev/vmmctl";
const ONLY_ROOT: &str = "not tried: only root can; sudo or pfexec helios-ci doctor does";

/// Whether this host can have zones at all. Each line needs the ones before it; false after the first failure.
pub(super) async fn host(findings: &mut Findings) -> bool {
    findings.add(user());
    all_well(findings, [place().await, brand(), processor()])
}

/// What was set up for zones, which needs a host that can have them and, to be used, a machined.
///
/// Whether zones can be tried at all.
pub(super) async fn rest(config: &Config, findings: &mut Findings) -> bool {
    if !all_well(findings, [tree(config).await]) {
        return false;
    }
    let mut lines = zones().await;
    lines.extend(space(config).await);
    lines.push(links(config).await);
    lines.push(forwarding().await);
    lines.push(memory(config));
    lines.push(processors(config));
    lines.push(scheduler().await);
    // Before any image: what zonecfg or the brand refuse, no image mends.
    lines.extend(configurations(config).await);
    lines.extend(images(config).await);
    for line in lines {
        findings.add(line);
    }
    true
}

/// One life of a machine under scratch names, each step as it was seen (docs/illumos-evidence.md).
pub(super) async fn rehearse(config: &Config, findings: &mut Findings) {
    let name = "rehearsal";
    if !is_root() {
        return findings.add(Line::failure(name, ONLY_ROOT, "pfexec helios-ci doctor --rehearse"));
    }
    let release = release().await;
    let tell = |step: &rehearsal::Step, seen: StepOutcome| {
        let name = format!("{name}: {}", step.id);
        findings.add(match seen {
            StepOutcome::AsBelieved(detail) if detail.is_empty() => Line::ok(name, format!("seen: {}", step.fact)),
            StepOutcome::AsBelieved(detail) => Line::ok(name, format!("seen: {} ({detail})", step.fact)),
            StepOutcome::Different(how) => Line::failure(
                name,
                format!("different: {how}; believed was: {}", step.fact),
                "docs/illumos-evidence.md says what stands on it; report it with what this host printed",
            ),
            StepOutcome::NotTried(needed) => Line::warning(
                name,
                format!("not tried: {}", step.fact),
                format!("it needs what `{needed}` did not bring about"),
            ),
        });
    };
    if let Err(error) =
        rehearsal::host::rehearse(&config.node, &config.zone, release, TimeoutScale::default(), tell).await
    {
        findings.add(Line::failure(
            name,
            chain(&error),
            "helios-ci doctor names what is in its way",
        ));
    }
}

/// Adds lines up to the first failure; whether there was none.
fn all_well(findings: &mut Findings, lines: impl IntoIterator<Item = Line>) -> bool {
    for line in lines {
        let fatal = line.status == Status::Failure;
        findings.add(line);
        if fatal {
            return false;
        }
    }
    true
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn user() -> Line {
    match is_root() {
        true => Line::ok("user", "root"),
        false => Line::ok(
            "user",
            "not root: filter rules, links and the brand are left out; pfexec helios-ci doctor looks at them too",
        ),
    }
}

async fn said(program: &str, args: &[&str]) -> Result<String, String> {
    match Cmd::new(program).args(args).deadline(SOON).run().await {
        Ok(output) if output.code == Some(0) => Ok(output.text().trim().to_owned()),
        Ok(output) => Err(output.stderr_tail()),
        Err(error) => Err(chain(&error)),
    }
}

async fn place() -> Line {
    let fix = "run helios-ci in the global zone of OmniOS r151054 or later";
    match said("/usr/bin/zonename", &[]).await {
        Ok(zone) if zone == "global" => {}
        Ok(zone) => return Line::failure("illumos", format!("this is zone `{zone}`"), fix),
        Err(error) => return Line::failure("illumos", error, fix),
    }
    match said("/usr/bin/uname", &["-v"]).await {
        Ok(version) if version.starts_with("joyent_") => Line::failure(
            "illumos",
            format!("{version} is SmartOS, whose zones are made by vmadm"),
            fix,
        ),
        Ok(version) if version.starts_with("omnios-") => Line::ok("illumos", version),
        Ok(version) => Line::warning("illumos", format!("{version} is untried"), fix),
        Err(error) => Line::failure("illumos", error, fix),
    }
}

fn brand() -> Line {
    let fix = "pkg install system/zones/brand/bhyve system/bhyve";
    let config = format!("{BRAND}/config.xml");
    let text = match fs::read_to_string(&config) {
        Ok(text) => text,
        Err(error) => return Line::failure("bhyve brand", format!("{config}: {error}"), fix),
    };
    // Without these a guest's power-off restarts it, or its configuration is made another way.
    if !text.contains("restartinit0") || !Path::new(BRAND).join("boot").exists() {
        return Line::failure(
            "bhyve brand",
            format!("{config} is of an older kind: no restartinit0, or no boot hook"),
            "update the host",
        );
    }
    if !Path::new(FIRMWARE).exists() {
        return Line::failure("bhyve brand", format!("{FIRMWARE} is missing"), fix);
    }
    Line::ok("bhyve brand", format!("{BRAND}, with firmware"))
}

fn processor() -> Line {
    // Only root may open it.
    let there = match is_root() {
        true => fs::File::options().read(true).write(true).open(VMM).map(drop),
        false => fs::symlink_metadata(VMM).map(drop),
    };
    match there {
        Ok(()) => Line::ok(
            "processor",
            format!("{VMM} is there; only a guest that boots proves more"),
        ),
        Err(error) => Line::failure(
            "processor",
            format!("{VMM}: {error}"),
            "needs VT-x with EPT, or AMD-V, and no other hypervisor; then pkg install system/bhyve",
        ),
    }
}

async fn tree(config: &Config) -> Line {
    let (node, zone) = (config.node.clone(), config.zone.clone());
    let looked = tokio::task::spawn_blocking(move || match is_root() {
        true => setup::missing(&node, &zone),
        // ipfilter tells only root.
        false => setup::missing_datasets(&node, &zone),
    });
    let fix = "helios-ci setup --yes, as root";
    match looked.await {
        Ok(Ok(acts)) if acts.is_empty() => {
            let rules = if is_root() {
                ""
            } else {
                "; the rules were not looked at"
            };
            Line::ok("datasets and rules", format!("below {}{rules}", config.zone.dataset))
        }
        Ok(Ok(acts)) => {
            let acts: Vec<String> = acts.iter().map(ToString::to_string).collect();
            Line::failure("datasets and rules", format!("not done yet: {}", acts.join("; ")), fix)
        }
        Ok(Err(error)) => Line::failure("datasets and rules", chain(&error), fix),
        Err(error) => Line::failure("datasets and rules", error, fix),
    }
}

async fn zones() -> Vec<Line> {
    let listed = match zoneadm::list().run().await {
        Ok(output) => zoneadm::zones(&output).map_err(|error| error.to_string()),
        Err(error) => Err(chain(&error)),
    };
    let zones = match listed {
        Ok(zones) => zones,
        Err(error) => return vec![Line::failure("zones", error, "svcs -x system/zones")],
    };
    let stuck = zones
        .iter()
        .filter(|zone| matches!(zone.state, State::Down | State::ShuttingDown | State::Incomplete));
    let lines: Vec<Line> = stuck
        .map(|zone| {
            Line::warning(
                format!("zone {}", zone.name),
                format!("it is {:?}", zone.state),
                "machined removes what is ours within a minute; one that stays down needs a reboot of the host",
            )
        })
        .collect();
    if lines.is_empty() {
        return vec![Line::ok(
            "zones",
            format!(
                "{} besides the global one, none of them stuck",
                zones.len().saturating_sub(1)
            ),
        )];
    }
    lines
}

async fn space(config: &Config) -> Vec<Line> {
    let fix = "zpool list; remove what is not needed, or helios-ci image remove";
    let asked = async {
        let machines = config.zone.dataset.child("machines").map_err(|e| chain(&e))?;
        let output = zfs::space(&machines).run().await.map_err(|e| chain(&e))?;
        let left = zfs::available(&output).map_err(|e| chain(&e))?;
        let left = left.ok_or_else(|| format!("zfs says nothing of {machines}'s space"))?;
        let output = zfs::query(&machines).run().await.map_err(|e| chain(&e))?;
        let seen = zfs::dataset(&machines, &output).map_err(|e| chain(&e))?;
        Ok::<_, String>((left, seen.and_then(|seen| seen.quota)))
    };
    let (left, quota) = match asked.await {
        Ok(found) => found,
        Err(error) => return vec![Line::failure("pool", error, fix)],
    };
    let mut lines = vec![match left {
        left if left < SPACE => Line::warning("pool", format!("{} MiB are free for machines", left >> 20), fix),
        left => Line::ok("pool", format!("{} GiB are free for machines", left >> 30)),
    }];
    if quota.is_none() {
        lines.push(Line::warning(
            "quota",
            "nothing bounds the machines' disks but the pool: a job that fills its disk may stop the host's other work",
            "set zone.quota_gib, then helios-ci setup --yes",
        ));
    }
    lines
}

/// Only root may make links, so a doctor of another user leaves this out.
async fn links(config: &Config) -> Line {
    if !is_root() {
        return Line::ok("links", ONLY_ROOT);
    }
    let (node, zone) = (config.node.clone(), config.zone.clone());
    let tried = tokio::task::spawn_blocking(move || scratch::try_links(&node, &zone)).await;
    let fix = format!(
        "dladm show-vnic; dladm show-linkprop -p protection; is the release one that docs/operations.md names? If an earlier \
         doctor was killed: dladm delete-etherstub -t hcis{}",
        config.zone.network.last_slot().number()
    );
    match tried {
        Ok(Ok(())) => Line::ok("links", "a VNIC was made, held to its address, and removed"),
        Ok(Err(error)) => Line::failure("links", chain(&error), fix),
        Err(error) => Line::failure("links", error, fix),
    }
}

fn memory(config: &Config) -> Line {
    let memory = match Memory::of_this_host() {
        Ok(memory) => memory,
        Err(error) => return Line::warning("memory", error, "set capacity.memory_mib"),
    };
    let (physical, room) = (memory.physical >> 20, memory.for_machines_mib());
    let most = config.capacity.memory_mib.unwrap_or(room);
    let detail = format!("{physical} MiB, of which machines may have {most} MiB");
    let Some(arc) = memory.arc_max else {
        return Line::warning(
            "memory",
            format!("{detail}; ZFS's cache is not limited, so a machine may find none left"),
            format!(
                "add `set zfs:zfs_arc_max = {}` to /etc/system and reboot",
                memory.physical / 4
            ),
        );
    };
    if most > room {
        return Line::warning(
            "memory",
            format!(
                "{detail}, but beside an ARC of {} MiB only {room} MiB are left",
                arc >> 20
            ),
            "lower capacity.memory_mib, or zfs_arc_max",
        );
    }
    Line::ok("memory", format!("{detail} beside an ARC of {} MiB", arc >> 20))
}

async fn forwarding() -> Line {
    let args = ["show-prop", "-c", "-o", "current", "-p", "forwarding", "ipv4"];
    match said("/sbin/ipadm", &args).await {
        Ok(value) if value == "off" => Line::ok("forwarding", "off"),
        Ok(value) => Line::warning(
            "forwarding",
            format!("the host forwards IPv4 ({value}); machines' links do not"),
            "ipadm set-prop -p forwarding=off ipv4, unless it is a router",
        ),
        Err(error) => Line::warning("forwarding", error, "ipadm show-prop -p forwarding ipv4"),
    }
}

/// How many virtual processors a machine may have, and whether every size keeps to it.
fn processors(config: &Config) -> Line {
    let most = config.zone.max_vcpus;
    let too_large: Vec<&str> = config
        .sizes
        .iter()
        .filter(|(_, size)| size.cpus > most)
        .map(|(name, _)| name.as_str())
        .collect();
    let detail = format!("a machine has at most {most} virtual processors (zone.max_vcpus)");
    match too_large.is_empty() {
        true => Line::ok("virtual processors", detail),
        false => Line::warning(
            "virtual processors",
            format!("{detail}; size {} is never made", too_large.join(", ")),
            "raise zone.max_vcpus where this host's bhyve takes more, or redefine the size",
        ),
    }
}

/// `cpu-shares` count in the fair-share class only.
async fn scheduler() -> Line {
    match dispadmin::default_class().deadline(SOON).run().await {
        Ok(output) if dispadmin::is_fair(&output) => Line::ok("scheduler", "FSS is the default class"),
        Ok(_) => Line::warning(
            "scheduler",
            "FSS is not the default class: every boot of a zone warns, and the host's own programs are not shared fairly",
            dispadmin::ADVICE,
        ),
        Err(error) => Line::warning("scheduler", chain(&error), "dispadmin -d"),
    }
}

/// The release of this host; the oldest supported where it is none of OmniOS's.
async fn release() -> Release {
    let version = said("/usr/bin/uname", &["-v"]).await.unwrap_or_default();
    Release::of_kernel(&version).unwrap_or(Release::OLDEST)
}

fn golden_of(config: &Config) -> Golden {
    Golden {
        node: config.node.clone(),
        root: config.zone.dataset.clone(),
    }
}

/// A throw-away configuration of each image's machine, and what of its attributes has no effect. Where no image is
/// configured, one with every default stands for all.
async fn configurations(config: &Config) -> Vec<Line> {
    let release = release().await;
    let mut lines = Vec::new();
    let mut images = config.images.clone();
    if images.is_empty() {
        images.extend("trial".parse().ok().map(|label| (label, Image::default())));
    }
    for (label, image) in &images {
        for name in image.attributes.keys().map(ToString::to_string) {
            if let Some(since) = brand_since(&name).filter(|since| *since > release) {
                lines.push(Line::failure(
                    format!("attributes of {label}"),
                    format!("{name} has no effect on {release}: the brand knows it from {since} on"),
                    "remove it; `diskif` sets the interface of the disk on every release",
                ));
            }
        }
        lines.push(devices(config, label, image, release).await);
    }
    lines
}

/// Only root may configure zones, so a doctor of another user leaves this out.
async fn devices(config: &Config, label: &Label, image: &Image, release: Release) -> Line {
    let name = format!("zone of {label}");
    if !is_root() {
        return Line::ok(name, ONLY_ROOT);
    }
    let fix = format!(
        "compare `helios-ci machine plan --image {label} --release {release}` with bhyve(7) of this host; until then its \
         machines may lack a device, or not start"
    );
    // No volume is looked for, so any version will do.
    match rehearsal::configuration::rehearse(&config.node, &config.zone, label, image, 1, release).await {
        Ok(found) if !found.missing.is_empty() => Line::failure(
            name,
            format!("the brand makes no `{}` of its attributes", found.missing.join("`, `")),
            fix,
        ),
        Ok(found) if found.besides.is_empty() => Line::ok(
            name,
            "zonecfg took a trial's configuration, and the brand's dry run is as planned",
        ),
        Ok(found) => Line::warning(
            name,
            format!("the brand adds `{}`, which is not planned", found.besides.join("`, `")),
            fix,
        ),
        Err(error) => Line::failure(name, chain(&error), fix),
    }
}

async fn images(config: &Config) -> Vec<Line> {
    let golden = golden_of(config);
    let mut lines = Vec::new();
    for label in config.images.keys() {
        let (golden, name) = (golden.clone(), format!("image {label}"));
        let fix = format!("helios-ci image import FILE {label} --sha256 DIGEST");
        let of = label.clone();
        let newest = tokio::task::spawn_blocking(move || {
            let newest = golden.versions(&of)?.pop();
            // The first block; `image verify` reads all of it. Only root may.
            if let Some(newest) = newest.as_ref().filter(|_| is_root()) {
                newest.is_readable()?;
            }
            Ok::<_, GoldenError>(newest)
        });
        lines.push(match newest.await {
            Ok(Ok(Some(newest))) => Line::ok(name, format!("version {}", newest.number)),
            Ok(Ok(None)) => Line::failure(name, "no golden disk on this host", fix),
            Ok(Err(error)) => Line::failure(name, chain(&error), fix),
            Err(error) => Line::failure(name, error, fix),
        });
    }
    lines
}
