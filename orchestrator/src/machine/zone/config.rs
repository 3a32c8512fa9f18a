//! The configuration of one zone as a zonecfg(8) command file. Every value is a parsed type whose text
//! can stand between double quotes, which know no escapes: so nothing from outside becomes syntax.

use std::{fmt, str::FromStr};

use crate::model::names::MachineName;

/// Text that zonecfg would not take as one value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be {what}: {rule}")]
pub struct Unfit {
    text: String,
    what: &'static str,
    rule: &'static str,
}

fn unfit(text: &str, what: &'static str, rule: &'static str) -> Unfit {
    Unfit {
        text: text.chars().take(80).collect::<String>().escape_debug().to_string(),
        what,
        rule,
    }
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = Unfit;
            fn from_str(text: &str) -> Result<Self, Unfit> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(unfit(text, $what, $rule)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

texts! {
    /// The name of an `attr` resource.
    AttrName, "an attribute's name", "1 to 63 letters, digits, `-` and `.`, the first a letter or digit", |t| {
        t.len() <= 63
            && t.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    };
    /// The value of an `attr` resource of type string.
    AttrValue, "an attribute's value", "1 to 255 printable ASCII characters, no double quote", |t| {
        (1..256).contains(&t.len()) && t.bytes().all(|b| (b == b' ' || b.is_ascii_graphic()) && b != b'"')
    };
    /// A datalink: `hciv7`.
    LinkName, "a link's name", "2 to 31 letters, digits, `_` and `.`, not beginning with a digit, ending in a number without leading zero", |t| {
        let number = t.len() - t.bytes().rev().take_while(u8::is_ascii_digit).count();
        (2..32).contains(&t.len())
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
            && !t.as_bytes()[0].is_ascii_digit()
            && number < t.len()
            && (t.as_bytes()[number] != b'0' || t.len() - number == 1)
    };
    /// An absolute path of plain characters, without `.` and `..`.
    PlainPath, "a path", "absolute, of letters, digits and `/._-@`, without empty parts, `.` and `..`, at most 255 bytes", |t| {
        (2..256).contains(&t.len())
            && t.starts_with('/')
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-@".contains(&b))
            && t[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
    };
}

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
    /// Attributes of the brand, and our marks, in this order.
    pub attrs: Vec<(AttrName, AttrValue)>,
}

impl ZoneConfig {
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
            max_lwps: 68,
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
            ("disk1", "/seed.img,ro"),
            ("extra", "a b; c=[d]"),
        ]);
        insta::assert_snapshot!(config.to_file(), @r#"
        create -b
        set brand=bhyve
        set zonepath="/zones/hci/hci-01k9zk6x0f5t3b8w2q7m4d1c0e"
        set autoboot=false
        set ip-type=exclusive
        set cpu-shares=100
        set max-lwps=68
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
        set name=disk1
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

    #[test]
    fn names_and_paths_keep_to_the_rules() {
        for good in ["x0", "hciv7", "a_b.c12", "hcis10"] {
            good.parse::<LinkName>().unwrap();
        }
        for bad in [
            "",
            "7",
            "0x1",
            "x",
            "x01",
            "hci-v7",
            "x1 ",
            &format!("{}1", "a".repeat(31)),
            "é1",
        ] {
            bad.parse::<LinkName>().unwrap_err();
        }
        for bad in [
            "",
            "/",
            "zones",
            "/a//b",
            "/a/../b",
            "/a/./b",
            "/a b",
            "/a\n",
            "/a\"",
            &format!("/{}", "a".repeat(300)),
        ] {
            bad.parse::<PlainPath>().unwrap_err();
        }
        for bad in ["", "-x", "a_b", "a b", "a=b", "é", &"a".repeat(64)] {
            bad.parse::<AttrName>().unwrap_err();
        }
        for bad in ["", "a\"b", "a\nb", "a\tb", "é", "\u{0}", &"a".repeat(256)] {
            bad.parse::<AttrValue>().unwrap_err();
        }
    }

    /// The crate writes the same for values that hold no blank, where its way works.
    #[test]
    fn the_zone_crate_agrees_where_it_can() {
        let ours = config(&[("bootrom", "BHYVE_RELEASE"), ("ram", "4G"), ("disk1", "/seed.img,ro")]);
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
