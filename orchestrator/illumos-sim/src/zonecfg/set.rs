//! `set` and `clear`.

use super::{
    Value,
    config::Alias,
    grammar::Given,
    keywords::{Verb, is_global},
    messages,
    resource::{Form, kind},
    session::Session,
    value::{
        BadHostId, bytes, check_address, check_host_id, check_physical, is_fs_allowed, is_fs_type, leading_number,
        scaled, unsigned,
    },
};

/// Properties that the global zone lacks.
const NOT_GLOBAL_ZONE: &[&str] = &[
    "zonename",
    "zonepath",
    "autoboot",
    "limitpriv",
    "bootargs",
    "brand",
    "scheduling-class",
    "ip-type",
    "hostid",
    "fs-allowed",
];

const MEMORY_EXPECTED: &str = "A non-negative number with a required scale suffix (K, M, G or T) was expected\nhere.";

/// The forms of an address, after one that has none of them.
const ADDRESS_FORMS: &str = "\n<net-addr> :=\t<IPv4-address>[/<IPv4-prefix-length>] |\n\
    \t\t<IPv6-address>/<IPv6-prefix-length> |\n\t\t<hostname>[/<IPv4-prefix-length>]\n";

/// Doubles slashes become one, and the last goes.
fn canonical(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

impl Session<'_> {
    fn global_zone_forbids(&mut self, name: &str) -> bool {
        let forbids = self.is_global_zone() && self.scope.is_none() && NOT_GLOBAL_ZONE.contains(&name);
        if forbids {
            self.error(&format!("{name} is not a valid property for the global zone."));
        }
        forbids
    }

    /// `set [-F] PROPERTY=VALUE`.
    pub(super) fn set(&mut self, word: Option<&str>, name: &'static str, value: Given) {
        self.getopt_silent = true;
        let force = word.is_some_and(|word| word.starts_with("-F"));
        if word.is_some_and(|word| word.len() > 1 && word.starts_with('-')) && !force {
            return self.short_usage(Verb::Set);
        }
        if self.global_zone_forbids(name) {
            return;
        }
        if self.scope.is_none() && !is_global(name) {
            return self.error("Cannot set a resource-specific property from the global scope.");
        }
        if force {
            return self.error(match self.scope {
                None => "Zonepath is changeable only in an alternate root.",
                Some(_) => "Only zonepath setting can be forced.",
            });
        }
        let several = self.scope.as_ref().and_then(|scope| {
            let property = kind(scope.kind)?.property(name)?;
            (property.form != Form::Simple && scope.kind != "device").then_some(scope.kind)
        });
        let Given::Simple(text) = value else {
            return match several {
                Some(_) => self.set_several(name, value),
                None => self.error("A simple value was expected here."),
            };
        };
        if several.is_some() {
            return self.set_several(name, Given::Simple(text));
        }
        if name == "zonename" && self.scope.is_none() && self.is_before_create() {
            if super::is_zone_name(&text) {
                self.name = text;
            } else {
                self.perror(&text, messages::BOGUS_ZONE_NAME);
            }
            return;
        }
        if !self.initialize(true) {
            return;
        }
        match self.scope.as_ref().map(|scope| scope.kind) {
            None => self.set_global(name, text),
            Some(kind) => self.set_in(kind, name, text),
        }
    }

    /// Replaces a property that has several values.
    fn set_several(&mut self, name: &'static str, value: Given) {
        if !self.initialize(true) {
            return;
        }
        let wants_list = name == "options" || name == "value";
        let refused = match (&value, name) {
            (Given::Complex(_), "options") => Some("A simple or list value was expected here."),
            (Given::Simple(_), "value") => Some("A complex or list value was expected here."),
            (Given::Simple(_) | Given::List(_), "property") => Some("A complex value was expected here."),
            _ => None,
        };
        if let Some(text) = refused {
            return self.error(text);
        }
        if let Some(scope) = &mut self.scope {
            scope.resource.values.retain(|(n, _)| n != name);
        }
        if !(wants_list && value == Given::List(Vec::new())) {
            self.add_value(name, value);
        }
    }

    fn set_global(&mut self, name: &'static str, text: String) {
        match name {
            "zonename" => self.rename(&text),
            // These two are said, and the file goes on.
            "zonepath" | "brand" if self.is_installed() => {
                let text = format!("Zone {} already installed; set {name} not allowed.", self.name);
                self.zerr(&text);
            }
            "zonepath" if !text.starts_with('/') => self.error(&format!("{text} is not an absolute path.")),
            "zonepath" if text.trim_matches('/').is_empty() => self.error("/ is not allowed as a zonepath."),
            "zonepath" => self.edit(|config| config.zonepath = canonical(&text)),
            "brand" => self.edit(|config| config.brand = text),
            "autoboot" => match text.as_str() {
                "true" | "false" => self.edit(|config| config.autoboot = text == "true"),
                _ => self.error("autoboot value must be 'true' or 'false'."),
            },
            "ip-type" => {
                if text != "shared" && text != "exclusive" {
                    return self.error("ip-type value must be 'shared' or 'exclusive'.");
                }
                let config = self.config.clone().filter(|_| text == "exclusive");
                if config.is_some_and(|config| !self.knows_brand(&config)) {
                    self.failed = true;
                    return;
                }
                self.edit(|config| config.ip_type = text);
            }
            "pool" if text.starts_with("SUNW") => self.error("pool names starting with SUNW are reserved."),
            "pool"
                if self
                    .config
                    .as_ref()
                    .is_some_and(|config| config.of("dedicated-cpu").next().is_some()) =>
            {
                self.error(
                    "The dedicated-cpu resource already exists.  A persistent pool is incompatible\n\
                     with the dedicated-cpu resource.",
                )
            }
            "hostid" => match check_host_id(&text) {
                Ok(()) => self.set_text(name, text),
                Err(BadHostId::TooLong) => self.error(&format!("hostid string is too large: {text}")),
                Err(BadHostId::Invalid) => self.perror(name, messages::INVALID_PROPERTY),
            },
            "fs-allowed" if text.len() > 1024 => self.zone_perror(messages::TOO_BIG),
            "fs-allowed" if !is_fs_allowed(&text) => self.zone_perror(messages::INVALID_PROPERTY),
            _ => match Alias::named(name) {
                Some(alias) => self.set_alias(alias, name, &text),
                None => self.set_text(name, text),
            },
        }
    }

    fn set_text(&mut self, name: &str, text: String) {
        self.edit(|config| _ = config.plain.insert(name.to_owned(), text));
    }

    fn set_alias(&mut self, alias: &Alias, name: &str, text: &str) {
        if self.is_global_zone() && name != "cpu-shares" {
            self.zerr(
                "WARNING: Setting a global zone resource control too low could deny\nservice to even the root user; \
                 this could render the system impossible\nto administer.  Please use caution.",
            );
        }
        let limit = if name == "max-shm-memory" {
            match bytes(text) {
                None => return self.error(MEMORY_EXPECTED),
                limit => limit,
            }
        } else {
            unsigned(text)
        };
        if let Err(why) = self.alias(alias.name) {
            return self.perror(name, why);
        }
        match limit.filter(|limit| *limit >= alias.least) {
            Some(limit) => self.edit(|config| config.set_aliased(alias, limit)),
            None => self.error(&format!("{name} property is out of range.")),
        }
    }

    fn put_text(&mut self, name: &str, text: &str) {
        if let Some(scope) = &mut self.scope
            && scope.resource.set(name, Value::Simple(text.to_owned()), false).is_err()
        {
            self.no_property(Verb::Set, name);
        }
    }

    fn set_in(&mut self, kind: &'static str, name: &'static str, text: String) {
        match (kind, name) {
            ("capped-cpu", "ncpus") => self.set_cap(&text),
            ("capped-memory", "physical" | "swap" | "locked") => self.set_memory(name, &text),
            ("dedicated-cpu", "ncpus") => {
                let (least, most) = text.split_once('-').unwrap_or((&text, &text));
                match (unsigned(least), unsigned(most)) {
                    (Some(low), Some(high)) if (1..=high).contains(&low) => {
                        self.put_text("ncpu_min", least);
                        self.put_text("ncpu_max", most);
                    }
                    _ => self.error("ncpus property is out of range."),
                }
            }
            ("dedicated-cpu", "importance") if unsigned(&text).is_none() => {
                self.error("importance property is out of range.");
            }
            ("fs", "type") if !is_fs_type(&text) => self.error(&format!("\"{text}\" is not a valid type.")),
            ("net", "address" | "allowed-address" | "defrouter") => {
                let router = name == "defrouter";
                if router && text.contains('/') {
                    self.zerr(&format!(
                        "Warning: prefix length in {text} is not required and will be ignored. \
                         The default host-prefix length will be used"
                    ));
                }
                match check_address(&text, router) {
                    Ok(()) => self.put_text(name, &text),
                    Err((why, forms)) => {
                        self.error(&why);
                        if forms {
                            self.out.stderr += ADDRESS_FORMS;
                        }
                    }
                }
            }
            ("net", "physical") => {
                let exclusive = self.config.as_ref().is_some_and(super::Config::is_exclusive);
                match check_physical(&text, exclusive) {
                    Ok(()) => self.put_text(name, &text),
                    Err(why) => self.error(&why),
                }
            }
            ("device", "property") => self.error("A complex value was expected here."),
            ("rctl", "name") if !is_control(&text) => {
                // It is said, and the file goes on.
                self.zerr(&format!("'{text}' is not a valid zone rctl name."));
            }
            _ => self.put_text(name, &text),
        }
    }

    /// `ncpus` of `capped-cpu`: the control counts in hundredths.
    fn set_cap(&mut self, text: &str) {
        let (ncpus, rest) = leading_number(text);
        if ncpus <= 0.0 || !rest.is_empty() || ncpus * 100.0 < 1.0 {
            return self.error("ncpus property is out of range.");
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "zonecfg computes it so"
        )]
        let limit = (ncpus * 100.0 + 0.5) as i64 as u32;
        self.set_control("ncpus", u64::from(limit));
    }

    fn set_control(&mut self, name: &str, limit: u64) {
        if let Some(alias) = Alias::named(name) {
            self.edit(|config| config.set_aliased(alias, limit));
        }
    }

    fn set_memory(&mut self, name: &str, text: &str) {
        if let Err(why) = self.alias(name) {
            return self.perror(if name == "swap" { "max-swap" } else { "locked" }, why);
        }
        let least = match name {
            "swap" if self.is_global_zone() => 100 << 20,
            "swap" => 50 << 20,
            _ => 0,
        };
        match bytes(text) {
            None if name == "swap" => {
                self.error("A positive number with a required scale suffix (K, M, G or T) was expected here.");
            }
            None => self.error(MEMORY_EXPECTED),
            Some(limit) if limit < least => self.error(&format!(
                "swap value is too small.  It must be at least {}.",
                scaled(least)
            )),
            Some(limit) => self.set_control(name, limit),
        }
    }

    /// `clear PROPERTY`.
    pub(super) fn clear(&mut self, name: &'static str) {
        if self.global_zone_forbids(name) || !self.initialize(true) {
            return;
        }
        let Some(scope) = &mut self.scope else {
            return self.clear_global(name);
        };
        let property = kind(scope.kind).and_then(|kind| kind.property(name));
        if property.is_some_and(|property| property.clears) {
            scope.resource.values.retain(|(n, _)| n != name);
            self.changed = true;
        } else if scope.kind == "capped-memory" && matches!(name, "physical" | "swap" | "locked") {
            self.clear_alias(name);
        } else {
            self.perror(name, messages::CLEAR_DISALLOW);
        }
    }

    fn clear_global(&mut self, name: &'static str) {
        match name {
            "zonename" | "zonepath" | "brand" => self.perror(name, messages::CLEAR_DISALLOW),
            "autoboot" => self.edit(|config| config.autoboot = false),
            "ip-type" => self.edit(|config| config.ip_type = "shared".into()),
            _ if !is_global(name) => self.no_property(Verb::Clear, name),
            _ if Alias::named(name).is_some() => self.clear_alias(name),
            _ => self.edit(|config| _ = config.plain.remove(name)),
        }
    }

    fn clear_alias(&mut self, name: &str) {
        let why = match self.alias(name) {
            Err(why) => why,
            Ok(None) => messages::NO_ENTRY,
            Ok(Some(_)) => {
                if let Some(alias) = Alias::named(name) {
                    self.edit(|config| config.remove_control(alias));
                }
                return;
            }
        };
        self.perror(&format!("clear {name}"), why);
    }
}

/// Whether a resource control of a zone can be called so; whether there is one is not asked.
fn is_control(name: &str) -> bool {
    let own = name.strip_prefix("zone.").unwrap_or_default();
    !own.is_empty() && own.chars().all(|c| c.is_ascii_alphabetic() || c == '-')
}
