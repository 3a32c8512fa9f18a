//! zfs(8): the verbs, and what they share.

mod create;
mod destroy;
mod list;
pub mod name;
mod props;
mod rename_mount;
mod snapshots;
pub mod space;
#[cfg(test)]
mod tests;

use crate::{
    host::Host,
    out::{Options, Out, Ran, options},
    state::Dataset,
};

pub use create::filesystem;
pub use destroy::recursively;

/// Runs zfs.
///
/// # Errors
/// Whatever the verb refuses.
pub fn run(host: &mut Host, args: &[String]) -> Ran {
    let Some((verb, rest)) = args.split_first() else {
        return Err(Out::usage("missing command\nusage: zfs command args ..."));
    };
    match verb.as_str() {
        "create" => create::create(host, rest),
        "clone" => create::clone(host, rest),
        "destroy" => destroy::destroy(host, rest),
        "list" => list::list(host, rest),
        "get" => list::get(host, rest),
        "set" => props::set(host, rest),
        "inherit" => props::inherit(host, rest),
        "snapshot" | "snap" => snapshots::snapshot(host, rest),
        "hold" => snapshots::hold(host, rest),
        "release" => snapshots::release(host, rest),
        "holds" => snapshots::holds(host, rest),
        "rename" => rename_mount::rename(host, rest),
        "mount" => rename_mount::mount(host, rest),
        "unmount" | "umount" => rename_mount::unmount(host, rest),
        other => Err(usage(other, &format!("unrecognized command '{other}'"))),
    }
}

fn usage(verb: &str, text: &str) -> Out {
    Out::usage(format!("{text}\nusage:\n\t{verb} ..."))
}

/// Options of a verb, with so many operands.
fn read<'a>(verb: &str, args: &'a [String], spec: &str, least: usize, most: usize) -> Result<Options<'a>, Out> {
    let options = options(args, spec).map_err(|text| usage(verb, &text))?;
    if options.rest.len() < least {
        return Err(usage(verb, "missing argument"));
    }
    if options.rest.len() > most {
        return Err(usage(verb, "too many arguments"));
    }
    Ok(options)
}

fn open<'a>(host: &'a Host, name: &str) -> Result<&'a Dataset, Out> {
    let missing = || Out::error(format!("cannot open '{name}': dataset does not exist"));
    if let Err(reason) = name::check(name) {
        return Err(Out::error(format!("cannot open '{name}': {reason}")));
    }
    host.state.datasets.get(name).ok_or_else(missing)
}

/// Failures of the simulator's own files show as I/O errors of the pool; a mountpoint that holds something is none.
fn io(verb: &str, name: &str) -> impl FnOnce(std::io::Error) -> Out {
    let text = format!("cannot {verb} '{name}'");
    move |error| match error.kind() {
        std::io::ErrorKind::DirectoryNotEmpty => Out::error(format!("{text}: directory is not empty")),
        _ => Out::error(format!("{text}: I/O error ({error})")),
    }
}

/// Bytes as zfs prints them: exactly, or in the largest unit with at most three digits.
#[must_use]
pub fn number(bytes: u64, exact: bool) -> String {
    if exact || bytes < 1024 {
        return bytes.to_string();
    }
    let step = (bytes.ilog2() / 10) as usize;
    let whole = bytes >> (10 * step);
    let unit = ['B', 'K', 'M', 'G', 'T', 'P', 'E'][step];
    let hundredths = ((u128::from(bytes) * 100) >> (10 * step)) % 100;
    match (whole, hundredths) {
        (_, 0) | (100.., _) => format!("{whole}{unit}"),
        (10..100, _) => format!("{whole}.{}{unit}", hundredths / 10),
        _ => format!("{whole}.{hundredths:02}{unit}"),
    }
}

/// A number with an optional binary unit: `20G`, `16k`, `4096`.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
