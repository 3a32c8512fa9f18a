//! The configuration of one zone as a zonecfg(8) command file. Every value is a parsed type whose text
//! can stand between double quotes, which know no escapes: so nothing from outside becomes syntax.

use crate::model::illumos::names::{AttrName, AttrValue, LinkName, PlainPath};
use crate::model::names::MachineName;

/// One bhyve-branded zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneConfig {
    /// Zone, and virtual machine.
    pub name: MachineName,
    /// Its own dataset's mountpoint.
    pub zonepath: PlainPath,
    /// The guest's VNIC.
    pub vnic: LinkName,
    /// Device nodes that the zone sees: the raw node of its disk.
    pub devices: Vec<PlainPath>,
    /// `zone.cpu-shares`.
    pub cpu_shares: u32,
    /// `zone.max-lwps`: bhyve needs one for each virtual processor, and some more.
    pub max_lwps: u32,
    /// Attributes of the brand, and our owner attributes, in this order.
    pub attrs: Vec<(AttrName, AttrValue)>,
}

impl ZoneConfig {
    /// The value of an attribute.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<String> {
        let found = self.attrs.iter().find(|(known, _)| known.to_string() == name);
        found.map(|(_, value)| value.to_string())
    }

    /// The command file for `zonecfg -z NAME -f FILE`. `-b` makes an empty configuration whatever the
    /// distribution's template says, so brand and ip-type are always named.
    #[must_use]
    pub fn to_file(&self) -> String {
        let mut lines = vec![
            "create -b".to_owned(),
            "set brand=bhyve".to_owned(),
            format!("set zonepath=\"{}\"", self.zonepath),
            "set autoboot=false".to_owned(),
            "set ip-type=exclusive".to_owned(),
            format!("set cpu-shares={}", self.cpu_shares),
            format!("set max-lwps={}", self.max_lwps),
        ];
        let mut resource = |kind: &str, settings: &[String]| {
            lines.push(format!("add {kind}"));
            lines.extend(settings.iter().map(|setting| format!("set {setting}")));
            lines.push("end".to_owned());
        };
        resource("net", &[format!("physical=\"{}\"", self.vnic)]);
        for device in &self.devices {
            resource("device", &[format!("match=\"{device}\"")]);
        }
        for (name, value) in &self.attrs {
            resource(
                "attr",
                &[
                    format!("name={name}"),
                    "type=string".to_owned(),
                    format!("value=\"{value}\""),
                ],
            );
        }
        lines.extend(["verify".to_owned(), "commit".to_owned()]);
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(attrs: &[(&str, &str)]) -> ZoneConfig {
        ZoneConfig {
            name: "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap(),
            zonepath: "/zones/hci/hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap(),
            vnic: "hciv7".parse().unwrap(),
            devices: vec![
                "/dev/zvol/rdsk/rpool/hci/machines/hci-01k9zk6x0f5t3b8w2q7m4d1c0e"
                    .parse()
                    .unwrap(),
            ],
            cpu_shares: 100,
            max_lwps: 100,
            attrs: attrs
                .iter()
                .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
                .collect(),
        }
    }

    #[test]
    fn the_file_is_what_zonecfg_reads() {
        let config = config(&[
            ("bootrom", "BHYVE_RELEASE"),
            ("disk0", "/seed.img,ro"),
            ("extra", "a b; c=[d]"),
        ]);
        insta::assert_snapshot!(config.to_file(), @r#"
        create -b
        set brand=bhyve
        set zonepath="/zones/hci/hci-01k9zk6x0f5t3b8w2q7m4d1c0e"
        set autoboot=false
        set ip-type=exclusive
        set cpu-shares=100
        set max-lwps=100
        add net
        set physical="hciv7"
        end
        add device
        set match="/dev/zvol/rdsk/rpool/hci/machines/hci-01k9zk6x0f5t3b8w2q7m4d1c0e"
        end
        add attr
        set name=bootrom
        set type=string
        set value="BHYVE_RELEASE"
        end
        add attr
        set name=disk0
        set type=string
        set value="/seed.img,ro"
        end
        add attr
        set name=extra
        set type=string
        set value="a b; c=[d]"
        end
        verify
        commit
        "#);
    }

    /// The crate writes the same for values that hold no blank, where its way works.
    #[test]
    fn the_zone_crate_agrees_where_it_can() {
        let ours = config(&[("bootrom", "BHYVE_RELEASE"), ("ram", "4G"), ("disk0", "/seed.img,ro")]);
        let mut theirs = zone::Config::create(&ours.name, false, zone::CreationOptions::Blank);
        theirs
            .get_global()
            .set_brand("bhyve")
            .set_path(ours.zonepath.to_string())
            .set_autoboot(false)
            .set_ip_type(zone::IpType::Exclusive)
            .set_cpu_shares(Some(ours.cpu_shares))
            .set_max_lwps(Some(ours.max_lwps));
        theirs.add_net(&zone::Net {
            physical: ours.vnic.to_string(),
            ..Default::default()
        });
        theirs.add_device(&zone::Device {
            name: ours.devices[0].to_string(),
        });
        for (name, value) in &ours.attrs {
            theirs.add_attr(&zone::Attr {
                name: name.to_string(),
                value: zone::AttributeValue::String(value.to_string()),
            });
        }
        let command = theirs.as_command();
        let words: Vec<String> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let normal = |text: &str| {
            let words = text.replace('"', "");
            words.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let mut theirs: Vec<String> = words[3..]
            .join(" ")
            .split(';')
            .map(normal)
            .filter(|l| !l.is_empty())
            .collect();
        let mut wanted: Vec<String> = ours.to_file().lines().map(normal).collect();
        wanted.retain(|line| line != "verify" && line != "commit");
        theirs.sort();
        wanted.sort();
        assert_eq!(theirs, wanted);
    }

    proptest! {
        /// Read back by zonecfg's own rules for tokens, every line is what was meant: no value ends its
        /// quotes, begins a line or a command.
        #[test]
        fn no_value_becomes_syntax(value in "\\PC{0,300}|[ -~]{0,300}|.{0,60}") {
            if let Ok(attr) = value.parse::<AttrValue>() {
                let mut zone = config(&[]);
                zone.attrs.push(("x".parse().unwrap(), attr));
                let file = zone.to_file();
                let line = format!("set value=\"{value}\"");
                prop_assert_eq!(file.lines().filter(|l| *l == line).count(), 1);
                prop_assert_eq!(file.lines().count(), config(&[("x", "y")]).to_file().lines().count());
                prop_assert_eq!(line.matches('"').count(), 2);
            }
            if let Ok(path) = value.parse::<PlainPath>() {
                prop_assert!(!path.to_string().contains([' ', ';', '"', '=', '[', '(', '\n']));
            }
            if let Ok(link) = value.parse::<LinkName>() {
                prop_assert!(link.to_string().bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b)));
            }
        }
    }
}
