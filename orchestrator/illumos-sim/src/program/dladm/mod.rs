//! dladm(8): the verbs, and what they share.

mod links;
pub mod props;
mod show;
#[cfg(test)]
mod tests;

use crate::{
    host::Host,
    out::{Options, Out, Ran, options},
};

/// Runs dladm.
///
/// # Errors
/// Whatever the verb refuses.
pub fn run(host: &mut Host, args: &[String]) -> Ran {
    let Some((verb, rest)) = args.split_first() else {
        return Err(usage("usage: dladm <subcommand> <args> ..."));
    };
    match verb.as_str() {
        "create-etherstub" => links::create_etherstub(host, rest),
        "create-vnic" => links::create_vnic(host, rest),
        "delete-etherstub" => links::delete_etherstub(host, rest),
        "delete-vnic" => links::delete_vnic(host, rest),
        "show-link" => show::link(host, rest),
        "show-vnic" => show::vnic(host, rest),
        "show-etherstub" => show::etherstub(host, rest),
        "set-linkprop" => props::set(host, rest),
        "reset-linkprop" => props::reset(host, rest),
        "show-linkprop" => props::show(host, rest),
        other => Err(usage(&format!(
            "dladm: unknown subcommand '{other}'\nusage: dladm <subcommand> <args> ..."
        ))),
    }
}

fn usage(text: &str) -> Out {
    Out::error(text)
}

fn no(text: impl std::fmt::Display) -> Out {
    Out::error(format!("dladm: {text}"))
}

fn read<'a>(args: &'a [String], spec: &str, least: usize, most: usize) -> Result<Options<'a>, Out> {
    let options = options(args, spec).map_err(|text| no(format!("unrecognized option: {text}")))?;
    if (least..=most).contains(&options.rest.len()) {
        Ok(options)
    } else {
        Err(usage("usage: dladm <subcommand> <args> ..."))
    }
}

/// Whether a name can be a link's.
#[must_use]
pub fn is_link_name(name: &str) -> bool {
    let number = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    (2..32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
        && !name.as_bytes()[0].is_ascii_digit()
        && number < name.len()
        && (name.as_bytes()[number] != b'0' || name.len() - number == 1)
}

/// A unicast MAC address of six bytes in hexadecimal, padded or not; given back padded.
#[must_use]
pub fn parse_mac(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| (1..=2).contains(&part.len()))
        })
        .collect();
    let bytes = bytes.filter(|bytes| bytes.len() == 6 && bytes[0] & 1 == 0)?;
    Some(bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))
}

/// A MAC address as dladm prints it: no leading zeroes.
#[must_use]
pub fn unpadded(mac: &str) -> String {
    let short = |part: &str| u8::from_str_radix(part, 16).map_or_else(|_| part.to_owned(), |b| format!("{b:x}"));
    mac.split(':').map(short).collect::<Vec<_>>().join(":")
}
