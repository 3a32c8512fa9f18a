//! One zone's configuration.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Resource, Value};

/// Properties that are resource controls by another name, with the control's action.
const ALIASES: &[(&str, &str, &str)] = &[
    ("cpu-shares", "zone.cpu-shares", "none"),
    ("max-lwps", "zone.max-lwps", "deny"),
    ("max-processes", "zone.max-processes", "deny"),
    ("max-msg-ids", "zone.max-msg-ids", "deny"),
    ("max-sem-ids", "zone.max-sem-ids", "deny"),
    ("max-shm-ids", "zone.max-shm-ids", "deny"),
    ("max-shm-memory", "zone.max-shm-memory", "deny"),
];

/// Other properties of a zone that are only kept.
const PLAIN: &[&str] = &[
    "bootargs",
    "pool",
    "limitpriv",
    "scheduling-class",
    "hostid",
    "fs-allowed",
];

/// Brands with files below `/usr/lib/brand`.
pub const BRANDS: &[&str] = &["bhyve", "lipkg", "ipkg", "sparse", "pkgsrc", "lx", "kvm", "illumos"];

/// One zone's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Empty until it is set.
    pub zonepath: String,
    /// The brand.
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

    /// Sets one of the zone's own properties; `installed` forbids those that were used already.
    ///
    /// # Errors
    /// The sentence zonecfg refuses it with.
    pub fn set(&mut self, property: &str, value: Value, installed: bool) -> Result<(), String> {
        let text = match value {
            Value::Simple(text) => text,
            Value::List(list) if matches!(property, "limitpriv" | "fs-allowed") => list.join(","),
            _ => return Err(format!("incorrect value for property {property}")),
        };
        if installed && matches!(property, "zonepath" | "brand" | "ip-type") {
            return Err(format!(
                "Zone {} already installed; set {property} not allowed.",
                self.name
            ));
        }
        match property {
            "zonename" => return Err("setting zonename is not simulated".into()),
            "zonepath" if !text.starts_with('/') => return Err(format!("{text} is not an absolute path.")),
            "zonepath" if text == "/" => return Err(format!("{text} is not allowed as zonepath.")),
            "zonepath" => {
                self.zonepath = if text.len() > 1 {
                    text.trim_end_matches('/').into()
                } else {
                    text
                }
            }
            "brand" => self.brand = text,
            "autoboot" => match text.as_str() {
                "true" => self.autoboot = true,
                "false" => self.autoboot = false,
                _ => return Err("autoboot value must be true or false".into()),
            },
            "ip-type" if ["shared", "exclusive"].contains(&text.as_str()) => self.ip_type = text,
            "ip-type" => return Err("ip-type value must be either \"shared\" or \"exclusive\".".into()),
            _ if PLAIN.contains(&property) => {
                self.plain.insert(property.into(), text);
            }
            _ => match ALIASES.iter().find(|(alias, ..)| *alias == property) {
                Some((_, control, action)) => {
                    let limit: u64 = text
                        .parse()
                        .map_err(|_| format!("A non-negative number is required for {property}"))?;
                    self.control(control, limit, action);
                }
                None => return Err(format!("property {property} not allowed in global scope")),
            },
        }
        Ok(())
    }

    /// Takes one of the zone's own properties back.
    ///
    /// # Errors
    /// The sentence zonecfg refuses it with.
    pub fn clear(&mut self, property: &str) -> Result<(), String> {
        if let Some((_, control, _)) = ALIASES.iter().find(|(alias, ..)| *alias == property) {
            self.resources
                .retain(|resource| resource.kind != "rctl" || resource.get("name") != *control);
        } else if PLAIN.contains(&property) {
            self.plain.remove(property);
        } else {
            return Err(format!("{property} cannot be cleared"));
        }
        Ok(())
    }

    fn control(&mut self, name: &str, limit: u64, action: &str) {
        self.resources
            .retain(|resource| resource.kind != "rctl" || resource.get("name") != name);
        let parts = [
            ("priv", "privileged".to_owned()),
            ("limit", limit.to_string()),
            ("action", action.to_owned()),
        ];
        let value = parts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        self.resources.push(Resource {
            kind: "rctl".into(),
            values: vec![
                ("name".into(), Value::Simple(name.into())),
                ("value".into(), Value::Complex(vec![value])),
            ],
        });
    }

    /// Adds a resource that was ended.
    ///
    /// # Errors
    /// The sentence zonecfg refuses it with.
    pub fn add(&mut self, resource: Resource) -> Result<(), String> {
        let kind = resource.kind.clone();
        if let Some(missing) = resource.missing() {
            return Err(format!(
                "{kind}: {missing} cannot be null\nresource specification incomplete"
            ));
        }
        if kind == "net" && self.ip_type == "exclusive" && !resource.get("address").is_empty() {
            return Err("net: address cannot be specified for an exclusive IP type".into());
        }
        if kind == "net" && !resource.get("defrouter").is_empty() && resource.get("allowed-address").is_empty() {
            return Err("net: defrouter cannot be specified without allowed-address".into());
        }
        if kind == "capped-cpu" {
            let ncpus: f64 = resource
                .get("ncpus")
                .parse()
                .map_err(|_| "ncpus value is out of range.")?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a checked small positive number"
            )]
            self.control("zone.cpu-cap", (ncpus * 100.0).round() as u64, "deny");
            return Ok(());
        }
        let key = resource.key();
        if let Some((property, value)) = key
            && self.of(&kind).any(|other| other.key() == key)
        {
            return Err(format!(
                "A {kind} resource with the {property} '{value}' already exists."
            ));
        }
        self.resources.push(resource);
        Ok(())
    }

    /// Why it cannot be committed.
    ///
    /// # Errors
    /// The sentence zonecfg refuses it with.
    pub fn verify(&self) -> Result<(), String> {
        if self.zonepath.is_empty() {
            return Err("zonepath: Required property missing".into());
        }
        if !BRANDS.contains(&self.brand.as_str()) {
            return Err(format!(
                "Zone {} uses non-existent brand \"{}\".  Unable to continue",
                self.name, self.brand
            ));
        }
        if self.of("dedicated-cpu").next().is_some()
            && (self.limit("zone.cpu-shares").is_some() || self.limit("zone.cpu-cap").is_some())
        {
            return Err("dedicated-cpu is incompatible with cpu-shares and capped-cpu".into());
        }
        let addressed = |net: &Resource| !net.get("address").is_empty();
        if self.ip_type == "exclusive" && self.of("net").any(addressed) {
            return Err("net: address cannot be specified for an exclusive IP type".into());
        }
        Ok(())
    }

    /// `export`: commands that make the same configuration again.
    #[must_use]
    pub fn export(&self) -> String {
        let mut text = format!(
            "create -b\nset zonepath={}\nset brand={}\nset autoboot={}\nset ip-type={}\n",
            self.zonepath, self.brand, self.autoboot, self.ip_type
        );
        for (name, value) in &self.plain {
            let _ = writeln!(text, "set {name}={value}");
        }
        for resource in &self.resources {
            let _ = writeln!(text, "add {}", resource.kind);
            for (name, value) in &resource.values {
                match value {
                    Value::Simple(value) => _ = writeln!(text, "set {name}=\"{value}\""),
                    Value::List(list) => list.iter().for_each(|value| _ = writeln!(text, "add {name} {value}")),
                    Value::Complex(values) => values.iter().for_each(|parts| {
                        let parts: Vec<String> = parts.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
                        let _ = writeln!(text, "add {name} ({})", parts.join(","));
                    }),
                }
            }
            text.push_str("end\n");
        }
        text
    }
}
