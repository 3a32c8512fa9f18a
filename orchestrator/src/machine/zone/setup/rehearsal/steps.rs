//! What a rehearsal does and in which order: each step is a row of docs/illumos-evidence.md, or several.

/// What is done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Configuration,
    Image,
    VolumeEnd,
    Disk,
    Zone,
    Network,
    Protection,
    Filter,
    Listen,
    Console,
    Boot,
    RunningLink,
    PowerOff,
    HaltClears,
    Removal,
}

/// A step of the rehearsal.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// By this name the evidence page and the output know it.
    pub id: &'static str,
    /// The fact that the step tries.
    pub fact: &'static str,
    pub(super) act: Act,
    /// Without it the steps after it have nothing to try.
    pub(super) needed: bool,
}

const fn step(act: Act, id: &'static str, needed: bool, fact: &'static str) -> Step {
    Step { id, fact, act, needed }
}

/// All steps, in the order in which they are tried.
pub const STEPS: &[Step] = &[
    step(
        Act::Configuration,
        "configuration",
        true,
        "zonecfg takes a machine's configuration and exports it as it was meant; the brand's dry run is as planned",
    ),
    step(
        Act::Image,
        "image",
        true,
        "a volume is written through its raw device, read back to its exact size, snapshotted and held",
    ),
    step(
        Act::VolumeEnd,
        "volume-end",
        false,
        "a read at a raw volume's end is EIO, and the last one before it is not",
    ),
    step(
        Act::Disk,
        "disk",
        true,
        "a clone has its owner tags as local properties, and grows",
    ),
    step(
        Act::Zone,
        "zone",
        true,
        "zoneadm installs the zone into its mounted filesystem and writes root/etc/uuid; the seed is written beside it",
    ),
    step(
        Act::Network,
        "network",
        true,
        "a stub and two VNICs get the addresses, MTU and properties that were asked for; the host's end forwards nothing",
    ),
    step(
        Act::Protection,
        "protection",
        true,
        "protection, allowed address, MTU and rate read back as they were set",
    ),
    step(
        Act::Filter,
        "filter",
        false,
        "ipfilter's rules are in force before all others, in the words in which they were loaded",
    ),
    step(
        Act::Listen,
        "listen",
        false,
        "the host's address of the slot can be listened on",
    ),
    step(
        Act::Console,
        "console",
        true,
        "zoneadmd makes the console's socket before the boot, and greets its reader with OK",
    ),
    step(
        Act::Boot,
        "boot",
        true,
        "bhyve starts under the zone's name, and a guest without a system stays in its firmware",
    ),
    step(
        Act::RunningLink,
        "running-link",
        false,
        "the link of a running zone is seen from the global zone, and is still protected",
    ),
    step(
        Act::PowerOff,
        "power-off",
        true,
        "a forced power-off halts the zone within seconds; zoneadmd writes down 256, bhyve's exit code 1",
    ),
    step(
        Act::HaltClears,
        "halt-clears",
        false,
        "zoneadmd takes a link's protection away when its zone halts",
    ),
    step(
        Act::Removal,
        "removal",
        false,
        "uninstall, delete, links, disk and golden disk go, and nothing is left",
    ),
];
