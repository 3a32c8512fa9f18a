//! What the brand makes of an image's attributes, before any job meets it: a zone is configured and never installed,
//! the brand's own dry run is compared with the plan, and the zone is removed.

use std::{collections::BTreeSet, io, path::Path};

use crate::{
    config::{Image, Zone},
    exec::ExecError,
    files,
    machine::zone::{
        command::{CommandError, brand, zonecfg},
        export::Exported,
        host::unless_absent,
        life::plan::{MachinePlan, PlanError, RUN, Wanted, example},
        owned::Owned,
    },
    model::{
        ids::AttemptId,
        illumos::release::Release,
        names::{Label, MachineName, NodeName},
    },
};

/// What the host made of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// Planned options of bhyve that the brand leaves out, or makes otherwise.
    pub missing: Vec<String>,
    /// What it adds of its own.
    pub besides: Vec<String>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// There is no plan to compare with.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A command could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A command of the host failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file for zonecfg.
    #[error("cannot write {path}")]
    Io {
        /// The file that cannot be written.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// zonecfg made something else of the file.
    #[error("zone {zone} is not as it was meant: {difference}")]
    Otherwise {
        /// The zone of the rehearsal.
        zone: MachineName,
        /// What differs, in one sentence.
        difference: String,
    },
    /// The dry run printed no command line.
    #[error("`/usr/lib/brand/bhyve/boot -t` printed no command line of bhyve: {0}")]
    Silent(String),
}

/// Rehearses a machine of this image's version as the brand of this release makes it. Needs root. The zone carries the
/// owner tags of an attempt that does not exist, so a machined that finds one left behind removes it.
///
/// # Errors
/// When a command fails, or the zone is not as it was meant; it is removed in any case.
pub async fn rehearse(
    node: &NodeName,
    zone: &Zone,
    label: &Label,
    image: &Image,
    version: u32,
    release: Release,
) -> Result<Rehearsal, RehearsalError> {
    let name = MachineName::of(AttemptId::new());
    let spec = example(node, label, name.clone(), image.size);
    let plan = MachinePlan::new(Wanted {
        spec: &spec,
        image,
        version,
        // It is the last to be a machine's.
        slot: zone.network.last_slot(),
        zone,
    })?;
    let written = files::public_dir(Path::new(RUN))
        .and_then(|()| files::write_private(&plan.config_file, plan.config.to_file().as_bytes()));
    written.map_err(|source| RehearsalError::Io {
        path: plan.config_file.display().to_string(),
        source,
    })?;
    let found = compared(&plan, &name, release).await;
    // Made under a name that nobody had before.
    let ours = Owned::by_rule(name);
    let deleted = unless_absent(zonecfg::done(&zonecfg::delete(&ours).run().await?));
    std::fs::remove_file(&plan.config_file).ok();
    found.and_then(|found| Ok(deleted.map(|()| found)?))
}

/// Configures a zone as it was planned, and compares what zonecfg and the brand made of it.
pub(super) async fn compared(
    plan: &MachinePlan,
    name: &MachineName,
    release: Release,
) -> Result<Rehearsal, RehearsalError> {
    zonecfg::done(&zonecfg::configure(name, &plan.config_file).run().await?)?;
    let exported = zonecfg::exported(&zonecfg::export(name).run().await?)?;
    let difference = match exported.map(|text| Exported::parse(&text)) {
        Some(exported) => exported.difference(&plan.config),
        None => Some("zonecfg said that it was configured, and it is not there".to_owned()),
    };
    if let Some(difference) = difference {
        return Err(RehearsalError::Otherwise {
            zone: name.clone(),
            difference,
        });
    }
    let output = brand::dry_run(name).run().await?;
    let printed = brand::options(&output)?;
    if printed.is_empty() {
        let said: String = output.text().trim().chars().take(400).collect();
        return Err(RehearsalError::Silent(said));
    }
    Ok(difference_of(&plan.devices(release), &printed))
}

/// An option is there when one with the same place has at least its parts: the brand adds serial numbers to disks.
fn difference_of(planned: &[String], printed: &BTreeSet<String>) -> Rehearsal {
    let is_there = |wanted: &str, printed: &str| {
        let mut parts = printed.split(',');
        let place = parts.next();
        let rest: Vec<&str> = parts.collect();
        let mut wanted = wanted.split(',');
        wanted.next() == place && wanted.all(|part| rest.contains(&part))
    };
    let missing = planned
        .iter()
        .filter(|wanted| !printed.iter().any(|option| is_there(wanted, option)));
    let besides = printed
        .iter()
        .filter(|option| !planned.iter().any(|wanted| is_there(wanted, option)));
    Rehearsal {
        missing: missing.cloned().collect(),
        besides: besides.cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_compared_by_place_and_parts() {
        let planned = [
            "-c 2",
            "-s 4:0,virtio-blk,/dev/z",
            "-s 5:0,virtio-blk,/seed.img,ro",
            "-s 10:0,virtio-rnd",
        ];
        let planned = planned.map(str::to_owned);
        let printed = |options: &[&str]| {
            options
                .iter()
                .map(|option| (*option).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let found = difference_of(
            &planned,
            &printed(&[
                "-c 2",
                "-s 0,hostbridge,model=i440fx",
                "-s 4:0,virtio-blk,/dev/z,ser=hci",
                "-s 5:0,virtio-blk,/seed.img,ser=x,ro",
                "-s 10:0,virtio-rnd",
            ]),
        );
        assert_eq!(found.missing, Vec::<String>::new());
        assert_eq!(found.besides, ["-s 0,hostbridge,model=i440fx"]);
        let found = difference_of(
            &planned,
            &printed(&[
                "-c 1",
                "-s 4:0,nvme,/dev/z",
                "-s 5:0,virtio-blk,/seed.img",
                "-s 10:1,virtio-rnd",
            ]),
        );
        assert_eq!(found.missing, planned);
        assert_eq!(found.besides.len(), 4);
    }
}
