//! One zone's configuration.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    Resource, Value, messages,
    resource::{Form, kind, kinds},
};

/// A property that is a resource control by another name.
#[derive(Debug)]
pub struct Alias {
    pub name: &'static str,
    pub control: &'static str,
    /// What the control does at its limit.
    pub action: &'static str,
    /// The least limit that the property takes; the control itself takes any.
    pub least: u64,
}

const fn alias(name: &'static str, control: &'static str, least: u64) -> Alias {
    let action = "deny";
    Alias {
        name,
        control,
        action,
        least,
    }
}

/// The aliases. Four of them are set by resources: `capped-memory` and `capped-cpu`.
const ALIASES: &[Alias] = &[
    alias("max-lwps", "zone.max-lwps", 100),
    alias("max-processes", "zone.max-processes", 100),
    alias("max-shm-memory", "zone.max-shm-memory", 0),
    alias("max-shm-ids", "zone.max-shm-ids", 0),
    alias("max-msg-ids", "zone.max-msg-ids", 0),
    alias("max-sem-ids", "zone.max-sem-ids", 0),
    alias("physical", "zone.max-physical-memory", 0),
    alias("swap", "zone.max-swap", 0),
    alias("locked", "zone.max-locked-memory", 0),
    alias("ncpus", "zone.cpu-cap", 0),
    Alias {
        name: "cpu-shares",
        control: "zone.cpu-shares",
        action: "none",
        least: 0,
    },
    Alias {
        name: "zfs-io-priority",
        control: "zone.zfs-io-priority",
        action: "none",
        least: 1,
    },
];

impl Alias {
    /// The alias of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALIASES.iter().find(|alias| alias.name == name)
    }
}

/// Texts of the zone's own that are only kept, with the size of the buffer that `export` reads them into.
const TEXTS: &[(&str, usize)] = &[
    ("bootargs", 257),
    ("pool", 256),
    ("limitpriv", usize::MAX),
    ("scheduling-class", 256),
    ("hostid", 11),
    ("fs-allowed", 1024),
];

/// The size of the buffer of a path.
pub const PATH_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    /// Empty until it is set.
    pub zonepath: String,
    pub brand: String,
    /// Whether it boots with the host.
    pub autoboot: bool,
    /// `shared` or `exclusive`.
    pub ip_type: String,
    /// The rest of its own properties.
    pub plain: BTreeMap<String, String>,
    /// Its resources in the order they were added.
    pub resources: Vec<Resource>,
}

impl Config {
    /// What a template makes; none when there is no such template.
    #[must_use]
    pub fn template(name: &str, template: &str) -> Option<Self> {
        let brand = match template {
            "SUNWblank" | "SUNWdefault" | "OMNIlipkg" => "lipkg",
            "bhyve" | "OMNIbhyve" => "bhyve",
            _ => return None,
        };
        Some(Self {
            name: name.into(),
            zonepath: String::new(),
            brand: brand.into(),
            autoboot: false,
            ip_type: "exclusive".into(),
            plain: BTreeMap::new(),
            resources: Vec::new(),
        })
    }

    /// Whether it has a network stack of its own.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.ip_type == "exclusive"
    }

    /// One of the texts of its own; empty when it is not set.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.plain.get(name).map_or("", String::as_str)
    }

    /// Resources of a kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().filter(move |resource| resource.kind == kind)
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.of("attr")
            .find(|attr| attr.get("name") == name)
            .map(|attr| attr.get("value"))
    }

    /// The limit of a resource control.
    #[must_use]
    pub fn limit(&self, control: &str) -> Option<u64> {
        let rctl = self.of("rctl").find(|rctl| rctl.get("name") == control)?;
        let (_, limit) = rctl
            .complex("value")
            .first()?
            .iter()
            .find(|(name, _)| name == "limit")?;
        limit.parse().ok()
    }

    /// The limit under an alias; none when there is no such control.
    ///
    /// # Errors
    /// The control is there in a form that the alias does not speak for.
    pub fn aliased(&self, alias: &Alias) -> Result<Option<u64>, &'static str> {
        let mut controls = self.of("rctl").filter(|rctl| rctl.get("name") == alias.control);
        let Some(control) = controls.next() else {
            return Ok(None);
        };
        let [parts] = control.complex("value") else {
            return Err(messages::ALIAS_DISALLOW);
        };
        let part = |name: &str| parts.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value);
        if controls.next().is_some() || part("priv") != "privileged" || part("action") != alias.action {
            return Err(messages::ALIAS_DISALLOW);
        }
        Ok(Some(part("limit").parse().unwrap_or_default()))
    }

    /// Sets the limit under an alias, which must be free or there in the alias's own form.
    pub fn set_aliased(&mut self, alias: &Alias, limit: u64) {
        self.remove_control(alias);
        let parts = [
            ("priv", "privileged".to_owned()),
            ("limit", limit.to_string()),
            ("action", alias.action.to_owned()),
        ];
        let parts = parts.map(|(name, value)| (name.to_owned(), value)).to_vec();
        self.resources.push(Resource {
            kind: "rctl".into(),
            values: vec![
                ("name".into(), Value::Simple(alias.control.into())),
                ("value".into(), Value::Complex(vec![parts])),
            ],
        });
    }

    /// Removes the control of an alias.
    pub fn remove_control(&mut self, alias: &Alias) {
        self.resources
            .retain(|resource| resource.kind != "rctl" || resource.get("name") != alias.control);
    }

    /// Adds a resource that was ended.
    ///
    /// # Errors
    /// What is wrong with it, or that there is one like it.
    pub fn add(&mut self, resource: Resource) -> Result<(), Vec<String>> {
        let problems = resource.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        // What distinguishes it: of a net all that it is reached by, of others their name.
        let mut like = Resource::new(&resource.kind);
        let names: &[&str] = match resource.kind.as_str() {
            "net" => &["physical", "address", "allowed-address", "defrouter"],
            "dedicated-cpu" | "security-flags" => &[],
            kind => super::resource::kind(kind).map_or(&[], |kind| &kind.keys[..1]),
        };
        like.values = resource
            .values
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()))
            .cloned()
            .collect();
        if !names.is_empty() && self.find(&like).is_ok() {
            return Err(vec![resource.exists()]);
        }
        self.resources.push(resource);
        Ok(())
    }

    /// The one resource that is like this one in all that is set.
    ///
    /// # Errors
    /// There is none, or more than one, or nothing to find it by.
    pub fn find(&self, like: &Resource) -> Result<usize, &'static str> {
        let all = self
            .resources
            .iter()
            .enumerate()
            .filter(|(_, resource)| resource.kind == like.kind);
        if like.kind == "net" {
            return self.find_net(like);
        }
        let Some(kind) = kind(&like.kind) else {
            return Err(messages::NO_RESOURCE_ID);
        };
        if kind.keys.is_empty() {
            return all.map(|(at, _)| at).next().ok_or(messages::NO_ENTRY);
        }
        let mut found = None;
        for (at, resource) in all {
            // zonecfg looks at one property after the other, and a later one that fits outweighs an earlier that
            // does not.
            for (rank, key) in kind
                .keys
                .iter()
                .enumerate()
                .filter(|(_, key)| !like.get(key).is_empty())
            {
                match resource.get(key) == like.get(key) {
                    true if found.is_none_or(|found| found == at && rank > 0) => found = Some(at),
                    true => return Err(messages::INSUFFICIENT_SPEC),
                    false if rank > 0 && found == Some(at) => found = None,
                    false => {}
                }
            }
        }
        found.ok_or(messages::NO_RESOURCE_ID)
    }

    fn find_net(&self, like: &Resource) -> Result<usize, &'static str> {
        let given = |name: &str| !like.get(name).is_empty();
        if given("address") && given("allowed-address") {
            return Err(messages::INVAL);
        }
        let keys = [
            "address",
            "physical",
            "defrouter",
            "allowed-address",
            "mac-addr",
            "global-nic",
        ];
        if !keys.into_iter().any(given) {
            return Err(messages::INSUFFICIENT_SPEC);
        }
        let exclusive = self.is_exclusive();
        let fits = |net: &Resource| {
            keys.into_iter().filter(|key| given(key)).all(|key| match key {
                "address" if exclusive => true,
                "allowed-address" | "mac-addr" | "global-nic" if !exclusive => true,
                "address" | "allowed-address" | "defrouter" => same_address(net.get(key), like.get(key)),
                _ => net.get(key) == like.get(key),
            })
        };
        let all = self.resources.iter().enumerate();
        let mut found = all.filter(|(_, net)| net.kind == "net" && fits(net)).map(|(at, _)| at);
        match (found.next(), found.next()) {
            (Some(at), None) => Ok(at),
            (Some(_), Some(_)) => Err(messages::INSUFFICIENT_SPEC),
            (None, _) => Err(messages::NO_RESOURCE_ID),
        }
    }

    /// Removes a resource that was found. Of nets with the same link the first goes, whichever was meant: any of
    /// four properties being equal is enough for zonecfg.
    pub fn remove(&mut self, like: &Resource) {
        let same = |resource: &Resource| {
            let equal = |name: &&str| resource.get(name) == like.get(name);
            if like.kind == "net" {
                let any = ["address", "allowed-address", "mac-addr", "global-nic"];
                return resource.kind == "net" && equal(&"physical") && any.iter().any(equal);
            }
            resource == like
        };
        if let Some(at) = self.resources.iter().position(same) {
            self.resources.remove(at);
        }
    }

    /// `export`: commands that make the same configuration again. The brand is the stored zone's: none before the
    /// first commit.
    #[must_use]
    pub fn export(&self, brand: Option<&str>) -> String {
        let mut text = "create -b\n".to_owned();
        if !self.zonepath.is_empty() && self.zonepath.len() < PATH_MAX {
            let _ = writeln!(text, "set zonepath={}", self.zonepath);
        }
        if let Some(brand) = brand {
            let _ = writeln!(text, "set brand={brand}");
        }
        let _ = writeln!(text, "set autoboot={}", self.autoboot);
        for (name, size) in TEXTS {
            if *name == "hostid" {
                let _ = writeln!(text, "set ip-type={}", self.ip_type);
            }
            let value = self.text(name);
            if !value.is_empty() && value.len() < *size {
                let _ = writeln!(text, "set {name}={value}");
            }
        }
        for kind in kinds() {
            for resource in self.of(kind.name) {
                text += &export_resource(resource);
            }
        }
        text
    }
}

/// Two addresses are the same when one of them lacks only its prefix length.
fn same_address(one: &str, other: &str) -> bool {
    let bare = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    one == other || one.contains('/') != other.contains('/') && bare(one) == bare(other)
}

/// How many processors are dedicated: a number, or a range.
pub(super) fn dedicated(resource: &Resource) -> String {
    match (resource.get("ncpu_min"), resource.get("ncpu_max")) {
        (least, most) if least == most => most.to_owned(),
        (least, most) => format!("{least}-{most}"),
    }
}

fn export_resource(resource: &Resource) -> String {
    let mut text = format!("add {}\n", resource.kind);
    if resource.kind == "dedicated-cpu" {
        let _ = writeln!(text, "set ncpus={}", dedicated(resource));
        if !resource.get("importance").is_empty() {
            let _ = writeln!(text, "set importance={}", resource.get("importance"));
        }
        return text + "end\n";
    }
    for (name, value) in &resource.values {
        match value {
            Value::Simple(value) => _ = writeln!(text, "set {name}=\"{value}\""),
            Value::List(list) => list.iter().for_each(|value| {
                let quote = if value.contains('=') { "\"" } else { "" };
                let _ = writeln!(text, "add {name} {quote}{value}{quote}");
            }),
            Value::Complex(values) => values
                .iter()
                .for_each(|parts| _ = writeln!(text, "add {name} {}", complex(&resource.kind, name, parts))),
        }
    }
    text + "end\n"
}

/// A complex value as `export` and `info` print it.
#[must_use]
pub fn complex(resource: &str, name: &str, parts: &[(String, String)]) -> String {
    let form = kind(resource)
        .and_then(|kind| kind.property(name))
        .map(|property| property.form);
    let Some(Form::Complex(names)) = form else {
        return String::new();
    };
    let shown = names.iter().map(|part| {
        let value = parts.iter().find(|(n, _)| n == part).map_or("", |(_, value)| value);
        let quote = if name == "property" && *part == "value" {
            "\""
        } else {
            ""
        };
        format!("{part}={quote}{value}{quote}")
    });
    format!("({})", shown.collect::<Vec<_>>().join(","))
}
