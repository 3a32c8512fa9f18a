//! The commands inside and around a resource: `add`, `select`, `end`, `cancel`, `remove`.

use super::{
    Resource, Value,
    config::Alias,
    grammar::{Given, Pairs, Parts},
    keywords::{RESOURCES, Verb},
    messages, privileges,
    resource::{Form, kind},
    session::{Scope, Session},
    value::{cut, limit},
    verify::admin_problems,
};

/// What a resource of the global zone can be.
const GLOBAL_ZONE: &[&str] = &[
    "rctl",
    "dedicated-cpu",
    "capped-cpu",
    "capped-memory",
    "admin",
    "security-flags",
];

/// The controls that `capped-memory` stands for.
pub(super) const MEMORY: &[&str] = &["physical", "swap", "locked"];

impl Session<'_> {
    pub(super) fn alias(&self, name: &str) -> Result<Option<u64>, &'static str> {
        match (&self.config, Alias::named(name)) {
            (Some(config), Some(alias)) => config.aliased(alias),
            _ => Ok(None),
        }
    }

    /// Whether a control is there under its alias.
    pub(super) fn has_alias(&self, name: &str) -> bool {
        matches!(self.alias(name), Ok(Some(_)))
    }

    fn has(&self, kind: &str) -> bool {
        self.config
            .as_ref()
            .is_some_and(|config| config.of(kind).next().is_some())
    }

    fn has_any_memory(&self) -> bool {
        MEMORY.iter().any(|name| self.has_alias(name))
    }

    fn global_zone_lacks(&self, kind: &str) -> bool {
        self.is_global_zone() && !GLOBAL_ZONE.contains(&kind)
    }

    /// `add KIND`. That a capped resource is there already is said and not counted as an error.
    pub(super) fn add(&mut self, kind: &'static str) {
        if !self.initialize(true) {
            return;
        }
        if self.scope.is_some() {
            return self.long_usage(Verb::Add);
        }
        if self.global_zone_lacks(kind) {
            return self.error(&format!("Cannot add a {kind} resource to the global zone."));
        }
        let pool = self
            .config
            .as_ref()
            .is_some_and(|config| !config.text("pool").is_empty());
        let exists = |kind: &str| Some(format!("The {kind} resource already exists."));
        let refused = match kind {
            "dedicated-cpu" | "capped-cpu" if self.has("dedicated-cpu") => exists("dedicated-cpu"),
            "dedicated-cpu" if self.alias("ncpus") != Ok(None) => exists("capped-cpu"),
            "dedicated-cpu" if pool => Some(
                "The pool property is already set.  A persistent pool is incompatible with\nthe dedicated-cpu resource."
                    .into(),
            ),
            "capped-cpu" => match self.alias("ncpus") {
                Err(why) => Some(format!("capped-cpu: {why}")),
                Ok(Some(_)) => exists("capped-cpu"),
                Ok(None) => None,
            },
            "capped-memory" if self.has_any_memory() => {
                Some("The capped-memory resource or a related resource control already exists.".into())
            }
            _ => None,
        };
        if let Some(text) = refused {
            return self.zerr(&text);
        }
        if kind == "security-flags" && self.has(kind) {
            self.zerr("The security-flags resource already exists.");
        }
        self.scope = Some(Scope {
            kind,
            resource: Resource::new(kind),
            old: None,
        });
    }

    /// Says that the open resource has no such property.
    pub(super) fn no_property(&mut self, verb: Verb, name: &str) {
        self.perror(name, messages::NO_PROPERTY_TYPE);
        self.long_usage(verb);
    }

    /// `add PROPERTY VALUE`.
    pub(super) fn add_value(&mut self, name: &'static str, value: Given) {
        if !self.initialize(true) {
            return;
        }
        let Some(scope) = &self.scope else {
            return self.long_usage(Verb::Add);
        };
        let form = kind(scope.kind)
            .and_then(|kind| kind.property(name))
            .map(|property| property.form);
        let capable = matches!(scope.kind, "fs" | "net" | "device" | "rctl");
        match (form, value) {
            (Some(Form::List), Given::Simple(text)) => self.put(name, Value::List(vec![text])),
            (Some(Form::List), Given::List(list)) => {
                let simple = list.into_iter().map_while(|given| match given {
                    Given::Simple(text) => Some(text),
                    _ => None,
                });
                let texts = simple.collect();
                self.put(name, Value::List(texts));
            }
            (Some(Form::List), _) => self.error("A simple or list value was expected here."),
            (Some(Form::Complex(names)), Given::Complex(parts)) => self.add_complex(name, names, &parts),
            (Some(Form::Complex(names)), Given::List(list)) if name == "value" => {
                for given in list {
                    match given {
                        Given::Complex(parts) => self.add_complex(name, names, &parts),
                        _ => self.add_complex(name, names, &Vec::new()),
                    }
                }
            }
            (Some(Form::Complex(_)), _) if name == "value" => self.error("A complex or list value was expected here."),
            (Some(Form::Complex(_)), _) => self.error("A complex value was expected here."),
            _ if capable => self.no_property(Verb::Add, name),
            _ => {
                let kind = scope.kind;
                self.perror(kind, messages::NO_RESOURCE_TYPE);
                self.long_usage(Verb::Add);
            }
        }
    }

    fn put(&mut self, name: &str, value: Value) {
        if let Some(scope) = &mut self.scope
            && let Err(text) = scope.resource.set(name, value, true)
        {
            self.error(&text);
        }
    }

    /// Adds a complex value: what is wrong with it is said, and no error unless it holds another property's part.
    fn add_complex(&mut self, name: &'static str, names: &[&str], parts: &Parts) {
        if parts.iter().any(|(part, _)| !names.contains(part)) {
            return self.no_property(Verb::Add, name);
        }
        for (at, (part, _)) in parts.iter().enumerate() {
            if parts[..at].iter().any(|(other, _)| other == part) {
                return self.zerr(&format!("{part} already specified"));
            }
        }
        let value = |part: &str| parts.iter().find(|(n, _)| *n == part).map(|(_, value)| value.as_str());
        let missing: Vec<&&str> = names.iter().filter(|part| value(part).is_none()).collect();
        for part in &missing {
            self.zerr(&format!("{part} not specified"));
        }
        if name == "value" {
            if !missing.is_empty() {
                return;
            }
            let fits = value("priv") == Some("privileged")
                && value("limit").is_some_and(|text| limit(text).is_some())
                && matches!(value("action"), Some("none" | "deny"));
            if !fits {
                return self.zerr("Invalid rctl value specification");
            }
        }
        if let Some((part, _)) = parts.iter().find(|(_, text)| name == "property" && text.len() >= 256) {
            return self.zerr(&format!("Input for {part} is too long"));
        }
        let ordered = names
            .iter()
            .map(|part| ((*part).to_owned(), cut(value(part).unwrap_or_default(), 256).to_owned()))
            .collect();
        self.put(name, Value::Complex(vec![ordered]));
    }

    /// `remove PROPERTY VALUE`.
    pub(super) fn remove_value(&mut self, name: &'static str, value: Given) {
        let Some(scope) = &mut self.scope else {
            return self.long_usage(Verb::Remove);
        };
        let form = kind(scope.kind)
            .and_then(|kind| kind.property(name))
            .map(|property| property.form);
        let (form, value) = match (form, value) {
            (Some(Form::List), Given::Complex(_)) => return self.error("A simple or list value was expected here."),
            (Some(Form::List), Given::Simple(text)) => (Form::List, vec![text]),
            (Some(Form::List), Given::List(list)) => {
                let texts = list.into_iter().map_while(|given| match given {
                    Given::Simple(text) => Some(text),
                    _ => None,
                });
                (Form::List, texts.collect())
            }
            (Some(Form::Complex(names)), Given::Complex(parts)) => {
                if parts.iter().any(|(part, _)| !names.contains(part)) {
                    return self.no_property(Verb::Remove, name);
                }
                let value = |part: &str| parts.iter().find(|(n, _)| *n == part).map_or("", |(_, value)| value);
                let parts = names
                    .iter()
                    .map(|part| ((*part).to_owned(), value(part).to_owned()))
                    .collect();
                if !scope.resource.take(name, &Value::Complex(vec![parts])) {
                    self.perror(name, messages::NO_PROPERTY_ID);
                }
                return;
            }
            (Some(Form::Complex(_)), _) => return self.error("A complex value was expected here."),
            _ if matches!(scope.kind, "fs" | "net" | "device" | "rctl") => return self.no_property(Verb::Remove, name),
            _ => {
                let kind = scope.kind;
                self.perror(kind, messages::NO_RESOURCE_TYPE);
                return self.long_usage(Verb::Remove);
            }
        };
        debug_assert_eq!(form, Form::List);
        for text in value {
            let taken = self
                .scope
                .as_mut()
                .is_some_and(|scope| scope.resource.take(name, &Value::List(vec![text])));
            if !taken {
                self.perror(name, messages::NO_PROPERTY_ID);
            }
        }
    }

    /// What `select`, `remove` and `info` are to find.
    pub(super) fn wanted(&mut self, kind_name: &'static str, pairs: &Pairs) -> Result<Resource, &'static str> {
        let mut like = Resource::new(kind_name);
        for (name, value) in pairs {
            let Given::Simple(text) = value else {
                self.error("A simple value was expected here.");
                return Err(messages::INSUFFICIENT_SPEC);
            };
            let known = kind(kind_name).is_some_and(|kind| {
                kind.property(name)
                    .is_some_and(|property| property.form == Form::Simple)
            });
            if !known || like.set(name, Value::Simple(text.clone()), false).is_err() {
                self.perror(name, messages::NO_PROPERTY_TYPE);
                return Err(messages::INSUFFICIENT_SPEC);
            }
        }
        Ok(like)
    }

    fn found(&mut self, kind: &'static str, pairs: &Pairs) -> Result<Resource, &'static str> {
        let like = self.wanted(kind, pairs)?;
        let config = self.config.as_ref().ok_or(messages::NO_ZONE)?;
        let why = if kind == "rctl" && like.get("name").is_empty() {
            Err(messages::INVAL)
        } else {
            config.find(&like)
        };
        why.map(|at| config.resources[at].clone())
    }

    /// `select KIND PROPERTY=VALUE`.
    pub(super) fn select(&mut self, kind: &'static str, pairs: &Pairs) {
        if self.scope.is_some() {
            return self.error("The select command only makes sense in the global scope.");
        }
        if !self.initialize(true) {
            return;
        }
        let found = match kind {
            "capped-cpu" => match self.alias("ncpus") {
                Ok(Some(_)) => Ok(Resource::new(kind)),
                Ok(None) => Err(messages::NO_ENTRY),
                Err(why) => Err(why),
            },
            "capped-memory" if self.has_any_memory() => Ok(Resource::new(kind)),
            "capped-memory" => Err(messages::NO_RESOURCE_TYPE),
            "dedicated-cpu" => self.found(kind, &Vec::new()),
            _ => self.found(kind, pairs),
        };
        match found {
            Ok(resource) => {
                self.scope = Some(Scope {
                    kind,
                    resource: resource.clone(),
                    old: Some(resource),
                });
            }
            Err(why) => self.perror(&format!("select {kind}"), why),
        }
    }

    /// `remove KIND`: the one that is meant, or all of them.
    pub(super) fn remove(&mut self, word: Option<&str>, kind: &'static str, pairs: &Pairs) {
        if self.scope.is_some() {
            return self.long_usage(Verb::Remove);
        }
        if self.global_zone_lacks(kind) {
            return self.error(&format!("{kind} is not a valid resource for the global zone."));
        }
        let force = match word {
            None => false,
            Some(word) if word.len() > 1 && word.strip_prefix('-').is_some_and(|l| l.chars().all(|c| c == 'F')) => true,
            Some(word) if word.starts_with('-') && word.len() > 1 => {
                self.out.stdout += &format!("usage:\n{}\n", Verb::Remove.usage());
                return;
            }
            Some(_) => false,
        };
        if !self.initialize(true) {
            return;
        }
        let about = format!("remove {kind}");
        match kind {
            "capped-cpu" | "capped-memory" => {
                let names = if kind == "capped-cpu" { &["ncpus"][..] } else { MEMORY };
                let there: Vec<&Alias> = names
                    .iter()
                    .filter(|name| self.has_alias(name))
                    .filter_map(|name| Alias::named(name))
                    .collect();
                if there.is_empty() {
                    return self.perror(&about, messages::NO_RESOURCE_TYPE);
                }
                self.edit(|config| there.iter().for_each(|alias| config.remove_control(alias)));
            }
            // That none is there is said here and no error.
            "security-flags" if !self.has(kind) => self.zerr(&format!("{about}: {}", messages::NO_RESOURCE_TYPE)),
            "dedicated-cpu" | "security-flags" => match self.found(kind, &Vec::new()) {
                Ok(resource) => self.edit(|config| config.remove(&resource)),
                Err(why) => self.perror(&about, why),
            },
            _ if !pairs.is_empty() => match self.found(kind, pairs) {
                Ok(resource) => self.edit(|config| config.remove(&resource)),
                Err(why) => self.perror(&about, why),
            },
            _ => match self.config.as_ref().map_or(0, |config| config.of(kind).count()) {
                0 => self.perror(&about, messages::NO_ENTRY),
                1 => self.edit(|config| config.resources.retain(|resource| resource.kind != kind)),
                _ if force => self.edit(|config| config.resources.retain(|resource| resource.kind != kind)),
                _ => self.error(
                    "There are multiple instances of this resource.  Either qualify the resource to\n\
                     remove a single instance or use the -F option to remove all instances.",
                ),
            },
        }
    }

    /// `end`.
    pub(super) fn end(&mut self) {
        let Some(scope) = &self.scope else {
            return self.error("The end command only makes sense in the resource scope.");
        };
        let (kind, resource, old) = (scope.kind, scope.resource.clone(), scope.old.clone());
        let limit = |name: &str| self.alias(name).ok().flatten();
        let mut problems = match kind {
            "capped-cpu" if !self.has_alias("ncpus") => vec!["ncpus not specified".to_owned()],
            "capped-memory" if !self.has_any_memory() => {
                vec!["No property was specified.  One of physical, swap or locked is required.".into()]
            }
            "capped-memory" if limit("physical").is_some_and(|physical| limit("locked") > Some(physical)) => {
                vec!["The locked cap must be less than or equal to the physical cap.".into()]
            }
            "admin" => admin_problems(&resource, &self.name),
            _ => resource.problems(),
        };
        if kind == "security-flags" {
            let (said, valid) =
                privileges::check_flags(resource.get("default"), resource.get("lower"), resource.get("upper"));
            said.iter().for_each(|text| self.zerr(text));
            if !valid {
                self.failed = true;
                return;
            }
        }
        if problems.is_empty()
            && RESOURCES.contains(&kind)
            && !kind.starts_with("capped-")
            && let Some(config) = &mut self.config
        {
            match old {
                None => problems = config.add(resource).err().unwrap_or_default(),
                Some(old) => {
                    config.remove(&old);
                    config.resources.push(resource);
                }
            }
        }
        if problems.is_empty() {
            (self.scope, self.changed) = (None, true);
        }
        for text in problems {
            self.error(&text);
        }
    }

    /// `cancel`: what a capped resource set stays, for it went to its control at once.
    pub(super) fn cancel(&mut self) {
        if self.scope.take().is_none() {
            self.error("The cancel command only makes sense in the resource scope.");
        }
    }
}
