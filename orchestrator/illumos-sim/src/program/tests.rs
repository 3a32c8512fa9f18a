//! What holds for all programs: whatever they are given, they answer, and the host stays whole.

use super::testing::Bed;
use crate::{
    Ended,
    zonecfg::session::{self, Source},
};

/// A small generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % most
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const WORDS: &[&str] = &[
    "",
    "-",
    "--",
    "-H",
    "-p",
    "-r",
    "-t",
    "-o",
    "-F",
    "-z",
    "-l",
    "-m",
    "-V",
    "-d",
    "-R",
    "-a",
    "-T",
    "-c",
    "-i",
    "static",
    "rpool",
    "rpool/a",
    "rpool/a/b",
    "rpool/a@s",
    "rpool/é",
    "/",
    "@",
    "a=b",
    "=",
    "mountpoint=/x",
    "mountpoint=none",
    "canmount=off",
    "volsize=16k",
    "1m",
    "0",
    "18446744073709551615",
    "99999999999G",
    "name,used",
    "all",
    "volume",
    "snapshot",
    "hold",
    "tag",
    "x0",
    "x1",
    "x01",
    "ixgbe0",
    "2:8:20:0:2a:1",
    "link,mtu",
    "mtu=1500",
    "protection=restricted",
    "allowed-ips=10.0.0.1/0",
    "10.1.2.3/30",
    "10.1.2.3/33",
    "x1/v4",
    "x1/",
    "/v4",
    "forwarding=on",
    "ipv4",
    "z1",
    "z2",
    "global",
    "install",
    "uninstall",
    "boot",
    "halt",
    "mark",
    "incomplete",
    "configured",
    "list",
    "--vm=z1",
    "--force-poweroff",
    "--destroy",
    "-9",
    "bhyve",
    "bhy\u{fffd}e",
    "svc:/network/ipfilter:default",
    "restarter/state",
];

const VERBS: &[(&str, &[&str])] = &[
    (
        "zfs",
        &[
            "create", "clone", "destroy", "list", "get", "set", "inherit", "snapshot", "hold", "release", "holds",
            "rename", "mount", "unmount",
        ],
    ),
    ("zpool", &["list", "status"]),
    (
        "dladm",
        &[
            "create-etherstub",
            "create-vnic",
            "delete-vnic",
            "delete-etherstub",
            "show-link",
            "show-vnic",
            "show-etherstub",
            "set-linkprop",
            "reset-linkprop",
            "show-linkprop",
        ],
    ),
    (
        "ipadm",
        &[
            "create-if",
            "delete-if",
            "create-addr",
            "delete-addr",
            "show-addr",
            "show-if",
            "set-ifprop",
            "show-ifprop",
            "set-prop",
            "show-prop",
        ],
    ),
    ("zoneadm", &["-z", "list", "install"]),
    ("zoneadmd", &["-z"]),
    ("zlogin", &["-C"]),
    ("bhyvectl", &["--vm=z1", "--vm"]),
    ("pkill", &["-9", "-z"]),
    ("ipf", &["-F", "-E", "-D"]),
    ("ipfstat", &["-io", "-i"]),
    ("svcs", &["-H"]),
    ("svcadm", &["enable", "clear"]),
    ("svcprop", &["-p"]),
    ("uname", &["-a"]),
    ("fuser", &["-c"]),
];

#[test]
fn any_words_get_an_answer() {
    let bed = Bed::new();
    bed.ok("zonecfg -z z1 create -b ; set brand=bhyve ; set zonepath=/rpool/z1");
    bed.ok("dladm create-etherstub -t x0");
    bed.ok("dladm create-vnic -t -l x0 x1");
    let mut numbers = Numbers(20_260_101);
    for _ in 0..4000 {
        let (program, verbs) = VERBS[numbers.below(VERBS.len())];
        let mut args = vec![numbers.pick(verbs)];
        for _ in 0..numbers.below(6) {
            args.push(numbers.pick(WORDS));
        }
        // A filter file of `-` would be this test's own standard input.
        if program == "ipf" && args.contains(&"-") {
            continue;
        }
        match bed.sim.run(program, &args).unwrap() {
            Ended::Exit(out) => {
                assert!((0..=2).contains(&out.code), "{program} {args:?}: {out:?}");
                assert!(
                    out.code == 0 || !out.stderr.is_empty() || program == "pkill",
                    "{program} {args:?}: {out:?}"
                );
                assert!(!out.stderr.contains("of the simulator"), "{program} {args:?}: {out:?}");
            }
            Ended::Waiting => {}
            other => panic!("{program} {args:?}: {other:?}"),
        }
    }
}

#[test]
fn any_text_is_a_zonecfg_program() {
    let pieces = [
        "create -b",
        "create -F",
        "set ",
        "add ",
        "zonepath",
        "=",
        "/rpool/z",
        "attr",
        "net",
        "rctl",
        "\n",
        ";",
        "\"",
        "[",
        "]",
        "(",
        ")",
        ",",
        "name",
        "value",
        "end",
        "cancel",
        "select ",
        "remove -F ",
        "commit",
        "verify",
        "delete -F",
        "priv=privileged",
        "limit=1",
        "action=deny",
        "#",
        " ",
        "é",
        "export",
        "info",
        "revert",
        "exit",
        "cpu-shares=",
        "9",
        "clear ",
    ];
    let bed = Bed::new();
    let mut numbers = Numbers(7);
    for _ in 0..3000 {
        let text: String = (0..numbers.below(30)).map(|_| numbers.pick(&pieces)).collect();
        let source = if numbers.below(2) == 0 {
            Source::Words
        } else {
            Source::File("f".into())
        };
        let out = bed.sim.mutate(|host| session::run(host, "z", &text, &source)).unwrap();
        let out = out.unwrap_or_else(|out| out);
        assert!((0..=1).contains(&out.code), "{text:?}: {out:?}");
        assert!(!out.stderr.contains("of the simulator"), "{text:?}: {out:?}");
    }
    // What was stored can be read again.
    bed.said("zoneadm list -cip");
}
