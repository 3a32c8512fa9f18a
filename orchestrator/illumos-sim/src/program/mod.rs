//! The programs, by the name they are called by.

pub mod bhyve;
pub mod brand;
pub mod dladm;
pub mod filter;
pub mod ipadm;
pub mod pfexec;
pub mod services;
pub mod svccfg;
pub mod system;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod zfs;
pub mod zoneadm;
pub mod zonecfg;
pub mod zpool;

use crate::{host::Host, out::Out};

/// Every name this binary answers to.
pub const NAMES: &[&str] = &[
    "zfs",
    "zpool",
    "zonecfg",
    "zoneadm",
    "zoneadmd",
    "dladm",
    "ipadm",
    "bhyvectl",
    "pkill",
    "ipf",
    "ipfstat",
    "zonename",
    "uname",
    "svcs",
    "svcprop",
    "pfexec",
    "fuser",
    "svcadm",
    "svccfg",
    "zlogin",
    "boot",
    "dispadmin",
];

/// Runs a program over the model.
pub fn run(host: &mut Host, name: &str, args: &[String]) -> Out {
    let ran = match name {
        "zfs" => zfs::run(host, args),
        "zpool" => zpool::run(host, args),
        "zonecfg" => zonecfg::run(host, args),
        "zoneadm" => zoneadm::run(host, args),
        "zoneadmd" => zoneadm::daemon(host, args),
        "dladm" => dladm::run(host, args),
        "ipadm" => ipadm::run(host, args),
        "bhyvectl" => bhyve::bhyvectl(host, args),
        "boot" => brand::boot(host, args),
        "pkill" => bhyve::pkill(host, args),
        "ipf" => filter::ipf(host, args),
        "ipfstat" => filter::ipfstat(host, args),
        "zonename" => system::zonename(args),
        "uname" => system::uname(host, args),
        "fuser" => system::fuser(host, args),
        "dispadmin" => system::dispadmin(host, args),
        "svcs" => services::svcs(host, args),
        "svcadm" => services::svcadm(host, args),
        "svccfg" => svccfg::run(host, args),
        "zlogin" => zoneadm::login(host, args),
        "svcprop" => services::svcprop(host, args),
        other => Err(Out::error(format!("{other}: no such program in this simulator")).code(127)),
    };
    ran.unwrap_or_else(|out| out)
}
