//! `verify` and `commit`: what a configuration must be to be written.

use super::{
    Config, Resource, brand_exists,
    config::PATH_MAX,
    messages, privileges,
    session::{Session, broken},
    value::{check_physical, is_dataset_name},
};

/// Accounts that every host has: the only ones a simulated host knows.
const USERS: &[&str] = &[
    "root", "daemon", "bin", "sys", "adm", "lp", "uucp", "nuucp", "dladm", "netadm", "netcfg", "smmsp", "listen",
    "webservd", "sshd", "nobody", "noaccess", "nobody4",
];

/// Authorizations over one zone.
const AUTHORIZATIONS: &[&str] = &["manage", "login", "clonefrom", "config"];

/// What is wrong with an administrator of a zone.
pub(super) fn admin_problems(admin: &Resource, zone: &str) -> Vec<String> {
    let mut problems = Vec::new();
    match admin.get("user") {
        "" => problems.push("user not specified".into()),
        user if !USERS.contains(&user) => problems.push(format!("user {user} is not a valid username")),
        _ => {}
    }
    if admin.get("auths").is_empty() {
        problems.push("auths not specified".into());
    }
    let unknown = admin
        .get("auths")
        .split(',')
        .filter(|auth| !auth.is_empty() && !AUTHORIZATIONS.contains(auth));
    problems.extend(unknown.map(|auth| format!("zone '{zone}': '{auth}' is not a valid authorization")));
    problems
}

impl Session<'_> {
    /// Verifies, and saves what verified.
    pub(super) fn verify(&mut self, save: bool) {
        if !self.initialize(true) {
            return;
        }
        let Some(config) = self.config.clone() else { return };
        let mut verdict = None;
        if !self.is_global_zone() {
            let missing = if config.zonepath.len() >= PATH_MAX {
                Some("zonepath not specified")
            } else if config.zonepath.is_empty() {
                Some("zonepath cannot be empty.")
            } else {
                None
            };
            if let Some(text) = missing {
                self.error(text);
                verdict = Some(messages::REQD_RESOURCE_MISSING);
            }
        }
        if !self.knows_brand(&config) {
            return self.zone_perror(messages::INVALID_DOCUMENT);
        }
        // A wrong privilege is printed and no error; the commit fails all the same, for nothing is written.
        if let Err(privilege) = privileges::check(config.text("limitpriv"), config.is_exclusive()) {
            let text = format!("{}: invalid privilege: {privilege}", self.name);
            return self.zerr(&text);
        }
        for (text, why) in self.problems(&config) {
            self.error(&text);
            verdict = verdict.or(why);
        }
        if self.scope.is_some() {
            self.error("resource specification incomplete");
            verdict = verdict.or(Some(messages::INSUFFICIENT_SPEC));
        }
        if save && verdict.is_none() {
            if let Err(error) = self.save(&config) {
                self.error(&broken(&error));
            }
        } else if save {
            let text = format!("Zone {} failed to verify", self.name);
            self.zerr(&text);
        }
        if let Some(why) = verdict {
            self.zone_perror(why);
        }
    }

    /// Whether the brand of a configuration is on this host. One that is empty is the default one.
    pub(super) fn knows_brand(&mut self, config: &Config) -> bool {
        let default = Config::template("", "SUNWdefault").map(|config| config.brand);
        let brand = match config.brand.as_str() {
            "" => default.as_deref().unwrap_or_default(),
            brand => brand,
        };
        if brand_exists(self.host, brand) {
            return true;
        }
        let text = format!("{}: unknown brand.\n", self.name);
        self.zerr(&text);
        false
    }

    /// What is wrong with resources, each with what the verdict becomes if it is the first.
    fn problems(&self, config: &Config) -> Vec<(String, Option<&'static str>)> {
        let mut problems = Vec::new();
        let mut net = |text: String, why| problems.push((text, Some(why)));
        for resource in config.of("net") {
            if let Err(text) = check_physical(resource.get("physical"), config.is_exclusive()) {
                net(text, messages::INVAL);
            }
            let has = |name: &str| !resource.get(name).is_empty();
            if config.is_exclusive() && has("address") {
                net(
                    "net: address cannot be specified for an exclusive IP type".into(),
                    messages::INVAL,
                );
            }
            if !config.is_exclusive() && !has("address") {
                net("net: address not specified".into(), messages::REQD_PROPERTY_MISSING);
            }
            if !config.is_exclusive() && has("allowed-address") {
                net(
                    "net: allowed-address cannot be specified for a shared IP type".into(),
                    messages::INVAL,
                );
            }
        }
        problems.extend(routers_alone(config));
        let controls = |name: &str| config.of("rctl").any(|rctl| rctl.get("name") == name);
        let dedicated = config.of("dedicated-cpu").next().is_some();
        let incompatible = |text: String| (text, Some(messages::INCOMPATIBLE));
        if dedicated && controls("zone.cpu-shares") {
            problems.push(incompatible(
                "rctl zone.cpu-shares and dedicated-cpu are incompatible.".into(),
            ));
        }
        let class = config.text("scheduling-class");
        if controls("zone.cpu-shares") && !matches!(class, "" | "FSS") {
            problems.push(incompatible(format!(
                "WARNING: rctl zone.cpu-shares and scheduling-class={class} are incompatible"
            )));
        }
        if dedicated && controls("zone.cpu-cap") {
            problems.push(incompatible(
                "rctl zone.cpu-cap and the dedicated-cpu are incompatible.".into(),
            ));
        }
        for dataset in config.of("dataset") {
            if !is_dataset_name(dataset.get("name")) {
                problems.push(("dataset: name invalid".into(), Some(messages::BAD_PROPERTY)));
            }
        }
        for admin in config.of("admin") {
            let wrong = admin_problems(admin, &self.name);
            problems.extend(wrong.into_iter().map(|text| (text, Some(messages::BAD_PROPERTY))));
        }
        for flags in config.of("security-flags") {
            let (said, valid) = privileges::check_flags(flags.get("default"), flags.get("lower"), flags.get("upper"));
            let why = if valid { None } else { Some(messages::BAD_PROPERTY) };
            problems.extend(said.into_iter().map(|text| (text, why)));
        }
        problems
    }
}

/// A router needs an allowed address of the same link, in whichever resource; the last link is looked at first.
fn routers_alone(config: &Config) -> Vec<(String, Option<&'static str>)> {
    if !config.is_exclusive() {
        return Vec::new();
    }
    let nets: Vec<&Resource> = config.of("net").filter(|net| net.get("address").is_empty()).collect();
    let mut links: Vec<&str> = Vec::new();
    for net in &nets {
        if !links.contains(&net.get("physical")) {
            links.insert(0, net.get("physical"));
        }
    }
    let any = |link: &str, name: &str| {
        nets.iter()
            .any(|net| net.get("physical") == link && !net.get(name).is_empty())
    };
    let alone = links
        .into_iter()
        .filter(|link| any(link, "defrouter") && !any(link, "allowed-address"));
    alone
        .map(|link| {
            let text = format!(
                "net: defrouter for {link} cannot be specified without allowed-address for an exclusive IP type"
            );
            (text, Some(messages::INVAL))
        })
        .collect()
}
