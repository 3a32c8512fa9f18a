//! What `zonecfg export` prints, read back: whether a zone is configured as it was meant, and whose it is.

use std::collections::BTreeMap;

use super::config::ZoneConfig;

/// A zone's configuration as its host has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// `zonepath`, `brand` and the like.
    pub globals: BTreeMap<String, String>,
    /// Each `add` with its settings.
    pub resources: Vec<Resource>,
}

/// One resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// `net`, `device`, `attr`.
    pub kind: String,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
}

impl Exported {
    /// Reads the lines that this program has a use for; others (`add value`, `create -b`) are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut exported = Self::default();
        let mut open: Option<Resource> = None;
        for line in text.lines().map(str::trim) {
            if let Some((name, value)) = line.strip_prefix("set ").and_then(|rest| rest.split_once('=')) {
                let value = value.trim();
                let value = value
                    .strip_prefix('"')
                    .and_then(|v| v.strip_suffix('"'))
                    .unwrap_or(value);
                let place = match &mut open {
                    Some(resource) => &mut resource.settings,
                    None => &mut exported.globals,
                };
                place.insert(name.trim().to_owned(), value.to_owned());
            } else if line == "end" {
                exported.resources.extend(open.take());
            } else if let Some(kind) = line.strip_prefix("add ").filter(|kind| !kind.contains(' ')) {
                open = Some(Resource {
                    kind: kind.to_owned(),
                    settings: BTreeMap::new(),
                });
            }
        }
        exported
    }

    fn settings<'a>(&'a self, kind: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.resources
            .iter()
            .filter(move |resource| resource.kind == kind)
            .filter_map(move |resource| resource.settings.get(key).map(String::as_str))
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&str> {
        let found = self
            .resources
            .iter()
            .find(|resource| resource.kind == "attr" && resource.settings.get("name").is_some_and(|n| n == name));
        found?.settings.get("value").map(String::as_str)
    }

    /// What differs from what was meant, in words; none when nothing does. Resource controls are not
    /// compared: each distribution prints them in its own way.
    #[must_use]
    pub fn difference(&self, meant: &ZoneConfig) -> Option<String> {
        let global = |key: &str| self.globals.get(key).map_or("", String::as_str);
        for (key, wanted) in [
            ("brand", "bhyve".to_owned()),
            ("zonepath", meant.zonepath.to_string()),
            ("autoboot", "false".to_owned()),
            ("ip-type", "exclusive".to_owned()),
        ] {
            if global(key) != wanted {
                return Some(format!("{key} is `{}` and should be `{wanted}`", global(key)));
            }
        }
        let sorted = |values: Vec<String>| {
            let mut values = values;
            values.sort();
            values
        };
        let pairs = |name: &str, value: &str| format!("{name}={value}");
        let has_attrs = self
            .resources
            .iter()
            .filter(|resource| resource.kind == "attr")
            .map(|resource| {
                let get = |key: &str| resource.settings.get(key).map_or("", String::as_str);
                pairs(get("name"), get("value"))
            });
        let wants_attrs = meant
            .attrs
            .iter()
            .map(|(name, value)| pairs(&name.to_string(), &value.to_string()));
        for (what, has, wants) in [
            (
                "net",
                self.settings("net", "physical").map(str::to_owned).collect(),
                vec![meant.vnic.to_string()],
            ),
            (
                "device",
                self.settings("device", "match").map(str::to_owned).collect(),
                meant.devices.iter().map(ToString::to_string).collect(),
            ),
            ("attr", has_attrs.collect(), wants_attrs.collect()),
        ] {
            let (has, wants) = (sorted(has), sorted(wants));
            if has != wants {
                return Some(format!("{what} is {has:?} and should be {wants:?}"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meant() -> ZoneConfig {
        ZoneConfig {
            name: "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap(),
            zonepath: "/zones/hci/z".parse().unwrap(),
            vnic: "hciv7".parse().unwrap(),
            devices: vec!["/dev/zvol/rdsk/p/v".parse().unwrap()],
            cpu_shares: 100,
            max_lwps: 100,
            attrs: vec![
                ("ram".parse().unwrap(), "1G".parse().unwrap()),
                ("hci-node".parse().unwrap(), "n1".parse().unwrap()),
            ],
        }
    }

    const EXPORT: &str = "create -b\nset zonepath=/zones/hci/z\nset brand=bhyve\nset autoboot=false\nset ip-type=exclusive\n\
        add net\nset physical=\"hciv7\"\nend\nadd device\nset match=\"/dev/zvol/rdsk/p/v\"\nend\nadd rctl\nset name=\"zone.max-lwps\"\n\
        add value (priv=privileged,limit=100,action=deny)\nend\nadd attr\nset name=\"hci-node\"\nset type=\"string\"\n\
        set value=\"n1\"\nend\nadd attr\nset name=\"ram\"\nset type=\"string\"\nset value=\"1G\"\nend\n";

    #[test]
    fn what_was_meant_is_recognised_and_what_differs_is_said() {
        let exported = Exported::parse(EXPORT);
        assert_eq!(exported.difference(&meant()), None);
        assert_eq!(exported.attr("hci-node"), Some("n1"));
        for (change, to, what) in [
            ("hciv7", "hciv8", "net"),
            ("autoboot=false", "autoboot=true", "autoboot"),
            ("\"1G\"", "\"2G\"", "attr"),
            ("rdsk/p/v", "rdsk/p/w", "device"),
            ("brand=bhyve", "brand=lipkg", "brand"),
        ] {
            let difference = Exported::parse(&EXPORT.replace(change, to))
                .difference(&meant())
                .unwrap();
            assert!(difference.starts_with(what), "{difference}");
        }
        let more = format!("{EXPORT}add device\nset match=\"/dev/mem\"\nend\n");
        assert!(
            Exported::parse(&more)
                .difference(&meant())
                .unwrap()
                .contains("/dev/mem")
        );
    }

    #[test]
    fn the_file_that_we_write_is_read_the_same_way() {
        assert_eq!(Exported::parse(&meant().to_file()).difference(&meant()), None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "(\\PC|\n|=|\"| ){0,300}") {
            let _ = Exported::parse(&text).difference(&meant());
        }
    }
}
