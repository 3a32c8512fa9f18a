//! svccfg(8): manifests are checked and imported, properties set. What is set counts from the next `svcadm refresh`.

use crate::{
    host::Host,
    out::{Out, Ran},
    xml::{self, Element},
};

use super::services::matching;

/// The types of properties.
const TYPES: &[&str] = &[
    "count",
    "integer",
    "boolean",
    "astring",
    "ustring",
    "host",
    "net_address",
    "fmri",
    "uri",
    "time",
    "opaque",
];

fn no(text: impl std::fmt::Display) -> Out {
    Out::error(format!("svccfg: {text}"))
}

/// `svccfg validate FILE`, `svccfg import FILE`, `svccfg -s FMRI setprop GROUP/NAME = TYPE: VALUE`.
///
/// # Errors
/// Usage, a file that is no manifest, no such service or group. Only the exit codes are known of the real one; the
/// sentences are this simulator's.
pub fn run(host: &mut Host, args: &[String]) -> Ran {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["validate", file] => manifest(host, file).map(|_| Out::silent()),
        ["import", file] => {
            let bundle = manifest(host, file)?;
            bundle.of("service").for_each(|service| import(host, service));
            Ok(Out::silent())
        }
        ["-s", pattern, "setprop", rest @ ..] => setprop(host, pattern, &rest.join(" ")),
        _ => Err(Out::usage(
            "svccfg: usage:\tsvccfg [-v] [-s FMRI] [subcommand [args]...]\nonly validate, import and setprop are simulated",
        )),
    }
}

/// A manifest: a document whose root is a service bundle, in which everything that is looked at has its name.
fn manifest(host: &Host, file: &str) -> Result<Element, Out> {
    let text = std::fs::read_to_string(host.given(file)).map_err(|error| no(format!("{file}: {error}")))?;
    let wrong = |why: String| no(format!("{file}: couldn't parse document: {why}"));
    let bundle = xml::parse(&text).map_err(wrong)?;
    if bundle.name != "service_bundle" || bundle.get("type") != "manifest" {
        return Err(wrong("its root is no service_bundle of type manifest".into()));
    }
    for service in bundle.of("service") {
        let instances: Vec<&Element> = service.of("instance").collect();
        let groups = service.of("property_group");
        let inner = instances.iter().flat_map(|instance| instance.of("property_group"));
        let groups: Vec<&Element> = groups.chain(inner).collect();
        let values: Vec<&Element> = groups.iter().flat_map(|group| group.of("propval")).collect();
        let unnamed = std::iter::once(service)
            .chain(instances.iter().copied())
            .chain(groups.iter().copied())
            .chain(values.iter().copied())
            .find(|element| element.get("name").is_empty());
        if let Some(element) = unnamed {
            return Err(wrong(format!("a {} without a name", element.name)));
        }
        for value in values {
            fits(value.get("type"), value.get("value"))
                .map_err(|why| wrong(format!("{}: {why}", value.get("name"))))?;
        }
    }
    Ok(bundle)
}

/// Whether a value is one of its type.
fn fits(kind: &str, value: &str) -> Result<(), String> {
    let good = match kind {
        "count" => value.parse::<u64>().is_ok(),
        "integer" => value.parse::<i64>().is_ok(),
        "boolean" => ["true", "false"].contains(&value),
        kind => TYPES.contains(&kind),
    };
    good.then_some(()).ok_or_else(|| format!("`{value}` is no {kind}"))
}

/// Adds the instances of a service: those that are enabled run at once. One that is there already keeps its state and
/// the values that it has.
fn import(host: &mut Host, service: &Element) {
    let default = service.of("create_default_instance").map(|made| ("default", made));
    let named = service.of("instance").map(|instance| (instance.get("name"), instance));
    for (name, instance) in default.chain(named) {
        let fmri = format!("svc:/{}:{name}", service.get("name"));
        let state = if instance.get("enabled") == "true" {
            "online"
        } else {
            "disabled"
        };
        host.state.services.entry(fmri.clone()).or_insert_with(|| state.into());
        let props = host.state.service_props.entry(fmri).or_default();
        for group in service.of("property_group").chain(instance.of("property_group")) {
            for value in group.of("propval") {
                let name = format!("{}/{}", group.get("name"), value.get("name"));
                props.entry(name).or_insert_with(|| value.get("value").into());
            }
        }
    }
}

fn setprop(host: &mut Host, pattern: &str, text: &str) -> Ran {
    let found = matching(host, pattern);
    let [fmri] = found.as_slice() else {
        return Err(no(format!(
            "Pattern '{pattern}' doesn't match any instances or services"
        )));
    };
    let fmri = (*fmri).clone();
    let syntax = || Out::usage("svccfg: usage: setprop pg/name = [type:] value");
    let (name, value) = text.split_once('=').ok_or_else(syntax)?;
    let (kind, value) = value.trim().split_once(':').ok_or_else(syntax)?;
    let (name, kind, value) = (name.trim(), kind.trim(), value.trim());
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    if quoted.is_none() && (value.is_empty() || value.contains([' ', '"', '(', ')'])) {
        return Err(syntax());
    }
    let value = quoted.unwrap_or(value);
    fits(kind, value).map_err(no)?;
    let (group, _) = name.split_once('/').ok_or_else(syntax)?;
    let known = host.state.service_props.get(&fmri);
    if !known.is_some_and(|props| props.keys().any(|name| name.starts_with(&format!("{group}/")))) {
        return Err(no(format!("{fmri} has no property group {group}")));
    }
    let edits = host.state.service_edits.entry(fmri).or_default();
    edits.insert(name.into(), value.into());
    Ok(Out::silent())
}

#[cfg(test)]
mod tests {
    use crate::program::testing::TestHost;

    const MANIFEST: &str = "<?xml version=\"1.0\"?>\n<service_bundle type=\"manifest\" name=\"m\"><service name=\"application/m\" type=\"service\" version=\"1\"><create_default_instance enabled=\"false\"/><property_group name=\"config\" type=\"application\"><propval name=\"x\" type=\"astring\" value=\"a b\"/><propval name=\"n\" type=\"count\" value=\"1\"/></property_group></service></service_bundle>\n";

    #[test]
    fn a_manifest_is_validated_imported_and_changed() {
        let fixture = TestHost::new();
        let file = fixture.file("m.xml", MANIFEST);
        fixture.ok(&format!("svccfg validate {file}"));
        fixture.no("svcs -H -o state application/m", 1);
        for (from, to) in [
            ("</service_bundle>", ""),
            ("type=\"manifest\"", "type=\"profile\""),
            ("service name=\"application/m\"", "service"),
            ("value=\"1\"", "value=\"one\""),
            ("type=\"astring\"", "type=\"string\""),
        ] {
            let bad = fixture.file("bad.xml", &MANIFEST.replace(from, to));
            fixture.no(&format!("svccfg validate {bad}"), 1);
            fixture.no(&format!("svccfg import {bad}"), 1);
        }
        fixture.ok(&format!("svccfg import {file}"));
        assert_eq!(fixture.ok("svcs -H -o state application/m"), "disabled\n");
        assert_eq!(fixture.ok("svcprop -p config/x m"), "a b\n");
        fixture.ok("svcadm enable application/m");
        fixture.ok("svccfg -s application/m:default setprop config/x = astring: \"v\"");
        assert_eq!(fixture.ok("svcprop -p config/x m"), "a b\n", "not refreshed yet");
        fixture.ok("svcadm refresh application/m");
        assert_eq!(fixture.ok("svcprop -p config/x m"), "v\n");
        fixture.ok(&format!("svccfg import {file}"));
        assert_eq!(fixture.ok("svcs -H -o state application/m"), "online\n", "it was there");
        assert_eq!(fixture.ok("svcprop -p config/x m"), "v\n");
        for (command, code) in [
            ("-s application/m:default setprop config/n = count: many", 1),
            ("-s application/m:default setprop none/n = count: 1", 1),
            ("-s application/none setprop config/n = count: 1", 1),
            ("-s application/m:default setprop config/x = astring: two words", 2),
            ("-s application/m:default setprop config/x astring: a", 2),
            ("validate /nonexistent", 1),
            ("frobnicate", 2),
        ] {
            fixture.no(&format!("svccfg {command}"), code);
        }
    }
}
