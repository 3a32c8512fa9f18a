//! What illumos's tools take as names, as parsed types: nothing else can be put into a command.

use std::{ffi::OsStr, fmt, str::FromStr};

/// Text that illumos's tools would not take for what it should be.
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

        impl AsRef<OsStr> for $name {
            fn as_ref(&self) -> &OsStr {
                self.0.as_ref()
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
    /// A ZFS filesystem or volume: `rpool/hci/machines/hci-…`. Short enough for its device's path to be a
    /// zonecfg match and an attribute's value.
    DatasetName, "a dataset's name", "up to 200 letters, digits and `/_.:-`, the first a letter, without empty parts, `.` and `..`, at most 50 parts", |t| {
        (1..=200).contains(&t.len())
            && t.as_bytes()[0].is_ascii_alphabetic()
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.:-".contains(&b))
            && t.split('/').count() <= 50
            && t.split('/').all(|part| !matches!(part, "" | "." | ".."))
    };
    /// A snapshot of a dataset: `rpool/hci/images/debian/v3@gold`.
    SnapshotName, "a snapshot's name", "a dataset's name, `@`, and letters, digits and `_.:-`; 255 bytes in all", |t| {
        t.len() <= 255
            && t.split_once('@').is_some_and(|(dataset, snapshot)| {
                dataset.parse::<DatasetName>().is_ok()
                    && !snapshot.is_empty()
                    && snapshot.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
            })
    };
    /// A link's greatest rate as dladm(8) takes it: `500M`. It refuses less than 1.2 Mbit/s, with a warning only, and
    /// leaves the link unlimited (MRP_MAXBW_MINVAL, asked for in libdladm's linkprop.c).
    Bandwidth, "a bandwidth", "a number without leading zero, up to 99999, and K, M or G (bits a second), at least 1200K", |t| {
        rate(t).is_some_and(|bits| bits >= MIN_RATE)
    };
}

/// The least that dladm(8) takes, in bits a second.
const MIN_RATE: u64 = 1_200_000;

/// The rate that a text means, in bits a second.
fn rate(text: &str) -> Option<u64> {
    let number = text.strip_suffix(['K', 'M', 'G'])?;
    let plain =
        (1..=5).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    let unit = match text.as_bytes()[text.len() - 1] {
        b'K' => 1_000,
        b'M' => 1_000_000,
        _ => 1_000_000_000,
    };
    Some(number.parse::<u64>().ok().filter(|_| plain)? * unit)
}

impl Bandwidth {
    /// In thousands of bits a second, which is as exactly as dladm(8) prints it.
    #[must_use]
    pub fn kilobits(&self) -> u64 {
        rate(&self.0).unwrap_or_default() / 1000
    }
}

impl DatasetName {
    /// A dataset below this one.
    ///
    /// # Errors
    /// When the part is no name, or the whole is too long.
    pub fn child(&self, part: &str) -> Result<Self, Unfit> {
        if part.contains('/') {
            return Err(unfit(part, "a part of a dataset's name", "without `/`"));
        }
        format!("{self}/{part}").parse()
    }

    /// Its snapshot of this name.
    ///
    /// # Errors
    /// When that is no name of a snapshot.
    pub fn snapshot(&self, name: &str) -> Result<SnapshotName, Unfit> {
        format!("{self}@{name}").parse()
    }

    /// The raw device of a volume, which exists as soon as somebody looks (zfs(8), illumos).
    ///
    /// # Errors
    /// When the name holds a `:`, which no path of ours may.
    pub fn device(&self) -> Result<PlainPath, Unfit> {
        format!("/dev/zvol/rdsk/{self}").parse()
    }
}

/// The size of a volume in bytes: whole blocks of 16 KiB, so that it is a multiple of every block size that
/// our images have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeSize(u64);

impl VolumeSize {
    /// The block size that golden images are made with.
    pub const BLOCK: u64 = 16 << 10;

    /// The next size that is not smaller.
    #[must_use]
    pub fn at_least(bytes: u64) -> Self {
        Self(bytes.max(1).div_ceil(Self::BLOCK).saturating_mul(Self::BLOCK))
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for VolumeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn datasets_are_short_plain_and_deep_enough() {
        for good in ["rpool", "rpool/hci", "tank/a_b/v3.1-x"] {
            good.parse::<DatasetName>().unwrap();
        }
        for bad in [
            "",
            "/rpool",
            "rpool/",
            "a//b",
            "a/../b",
            "a b",
            "7pool",
            "a@b",
            "a/é",
            "a\n",
            &"a/".repeat(60),
        ] {
            bad.parse::<DatasetName>().unwrap_err();
        }
        let images: DatasetName = "rpool/hci/images".parse().unwrap();
        assert_eq!(
            images.child("debian-12").unwrap().to_string(),
            "rpool/hci/images/debian-12"
        );
        images.child("../x").unwrap_err();
        images.child("").unwrap_err();
        let gold = images.snapshot("gold").unwrap();
        assert_eq!(gold.to_string(), "rpool/hci/images@gold");
        for bad in ["a", "a@", "@a", "a@b@c", "a@b/c", "a@b c"] {
            bad.parse::<SnapshotName>().unwrap_err();
        }
        "a:b".parse::<DatasetName>().unwrap().device().unwrap_err();
    }

    #[test]
    fn volumes_are_whole_blocks() {
        assert_eq!(VolumeSize::at_least(0).bytes(), 16 << 10);
        assert_eq!(VolumeSize::at_least(10 << 30).bytes(), 10 << 30);
        assert_eq!(VolumeSize::at_least((10 << 30) + 1).bytes(), (10 << 30) + (16 << 10));
    }

    #[test]
    fn a_rate_is_one_that_dladm_takes() {
        for bad in [
            "", "M", "0M", "1", "1m", "1T", "123456M", "1 M", "01G", "+1G", "1M", "1199K",
        ] {
            bad.parse::<Bandwidth>().unwrap_err();
        }
        for (good, kilobits) in [("1200K", 1200), ("2M", 2000), ("500M", 500_000), ("10G", 10_000_000)] {
            assert_eq!(good.parse::<Bandwidth>().unwrap().kilobits(), kilobits);
        }
    }
}
