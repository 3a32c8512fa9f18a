//! `/usr/lib/brand/bhyve/boot`, as far as a person may run it: its dry run.

use serde_json::{Map, Value, json};

use crate::{
    boot::brand::{self, Machine},
    host::Host,
    out::{Out, Ran, options},
    zonecfg::{self, Config},
};

const USAGE: &str = "
boot [-S] [-t] [-x xml] <[-z] zone>
   -S   System initialisation (host boot) mode
   -t   Test mode - just show what would be done
   -j   Output the computed zone data in JSON format
   -x   Path to zone's XML file
   -z   Name of zone

";

/// `boot -t NAME` prints what the hook says, the command line among it, and bhyve's settings; `-j` prints JSON alone.
///
/// # Errors
/// Usage, no such zone, and what the hook refuses.
pub fn boot(host: &Host, args: &[String]) -> Ran {
    let usage = |text: &str| Out {
        stdout: format!("{USAGE}{text}"),
        code: 2,
        ..Out::default()
    };
    let options = options(args, "Sjtx:z:").map_err(|_| usage(""))?;
    let (name, rest) = match (options.value('z'), options.rest.as_slice()) {
        (Some(name), rest) => (name, rest),
        (None, [name, rest @ ..]) => (*name, rest),
        (None, []) => return Err(usage("No zone name supplied\n")),
    };
    if !rest.is_empty() {
        return Err(usage("Unexpected arguments\n"));
    }
    let json = options.has('j');
    if options.has('S') || !(json || options.has('t')) {
        return Err(Out::error("boot: only the dry runs -t and -j are simulated"));
    }
    let machine = configuration(host, name, options.value('x')).and_then(|config| {
        let machine = brand::machine(host, &config)?;
        machine.check()?;
        Ok((config, machine))
    });
    let (config, machine) = machine.map_err(|text| Out {
        stdout: format!("ERROR:root:{text}\n"),
        ..Out::error(text)
    })?;
    Ok(Out::text(if json {
        format!("{}\n", document(&config, &machine))
    } else {
        format!("{}{}", machine.log.text(), brand::settings(&machine))
    }))
}

/// The zone's configuration, out of another file where one is named.
fn configuration(host: &Host, name: &str, file: Option<&str>) -> Result<Config, String> {
    let usual = format!("/etc/zones/{name}.xml");
    let shown = file.unwrap_or(&usual);
    let text = std::fs::read_to_string(host.given(shown));
    let text = text.map_err(|_| format!("Cannot find zone XML file at {shown}"))?;
    let config = zonecfg::xml::read(&text).ok_or_else(|| format!("Could not parse {shown}"))?;
    if config.name == name {
        Ok(config)
    } else {
        Err(format!("Zone name {name} does not match XML file {}", config.name))
    }
}

/// All that was found out about a zone.
fn document(config: &Config, machine: &Machine) -> Value {
    let mut tree = Map::new();
    for (name, value) in brand::configuration(&machine.argv()) {
        let mut parts: Vec<&str> = name.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let mut node = Some(&mut tree);
        for part in parts {
            node = node.and_then(|node| node.entry(part).or_insert_with(|| json!({})).as_object_mut());
        }
        if let Some(node) = node {
            node.insert(last.into(), value.into());
        }
    }
    let boot: Map<String, Value> = machine
        .boot_options
        .iter()
        .map(|(name, place)| (name.clone(), json!(place)))
        .collect();
    json!({
        "zonename": config.name,
        "zonepath": config.zonepath,
        "zoneroot": format!("{}/root", config.zonepath),
        "slots": machine.slots(),
        "uefi": machine.uefivars,
        "bootoptions": boot,
        "opts": machine.options.all(),
        "config": tree,
    })
}
