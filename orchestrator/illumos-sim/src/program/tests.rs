//! What holds for all programs: whatever they are given, they answer, and the host stays whole.

use super::testing::TestHost;
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

/// Commands that make sense; half of them are run with a word changed, taken away or put in.
const COMMANDS: &[&str] = &[
    "zfs create rpool/a",
    "zfs create -o mountpoint=/x rpool/a/b",
    "zfs create -s -V 1m rpool/v",
    "zfs snapshot rpool/v@s",
    "zfs snapshot -r rpool/a@s",
    "zfs clone rpool/v@s rpool/a/c",
    "zfs clone rpool/a@s rpool/d",
    "zfs destroy -r rpool/a",
    "zfs destroy rpool/v",
    "zfs destroy -R rpool/v",
    "zfs destroy -d rpool/v@s",
    "zfs destroy -nvp -r rpool/a",
    "zfs hold tag rpool/v@s",
    "zfs release tag rpool/v@s",
    "zfs holds -H rpool/v@s",
    "zfs list -Hp -r -t all -o name,used rpool",
    "zfs get -Hp all rpool/v",
    "zfs set volsize=2m rpool/v",
    "zfs set mountpoint=none rpool/a",
    "zfs set mountpoint=/y rpool/a",
    "zfs inherit mountpoint rpool/a",
    "zfs set canmount=noauto rpool/a",
    "zfs set canmount=on rpool/a",
    "zfs set quota=1g rpool/a",
    "zfs rename rpool/a rpool/e",
    "zfs rename rpool/e rpool/a",
    "zfs rename rpool/v rpool/a/v",
    "zfs mount rpool/a",
    "zfs unmount rpool/a",
    "zpool list -Hp -o name,size",
    "zpool status -x",
    "dladm create-etherstub -t x0",
    "dladm create-vnic -t -l x0 x1",
    "dladm set-linkprop -t -p mtu=1500 x1",
    "dladm set-linkprop -t -p protection=restricted -p allowed-ips=10.1.0.0/30 x1",
    "dladm reset-linkprop -t x1",
    "dladm show-linkprop -c -o link,value -p mtu x1",
    "dladm show-vnic -p -o link,macaddress",
    "dladm show-link",
    "dladm delete-vnic x1",
    "dladm delete-etherstub x0",
    "ipadm create-addr -t -T static -a 10.1.2.3/30 x1/v4",
    "ipadm delete-addr x1/v4",
    "ipadm delete-if x1",
    "ipadm show-addr -p -o addrobj,addr",
    "ipadm set-ifprop -t -p forwarding=on -m ipv4 x1",
    "ipadm show-ifprop -c -o current x1",
    "ipadm show-prop -c -o current ipv4",
    "zonecfg -z z1 create -b ; set brand=bhyve ; set zonepath=/rpool/z1 ; add net ; set physical=x1 ; end",
    "zonecfg -z z1 delete -F",
    "zonecfg -z z1 export",
    "zoneadm list -cip",
    "zoneadm -z z1 install",
    "zoneadm -z z1 boot",
    "zoneadm -z z1 halt",
    "zoneadm -z z1 uninstall -F",
    "zoneadm -z z1 mark -F configured",
    "zoneadm -z z1 reboot",
    "zoneadmd -z z1",
    "zlogin -C z1",
    "bhyvectl --vm=z1 --force-poweroff",
    "bhyvectl --vm=z1 --force-reset",
    "bhyvectl --vm=z1 --destroy",
    "pkill -9 -z z1 bhyve",
    "ipf -E",
    "ipf -Fa",
    "ipfstat -io",
    "svcs -H",
    "svcadm enable ipfilter",
    "svcprop -p restarter/state ipfilter",
    "uname -a",
    "dispadmin -d FSS",
    "zonename",
    "fuser -c /dev/zvol/rdsk/rpool/v",
];

#[test]
fn any_words_get_an_answer() {
    let fixture = TestHost::new();
    let mut numbers = Numbers(20_260_105);
    let mut done = std::collections::BTreeSet::new();
    for turn in 0..8_000 {
        let command = numbers.pick(COMMANDS);
        let mut words: Vec<&str> = command.split(' ').collect();
        let at = 1 + numbers.below(words.len());
        match numbers.below(6) {
            0 if at < words.len() => drop(words.remove(at)),
            1 => words.insert(at.min(words.len()), numbers.pick(WORDS)),
            2 if at < words.len() => words[at] = numbers.pick(WORDS),
            _ => {}
        }
        // Both would read this test's own standard input.
        if words.contains(&"-") || words[0] == "zonecfg" && words.len() < 4 {
            continue;
        }
        if turn % 500 == 499 {
            fixture.sim.host_reboot().unwrap();
        }
        match fixture.sim.run(words[0], &words[1..]).unwrap() {
            Ended::Exit(out) => {
                assert!((0..=2).contains(&out.code), "{words:?}: {out:?}");
                assert!(
                    out.code == 0 || !out.stderr.is_empty() || words[0] == "pkill",
                    "{words:?}: {out:?}"
                );
                assert!(!out.stderr.contains("I/O error"), "{words:?}: {out:?}");
                if out.code == 0 && words.join(" ") == command {
                    done.insert(command);
                }
            }
            Ended::Waiting => {}
            other => panic!("{words:?}: {other:?}"),
        }
    }
    let never: Vec<_> = COMMANDS.iter().filter(|command| !done.contains(*command)).collect();
    assert!(never.len() * 10 < COMMANDS.len(), "these never succeeded: {never:#?}");
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
    let fixture = TestHost::new();
    let mut numbers = Numbers(7);
    for _ in 0..3000 {
        let text: String = (0..numbers.below(30)).map(|_| numbers.pick(&pieces)).collect();
        let source = if numbers.below(2) == 0 {
            Source::Words
        } else {
            Source::File("f".into())
        };
        let out = fixture
            .sim
            .mutate(|host| session::run(host, "z", &text, &source))
            .unwrap();
        let out = out.unwrap_or_else(|out| out);
        assert!((0..=1).contains(&out.code), "{text:?}: {out:?}");
        assert!(!out.stderr.contains("I/O error"), "{text:?}: {out:?}");
    }
    // What was stored can be read again.
    fixture.said("zoneadm list -cip");
}
