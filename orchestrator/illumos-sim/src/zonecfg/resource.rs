//! Resources of a configuration: their kinds, their properties, and what `end` wants of them.

use super::value::{cut, is_attr_name, is_signed, is_unsigned};

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
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
    pub name: &'static str,
    /// The attribute of the XML element, or its child element for lists and complex values.
    pub xml: &'static str,
    /// How it is written.
    pub form: Form,
    /// The buffer that zonecfg keeps it in: longer texts are cut without a word.
    pub size: usize,
    /// Whether `clear` takes it back.
    pub clears: bool,
}

/// One kind of resource.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub element: &'static str,
    /// Its properties in the order of `export`.
    pub properties: &'static [Property],
    /// The simple properties in the order of `info`.
    pub info: &'static [&'static str],
    /// What `select` and `remove` find it by, in the order they look.
    pub keys: &'static [&'static str],
}

const PATH: usize = 1024;
const NAME: usize = 256;
const ADDRESS: usize = 46;
const LINK: usize = 32;

const fn text(name: &'static str, xml: &'static str, size: usize) -> Property {
    let (form, clears) = (Form::Simple, false);
    Property {
        name,
        xml,
        form,
        size,
        clears,
    }
}

const fn free(name: &'static str, xml: &'static str, size: usize) -> Property {
    let (form, clears) = (Form::Simple, true);
    Property {
        name,
        xml,
        form,
        size,
        clears,
    }
}

const fn many(name: &'static str, xml: &'static str, form: Form, size: usize) -> Property {
    let clears = false;
    Property {
        name,
        xml,
        form,
        size,
        clears,
    }
}

const PROPERTY: Property = many("property", "net-attr", Form::Complex(&["name", "value"]), NAME);

const KINDS: &[Kind] = &[
    Kind {
        name: "fs",
        element: "filesystem",
        properties: &[
            text("dir", "directory", PATH),
            text("special", "special", PATH),
            free("raw", "raw", PATH),
            text("type", "type", 16),
            many("options", "fsoption", Form::List, PATH),
        ],
        info: &["dir", "special", "raw", "type"],
        keys: &["dir", "special", "raw", "type"],
    },
    Kind {
        name: "net",
        element: "network",
        properties: &[
            text("address", "address", ADDRESS),
            free("allowed-address", "allowed-address", ADDRESS),
            text("physical", "physical", LINK),
            free("mac-addr", "mac-addr", 20),
            free("vlan-id", "vlan-id", NAME),
            free("global-nic", "global-nic", LINK),
            free("defrouter", "defrouter", ADDRESS),
            PROPERTY,
        ],
        info: &[
            "address",
            "allowed-address",
            "defrouter",
            "global-nic",
            "mac-addr",
            "physical",
            "vlan-id",
        ],
        keys: &[
            "address",
            "allowed-address",
            "physical",
            "mac-addr",
            "vlan-id",
            "global-nic",
            "defrouter",
        ],
    },
    Kind {
        name: "device",
        element: "device",
        properties: &[text("match", "match", PATH), PROPERTY],
        info: &["match"],
        keys: &["match"],
    },
    Kind {
        name: "rctl",
        element: "rctl",
        properties: &[
            text("name", "name", NAME),
            many("value", "rctl-value", Form::Complex(&["priv", "limit", "action"]), NAME),
        ],
        info: &["name"],
        keys: &["name"],
    },
    Kind {
        name: "attr",
        element: "attr",
        properties: &[
            text("name", "name", NAME),
            text("type", "type", NAME),
            text("value", "value", 2048),
        ],
        info: &["name", "type", "value"],
        keys: &["name", "type", "value"],
    },
    Kind {
        name: "dataset",
        element: "dataset",
        properties: &[text("name", "name", NAME)],
        info: &["name"],
        keys: &["name"],
    },
    Kind {
        name: "dedicated-cpu",
        element: "pset",
        properties: &[
            text("ncpu_min", "ncpu_min", NAME),
            text("ncpu_max", "ncpu_max", NAME),
            free("importance", "importance", NAME),
        ],
        info: &[],
        keys: &[],
    },
    Kind {
        name: "admin",
        element: "admin",
        properties: &[text("user", "user", 33), text("auths", "auths", 4096)],
        info: &["user", "auths"],
        keys: &["user"],
    },
    Kind {
        name: "security-flags",
        element: "security-flags",
        properties: &[
            free("default", "default", 2048),
            free("lower", "lower", 2048),
            free("upper", "upper", 2048),
        ],
        info: &["default", "lower", "upper"],
        keys: &[],
    },
];

/// The kinds that a configuration holds, in the order of `export`. The capped ones are resource controls.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter()
}

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name of its kind.
    pub kind: String,
    /// Its properties that are set, in the order of `export`.
    pub values: Vec<(String, Value)>,
}

impl Resource {
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
        match self.value(name) {
            Some(Value::Simple(text)) => text,
            _ => "",
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The texts of a property that is a list.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// The complex values of a property.
    #[must_use]
    pub fn complex(&self, name: &str) -> &[Vec<(String, String)>] {
        match self.value(name) {
            Some(Value::Complex(values)) => values,
            _ => &[],
        }
    }

    /// Sets a property, or adds to one that is a list. A text too long for its buffer is cut; an empty one is none.
    ///
    /// # Errors
    /// The kind has no such property, or not of this form.
    pub fn set(&mut self, name: &str, value: Value, add: bool) -> Result<(), String> {
        let unknown = || format!("{name}: No such property type");
        let kind = kind(&self.kind).ok_or_else(unknown)?;
        let property = kind.property(name).ok_or_else(unknown)?;
        let mut value = match (property.form, value) {
            (Form::Simple, Value::Simple(text)) => Value::Simple(cut(&text, property.size).to_owned()),
            (Form::List, Value::List(list)) => Value::List(list),
            (Form::Complex(_), Value::Complex(values)) => Value::Complex(values),
            _ => return Err(unknown()),
        };
        let old = self.values.iter().position(|(n, _)| n == name);
        if let Some((_, old)) = old.map(|at| self.values.remove(at)).filter(|_| add) {
            match (&mut value, old) {
                (Value::List(new), Value::List(old)) => _ = new.splice(0..0, old),
                (Value::Complex(new), Value::Complex(old)) => _ = new.splice(0..0, old),
                _ => {}
            }
        }
        let empty = match &value {
            Value::Simple(text) => text.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Complex(values) => values.is_empty(),
        };
        if !empty {
            let rank = |name: &str| kind.properties.iter().position(|property| property.name == name);
            let at = self.values.partition_point(|(n, _)| rank(n) < rank(name));
            self.values.insert(at, (name.to_owned(), value));
        }
        Ok(())
    }

    /// Takes one value out of a property that has several; whether it was there.
    pub fn take(&mut self, name: &str, value: &Value) -> bool {
        let Some(at) = self.values.iter().position(|(n, _)| n == name) else {
            return false;
        };
        let found = match (&mut self.values[at].1, value) {
            (Value::List(has), Value::List(gone)) => {
                let place = has.iter().position(|text| gone.contains(text));
                place.map(|place| has.remove(place)).is_some()
            }
            (Value::Complex(has), Value::Complex(gone)) => {
                let place = has.iter().position(|parts| gone.contains(parts));
                place.map(|place| has.remove(place)).is_some()
            }
            _ => false,
        };
        let none = matches!(&self.values[at].1, Value::List(list) if list.is_empty())
            || matches!(&self.values[at].1, Value::Complex(values) if values.is_empty());
        if none {
            self.values.remove(at);
        }
        found
    }

    /// Why `end` does not take it: each thing that is wrong with it by itself.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let missing = |name: &str| self.get(name).is_empty().then(|| format!("{name} not specified"));
        match self.kind.as_str() {
            "fs" => {
                let relative = |name: &str| {
                    let path = self.get(name);
                    (!path.is_empty() && !path.starts_with('/'))
                        .then(|| format!("{name} {path} is not an absolute path."))
                };
                problems.extend(missing("dir"));
                problems.extend(relative("dir"));
                problems.extend(missing("special"));
                problems.extend(relative("raw"));
                problems.extend(missing("type"));
            }
            "net" => problems.extend(missing("physical")),
            "device" => problems.extend(missing("match")),
            "rctl" => {
                problems.extend(missing("name"));
                if self.complex("value").is_empty() {
                    problems.push("no value specified".into());
                }
            }
            "attr" => {
                problems.extend(["name", "type", "value"].into_iter().filter_map(missing));
                problems.extend(self.attr_problems());
            }
            "dataset" => problems.extend(missing("name")),
            "dedicated-cpu" if self.get("ncpu_min").is_empty() => problems.push("ncpus not specified".into()),
            _ => {}
        }
        problems
    }

    fn attr_problems(&self) -> Vec<String> {
        let (name, kind, value) = (self.get("name"), self.get("type"), self.get("value"));
        let mut problems = Vec::new();
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            problems.push(format!(
                "Invalid attr name {name}: must start with an alpha-numeric character."
            ));
        } else if !is_attr_name(name) {
            problems.push(format!(
                "Invalid attr name {name}: can only contain alpha-numeric characters, plus '-' and '.'."
            ));
        }
        let fits = match kind {
            "boolean" => value == "true" || value == "false",
            "int" => is_signed(value),
            "uint" => is_unsigned(value),
            "string" => value.len() < NAME,
            _ => {
                problems.push(format!("invalid attr type '{kind}'"));
                return problems;
            }
        };
        if !fits {
            problems.push(format!("invalid attr value for type={kind}"));
        }
        problems
    }

    /// That there is one like it already.
    #[must_use]
    pub fn exists(&self) -> String {
        let kind = &self.kind;
        let named = |name: &str| {
            let article = if kind == "attr" { "An" } else { "A" };
            let value = self.get(name);
            format!("{article} {kind} resource with the {name} '{value}' already exists.")
        };
        match kind.as_str() {
            "net" => {
                let address = if self.get("address").is_empty() {
                    "allowed-address"
                } else {
                    "address"
                };
                format!(
                    "A net resource with the physical '{}', and {address} '{}' already exists.",
                    self.get("physical"),
                    self.get(address)
                )
            }
            "fs" => named("dir"),
            "device" => named("match"),
            "admin" => named("user"),
            _ => named("name"),
        }
    }
}
