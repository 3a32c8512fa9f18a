//! zpool(8): `list` and `status -x`.

use super::zfs::{number, space};
use crate::{
    host::Host,
    out::{Out, Ran, options},
};

const USAGE: &str = "usage: zpool list [-Hp] [-o property[,...]] [pool] ... | zpool status [-x] [pool] ...";
const KNOWN: &[&str] = &["name", "size", "alloc", "free", "cap", "dedup", "health", "altroot"];

/// Runs zpool.
///
/// # Errors
/// Usage, an unknown pool.
pub fn run(host: &mut Host, args: &[String]) -> Ran {
    match args.split_first() {
        None => Err(Out::usage(format!("missing command\n{USAGE}"))),
        Some((verb, rest)) if verb == "list" => list(host, rest),
        Some((verb, rest)) if verb == "status" => status(host, rest),
        Some((verb, _)) => Err(Out::usage(format!("unrecognized command '{verb}'\n{USAGE}"))),
    }
}

fn list(host: &Host, args: &[String]) -> Ran {
    let options = options(args, "Hpo:T:").map_err(|text| Out::usage(format!("{text}\n{USAGE}")))?;
    let mut names = Vec::new();
    for word in options
        .value('o')
        .unwrap_or("name,size,alloc,free,cap,dedup,health,altroot")
        .split(',')
    {
        let word = match word {
            "allocated" => "alloc",
            "capacity" => "cap",
            word => word,
        };
        if !KNOWN.contains(&word) {
            return Err(Out::usage(format!(
                "bad property list: invalid property '{word}'\n{USAGE}"
            )));
        }
        names.push(word);
    }
    let exact = options.has('p');
    let (mut text, mut errors) = (String::new(), String::new());
    if !options.has('H') {
        text = names
            .iter()
            .map(|name| format!("{:<10}", name.to_uppercase()))
            .collect::<String>()
            + "\n";
    }
    let pools: Vec<&str> = if options.rest.is_empty() {
        host.state.pools.keys().map(String::as_str).collect()
    } else {
        options.rest.clone()
    };
    for name in pools {
        let Some(pool) = host.state.pools.get(name) else {
            errors += &format!("cannot open '{name}': no such pool\n");
            continue;
        };
        let used = space::used(host, name);
        let values = names.iter().map(|field| match *field {
            "name" => name.to_owned(),
            "size" => number(pool.size, exact),
            "alloc" => number(used, exact),
            "free" => number(pool.size.saturating_sub(used), exact),
            "cap" => format!("{}{}", used * 100 / pool.size.max(1), if exact { "" } else { "%" }),
            "dedup" => if exact { "1.00" } else { "1.00x" }.to_owned(),
            "health" => pool.health.clone(),
            _ => "-".to_owned(),
        });
        text += &if options.has('H') {
            values.collect::<Vec<_>>().join("\t")
        } else {
            values.map(|value| format!("{value:<10}")).collect()
        };
        text.push('\n');
    }
    let code = i32::from(!errors.is_empty());
    Ok(Out {
        stdout: text,
        stderr: errors,
        code,
    })
}

fn status(host: &Host, args: &[String]) -> Ran {
    let options = options(args, "xv").map_err(|text| Out::usage(format!("{text}\n{USAGE}")))?;
    if let Some(name) = options.rest.iter().find(|name| !host.state.pools.contains_key(**name)) {
        return Err(Out::error(format!("cannot open '{name}': no such pool")));
    }
    let ill: Vec<_> = host
        .state
        .pools
        .iter()
        .filter(|(_, pool)| pool.health != "ONLINE")
        .collect();
    if options.has('x') && ill.is_empty() {
        return Ok(Out::text("all pools are healthy\n"));
    }
    let text = host
        .state
        .pools
        .iter()
        .filter(|(name, pool)| {
            (options.rest.is_empty() || options.rest.contains(&name.as_str()))
                && (!options.has('x') || pool.health != "ONLINE")
        })
        .map(|(name, pool)| format!("  pool: {name}\n state: {}\n", pool.health))
        .collect::<Vec<_>>()
        .join("\n");
    Ok(Out::text(text))
}
