//! Resources of a configuration: their kinds, their properties, and what those may be.

use crate::program::dladm::is_link_name;

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One text.
    Simple(String),
    /// `[a,b]`.
    List(Vec<String>),
    /// `(a=b,c=d)`, as often as it was added.
    Complex(Vec<Vec<(String, String)>>),
}

/// How a property is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Once, one text.
    Simple,
    /// A list of texts.
    List,
    /// Complex values with these parts.
    Complex(&'static [&'static str]),
}

/// One property of a kind.
#[derive(Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// The attribute of the XML element, or its child element for lists and complex values.
    pub xml: &'static str,
    /// Whether `end` wants it.
    pub required: bool,
    /// How it is written.
    pub form: Form,
}

/// One kind of resource.
#[derive(Debug)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Its XML element.
    pub element: &'static str,
    /// Its properties; the first that is required tells one from another.
    pub properties: &'static [Property],
}

const fn must(name: &'static str, xml: &'static str) -> Property {
    Property {
        name,
        xml,
        required: true,
        form: Form::Simple,
    }
}

const fn may(name: &'static str, xml: &'static str) -> Property {
    Property {
        name,
        xml,
        required: false,
        form: Form::Simple,
    }
}

const fn of(name: &'static str, xml: &'static str, required: bool, form: Form) -> Property {
    Property {
        name,
        xml,
        required,
        form,
    }
}

const KINDS: &[Kind] = &[
    Kind {
        name: "fs",
        element: "filesystem",
        properties: &[
            must("dir", "directory"),
            must("special", "special"),
            may("raw", "raw"),
            must("type", "type"),
            of("options", "fsoption", false, Form::List),
        ],
    },
    Kind {
        name: "net",
        element: "network",
        properties: &[
            may("address", "address"),
            may("allowed-address", "allowed-address"),
            may("defrouter", "defrouter"),
            must("physical", "physical"),
            may("global-nic", "global-nic"),
            may("mac-addr", "mac-addr"),
            may("vlan-id", "vlan-id"),
            of("property", "net-attr", false, Form::Complex(&["name", "value"])),
        ],
    },
    Kind {
        name: "device",
        element: "device",
        properties: &[must("match", "match")],
    },
    Kind {
        name: "attr",
        element: "attr",
        properties: &[must("name", "name"), must("type", "type"), must("value", "value")],
    },
    Kind {
        name: "rctl",
        element: "rctl",
        properties: &[
            must("name", "name"),
            of("value", "rctl-value", true, Form::Complex(&["priv", "limit", "action"])),
        ],
    },
    Kind {
        name: "dataset",
        element: "dataset",
        properties: &[must("name", "name")],
    },
    Kind {
        name: "capped-memory",
        element: "mcap",
        properties: &[may("physical", "physcap"), may("swap", "swap"), may("locked", "locked")],
    },
    Kind {
        name: "capped-cpu",
        element: "cpu-cap",
        properties: &[must("ncpus", "ncpus")],
    },
    Kind {
        name: "dedicated-cpu",
        element: "pset",
        properties: &[must("ncpus", "ncpu_max"), may("importance", "importance")],
    },
    Kind {
        name: "admin",
        element: "admin",
        properties: &[must("user", "user"), must("auths", "auths")],
    },
];

/// The kind of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The kind of this XML element.
#[must_use]
pub fn kind_of_element(element: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.element == element)
}

impl Kind {
    /// One of its properties.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties.iter().find(|property| property.name == name)
    }
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name of its kind.
    pub kind: String,
    /// Its properties in the order they were set.
    pub values: Vec<(String, Value)>,
}

impl Resource {
    /// An empty one.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self {
            kind: kind.into(),
            values: Vec::new(),
        }
    }

    /// The text of a simple property; empty when it is not set.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.values
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| match value {
                Value::Simple(text) => text,
                _ => "",
            })
    }

    /// The complex values of a property.
    #[must_use]
    pub fn complex(&self, name: &str) -> &[Vec<(String, String)>] {
        self.values
            .iter()
            .find(|(n, _)| n == name)
            .map_or(&[], |(_, value)| match value {
                Value::Complex(values) => values,
                _ => &[],
            })
    }

    /// Sets a property, or adds to one that is a list.
    ///
    /// # Errors
    /// The sentence zonecfg refuses it with.
    pub fn set(&mut self, name: &str, value: Value, add: bool) -> Result<(), String> {
        let property = kind(&self.kind).and_then(|kind| kind.property(name));
        let Some(property) = property else {
            return Err(format!("property {name} not allowed for {} resource", self.kind));
        };
        let value = match (property.form, value) {
            (Form::Simple, Value::Simple(text)) if !add => {
                self.check(name, &text)?;
                Value::Simple(text)
            }
            (Form::Simple, Value::List(list)) if !add && matches!(name, "allowed-address" | "defrouter") => {
                Value::Simple(list.join(","))
            }
            (Form::List, Value::Simple(text)) => Value::List(vec![text]),
            (Form::List, Value::List(list)) => Value::List(list),
            (Form::Complex(parts), Value::Complex(values)) => {
                for value in &values {
                    let mut names: Vec<&str> = value.iter().map(|(name, _)| name.as_str()).collect();
                    let mut wanted = parts.to_vec();
                    names.sort_unstable();
                    wanted.sort_unstable();
                    if names != wanted {
                        return Err(format!("{name} must have {}", parts.join(", ")));
                    }
                }
                Value::Complex(values)
            }
            _ => return Err(format!("incorrect value for property {name}")),
        };
        match self.values.iter_mut().find(|(n, _)| n == name).map(|(_, old)| old) {
            None => self.values.push((name.to_owned(), value)),
            Some(old) => match (old, value) {
                (Value::List(old), Value::List(new)) if add => old.extend(new),
                (Value::Complex(old), Value::Complex(new)) if add => old.extend(new),
                (old, value) => *old = value,
            },
        }
        Ok(())
    }

    fn check(&self, name: &str, text: &str) -> Result<(), String> {
        let plain = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        match (self.kind.as_str(), name) {
            ("attr", "name") if !plain(text, "-.") => Err(format!(
                "Invalid attr name {text}: can only contain alpha-numeric characters, plus '-' and '.'."
            )),
            ("attr", "type") if !["string", "boolean", "int", "uint"].contains(&text) => {
                Err(format!("Invalid attr type {text}"))
            }
            ("attr", "value") if text.len() >= 256 => Err("attr value is too long".into()),
            ("device", "match") if text.len() > 1023 || text.is_empty() => Err("match is too long".into()),
            ("net", "physical") if text.len() >= 32 || !is_link_name(text) => {
                Err(format!("{text}: Invalid interface name"))
            }
            ("net", "allowed-address" | "address") if !text.contains('/') && text.is_empty() => {
                Err("address is empty".into())
            }
            ("capped-cpu" | "dedicated-cpu", "ncpus") => {
                let first = text.split('-').next().unwrap_or_default();
                let fits = first.parse::<f64>().is_ok_and(|ncpus| ncpus >= 0.01);
                if fits {
                    Ok(())
                } else {
                    Err("ncpus value is out of range.".into())
                }
            }
            ("fs", "dir") if !text.starts_with('/') => Err(format!("{text} is not an absolute path.")),
            _ => Ok(()),
        }
    }

    /// The first property that is missing.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        let kind = kind(&self.kind)?;
        let set = |name: &str| self.values.iter().any(|(n, _)| n == name);
        if kind.name == "capped-memory" {
            return self.values.is_empty().then_some("physical");
        }
        kind.properties
            .iter()
            .find(|property| property.required && !set(property.name))
            .map(|property| property.name)
    }

    /// What tells this resource from others of its kind: the property and its value.
    #[must_use]
    pub fn key(&self) -> Option<(&'static str, &str)> {
        let property = kind(&self.kind)?.properties.iter().find(|property| property.required)?;
        Some((property.name, self.get(property.name)))
    }

    /// Whether it has all these values.
    #[must_use]
    pub fn fits(&self, filter: &[(String, Value)]) -> bool {
        filter.iter().all(|pair| self.values.contains(pair))
    }
}
