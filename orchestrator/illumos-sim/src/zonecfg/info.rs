//! `info`: the configuration for people.

use std::fmt::Write as _;

use super::{
    Config, Resource, Value,
    config::{Alias, complex, dedicated},
    edit::MEMORY,
    grammar::Pairs,
    keywords::{CONTROLS, TEXTS},
    resource::kind,
    session::Session,
    value::scaled,
};

const RESOURCES: &[&str] = &[
    "fs",
    "net",
    "device",
    "dedicated-cpu",
    "capped-cpu",
    "capped-memory",
    "attr",
    "dataset",
    "admin",
    "rctl",
    "security-flags",
];

fn quoted(text: &str) -> String {
    if text.contains(' ') {
        format!("\"{text}\"")
    } else {
        text.to_owned()
    }
}

fn text(config: &Config, name: &str) -> String {
    let value = match name {
        "zonename" => &config.name,
        "zonepath" => &config.zonepath,
        "brand" => &config.brand,
        "autoboot" => return format!("autoboot: {}\n", config.autoboot),
        "ip-type" => &config.ip_type,
        _ => config.text(name),
    };
    format!("{name}: {value}\n")
}

fn limit(config: &Config, name: &str) -> Option<u64> {
    config.aliased(Alias::named(name)?).ok().flatten()
}

fn control(config: &Config, name: &str) -> String {
    match limit(config, name) {
        Some(limit) if name == "max-shm-memory" => format!("[{name}: {}]\n", scaled(limit)),
        Some(limit) => format!("[{name}: {limit}]\n"),
        None => String::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is printed with two digits")]
fn capped(config: &Config, kind: &str) -> String {
    let names = if kind == "capped-cpu" { &["ncpus"][..] } else { MEMORY };
    let rows = names.iter().filter_map(|name| {
        let limit = limit(config, name)?;
        Some(match kind {
            "capped-cpu" => format!("\t[ncpus: {:.2}]\n", limit as f64 / 100.0),
            _ => format!("\t[{name}: {}]\n", scaled(limit)),
        })
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        rows
    } else {
        format!("{kind}:\n{rows}")
    }
}

fn resource(resource: &Resource) -> String {
    let mut out = format!("{}:\n", resource.kind);
    if resource.kind == "dedicated-cpu" {
        let _ = writeln!(out, "\tncpus: {}", dedicated(resource));
        if !resource.get("importance").is_empty() {
            let _ = writeln!(out, "\timportance: {}", resource.get("importance"));
        }
        return out;
    }
    for name in kind(&resource.kind).map_or(&[][..], |kind| kind.info) {
        match resource.get(name) {
            "" => _ = writeln!(out, "\t{name} not specified"),
            value => _ = writeln!(out, "\t{name}: {}", quoted(value)),
        }
    }
    if resource.kind == "fs" {
        let options: Vec<String> = resource
            .list("options")
            .iter()
            .map(|option| {
                if option.contains('=') {
                    format!("\"{option}\"")
                } else {
                    option.clone()
                }
            })
            .collect();
        let _ = writeln!(out, "\toptions: [{}]", options.join(","));
    }
    for (name, value) in &resource.values {
        if let Value::Complex(values) = value {
            for parts in values {
                let _ = writeln!(out, "\t{name}: {}", complex(&resource.kind, name, parts));
            }
        }
    }
    out
}

impl Session<'_> {
    /// `info [KIND or PROPERTY [PROPERTY=VALUE ...]]`; of an open resource it shows what is set so far.
    pub(super) fn info(&mut self, what: Option<&'static str>, pairs: &Pairs) {
        if !self.initialize(true) {
            return;
        }
        let Some(config) = self.config.clone() else { return };
        if let Some(scope) = &self.scope {
            self.out.stdout += &match scope.kind {
                "capped-cpu" | "capped-memory" => capped(&config, scope.kind),
                _ => resource(&scope.resource),
            };
            return;
        }
        let Some(what) = what else {
            let texts: String = TEXTS.iter().map(|name| text(&config, name)).collect();
            let controls: String = CONTROLS.iter().map(|name| control(&config, name)).collect();
            self.out.stdout += &(texts + &controls);
            RESOURCES
                .iter()
                .for_each(|kind| self.info_kind(&config, kind, &Vec::new()));
            return;
        };
        if RESOURCES.contains(&what) {
            self.info_kind(&config, what, pairs);
        } else if CONTROLS.contains(&what) {
            self.out.stdout += &control(&config, what);
        } else {
            self.out.stdout += &text(&config, what);
        }
    }

    fn info_kind(&mut self, config: &Config, kind: &'static str, pairs: &Pairs) {
        if kind.starts_with("capped-") {
            self.out.stdout += &capped(config, kind);
            return;
        }
        let mut shown = false;
        for one in config.of(kind) {
            let Ok(like) = self.wanted(kind, pairs) else { continue };
            if like.values.iter().all(|value| one.values.contains(value)) {
                self.out.stdout += &resource(one);
                shown = true;
            }
        }
        if !shown && !pairs.is_empty() {
            self.out.stdout += &format!("No such {kind} resource.\n");
        }
    }
}
