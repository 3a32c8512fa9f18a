//! What a hostile guest reaches: its node's two ports, and nothing else. Every probe is shown to succeed once
//! what holds it back is gone, so that each could fail.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use helios_ci::machine::{Endpoints, ListenAt, MachineSpec, Machines, listen};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    deadline,
    real_guests::{self, left, machines, run, slot, spec},
};

/// Gives whoever listens at the agent's address a root shell in the guest, and greets whoever calls on 8080. The
/// route is what a guest is not given, and can give itself.
const AGENT: &str = r#"#!/bin/sh
node=$(sed -n 's/.*"agent":"tcp:\([0-9.]*\):.*/\1/p' "$2/helios.json")
ip route add default via "$node"
nc -ll -p 8080 -e /bin/echo here &
while :; do nc "$node" 9417 -e /bin/sh; usleep 200000; done
"#;
/// So long is listened for what is not to be heard: a busy machine only makes it the quieter.
const SILENCE: Duration = Duration::from_secs(3);
/// What should succeed is tried so often.
const TRIES: u32 = 5;
/// An address of the host in the network around it.
const LAN: &str = "192.0.2.1";

/// A root shell in a guest.
struct Shell {
    stream: BufReader<TcpStream>,
    /// How many scripts it was given.
    given: u32,
}

impl Shell {
    async fn of(listener: &TcpListener) -> Self {
        let (stream, _) = tokio::time::timeout(deadline::GUEST, listener.accept())
            .await
            .expect("the guest calls")
            .expect("a connection");
        Self {
            stream: BufReader::new(stream),
            given: 0,
        }
    }

    /// Runs a script; its output and whether it succeeded.
    async fn run(&mut self, script: &str) -> (String, bool) {
        self.given += 1;
        let end = format!("ended {} ", self.given);
        let line = format!("{{ {script}\n}} 2>&1; echo \"{end}$?\"\n");
        self.stream
            .write_all(line.as_bytes())
            .await
            .expect("the shell takes it");
        let mut said = String::new();
        loop {
            let read = tokio::time::timeout(deadline::GUEST, self.stream.read_line(&mut said)).await;
            let read = read.unwrap_or_else(|_| panic!("the shell does not answer to {script}: {said}"));
            assert!(read.expect("a line") > 0, "the shell is gone: {said}");
            if let Some((before, code)) = said.trim_end().rsplit_once(&end) {
                return (before.to_owned(), code == "0");
            }
        }
    }

    /// Whether something at this address greets us before so long is over.
    async fn reaches_within(&mut self, within: Duration, address: impl std::fmt::Display, port: u16) -> bool {
        let nc = format!("nc -w {} {address} {port} </dev/null", within.as_secs());
        self.run(&nc).await.0.contains("here")
    }

    /// Whether a connection comes about that should be held back in silence.
    async fn reaches(&mut self, address: impl std::fmt::Display, port: u16) -> bool {
        self.reaches_within(SILENCE, address, port).await
    }
}

impl Shell {
    /// Whether it is reached at last: on a busy machine an answer may be late, and a late one is one.
    async fn reaches_at_last(&mut self, address: impl std::fmt::Display, port: u16) -> bool {
        for _ in 0..TRIES {
            if self.reaches_within(deadline::PROMPT, &address, port).await {
                return true;
            }
        }
        false
    }
}

/// Greets everybody who gets through.
async fn greet(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // Whoever is gone already needs no greeting.
        stream.write_all(b"here\n").await.ok();
    }
}

/// Greets whom the node would serve at this endpoint.
async fn greet_owner(at: &ListenAt) {
    let mut connections = listen::accept(at).await.expect("an address");
    tokio::spawn(async move {
        while let Some(connection) = connections.next().await {
            if let Ok(mut stream) = connection {
                stream.write_all(b"here\n").await.ok();
            }
        }
    });
}

struct Guest {
    spec: MachineSpec,
    endpoints: Endpoints,
    node: SocketAddr,
    address: IpAddr,
    shell: Shell,
}

impl Guest {
    async fn start(machines: &Arc<dyn Machines>) -> Self {
        let spec = spec(&"ab".repeat(32));
        let endpoints = machines.prepare(&spec).await.unwrap();
        let (node, address) = slot(&endpoints);
        greet_owner(&endpoints.git).await;
        let listener = TcpListener::bind(node).await.unwrap();
        machines.start(&spec.name).await.unwrap();
        let shell = Shell::of(&listener).await;
        Self {
            spec,
            endpoints,
            node,
            address,
            shell,
        }
    }

    fn git_port(&self) -> u16 {
        match self.endpoints.git {
            ListenAt::Slot { address, .. } => address.port(),
            ref other => panic!("{other:?}"),
        }
    }
}

/// What in the host's model is to hold the guest back: rules of ipfilter, and forwarding off.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_reaches_its_node_and_nothing_else_of_the_host_or_its_neighbours() {
    real_guests::begin();
    run(&format!("ipadm create-addr -t -T static -a {LAN}/24 ixgbe0/v4"));
    for (address, port) in [("0.0.0.0", 22), (LAN, 8080)] {
        tokio::spawn(greet(TcpListener::bind((address, port)).await.unwrap()));
    }
    let machines = machines(AGENT.as_bytes());
    let (mut one, mut other) = (Guest::start(&machines).await, Guest::start(&machines).await);
    let git = one.git_port();
    let (mine, theirs) = (one.node.ip(), other.node.ip());
    let guest = &mut one.shell;
    assert!(guest.reaches_at_last(mine, git).await, "its node serves it");
    let held = [
        ("the host's address in the LAN", LAN.parse().unwrap(), 8080),
        ("a service of the host on the guest's own gateway", mine, 22),
        ("a service of the host on a neighbour's gateway", theirs, 22),
        ("what the node keeps for a neighbour", theirs, git),
        ("the neighbour", other.address, 8080),
    ];
    for (what, address, port) in held {
        assert!(!guest.reaches(address, port).await, "{what} is reached");
    }
    // Each link of ours says for itself that it forwards nothing, whatever the host does.
    run("ipadm set-prop -t -p forwarding=on ipv4");
    assert!(
        !guest.reaches(other.address, 8080).await,
        "the rules hold where the host forwards"
    );
    run("ipadm set-prop -t -p forwarding=off ipv4");
    run("ipf -Fa");
    for (what, address, port) in &held[..3] {
        assert!(
            guest.reaches_at_last(address, *port).await,
            "without rules {what} is reached"
        );
    }
    // The filter has no say in whose a neighbour's port is: the listener has.
    assert!(!guest.reaches(theirs, git).await, "the node serves a stranger");
    assert!(
        !guest.reaches(other.address, 8080).await,
        "a host that forwards nothing is no way"
    );
    run("ipadm set-prop -t -p forwarding=on ipv4");
    if !guest.reaches_at_last(other.address, 8080).await {
        let (there, _) = other.shell.run("ip addr; ip route; netstat -ltn; ip neigh").await;
        let (here, _) = guest.run("ip addr; ip route; ip neigh").await;
        panic!(
            "a host that forwards is one:\n{}\n{}\n{}\nthere:\n{there}\nhere:\n{here}",
            run("ip -4 neigh"),
            run("grep . /proc/sys/net/ipv4/conf/hcih0/forwarding /proc/sys/net/ipv4/conf/hcih1/forwarding"),
            run("nft list ruleset"),
        );
    }
    run("ipf -Fa -f /etc/ipf/ipf.conf");
    for (what, address, port) in held {
        assert!(!guest.reaches(address, port).await, "{what} is reached again");
    }
    assert!(guest.reaches_at_last(mine, git).await, "its node serves it still");
    for guest in [one, other] {
        machines.destroy(&guest.spec.name).await.unwrap();
    }
    assert_eq!(left(), Vec::<String>::new());
}

/// All that the guest's link is held to.
const PROTECTION: [&str; 4] = ["mac-nospoof", "restricted", "ip-nospoof", "dhcp-nospoof"];

fn protect(kinds: &BTreeSet<&str>) {
    let kinds: Vec<&str> = kinds.iter().copied().collect();
    run(&format!(
        "dladm set-linkprop -t -p protection={} hciv0",
        kinds.join(",")
    ));
}

/// How many frames of each kind came out of the guest's link at the host, as counted so far.
fn counted(kind: &str) -> u64 {
    let listed = run("nft list table netdev probe");
    let line = listed
        .lines()
        .find(|line| line.contains(kind))
        .unwrap_or_else(|| panic!("{kind}: {listed}"));
    let packets = line.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    packets
        .and_then(|packets| packets.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

/// Whether a frame of this protection's concern gets out of the guest.
async fn gets_out(shell: &mut Shell, kind: &str, node: IpAddr) -> bool {
    let raw = |frame: &str, to: &str| {
        format!(
            "perl -e 'socket(S,17,3,0) or die; open(F,\"/sys/class/net/eth0/ifindex\"); my $i=<F>; \
             send(S,{frame},0,pack(\"SnlSCCa8\",17,{to},$i,0,0,6,\"\\xff\"x6)) or die $!'"
        )
    };
    match kind {
        // An answer comes back to the address that the guest made up.
        "mac-nospoof" => {
            let script = format!(
                "mac=$(cat /sys/class/net/eth0/address); ip link set eth0 address 02:aa:aa:aa:aa:aa; \
                 arping -q -c 2 -w 3 -f -I eth0 {node}; got=$?; ip link set eth0 address $mac; \
                 arping -q -c 1 -w 1 -f -I eth0 {node}; (exit $got)"
            );
            shell.run(&script).await.1
        }
        // The host has a way back to it, so that a connection comes about.
        "ip-nospoof" => {
            let script = format!(
                "ip addr add 10.77.200.9/32 dev eth0; ip route add {node}/32 dev eth0 src 10.77.200.9; \
                 nc -w 3 {node} 9418 </dev/null; got=$?; \
                 ip route del {node}/32 dev eth0 src 10.77.200.9; ip addr del 10.77.200.9/32 dev eth0; (exit $got)"
            );
            shell.run(&script).await.1
        }
        "restricted" => {
            let before = counted("0x88b5");
            let (said, sent) = shell
                .run(&raw(
                    "\"\\xff\"x6 . pack(\"H12\",`cat /sys/class/net/eth0/address|tr -d :`) . \"\\x88\\xb5\" . \"x\"x46",
                    "0x88b5",
                ))
                .await;
            assert!(sent, "{said}");
            counted("0x88b5") > before
        }
        // A request for the address of another card.
        "dhcp-nospoof" => {
            let before = counted("dport 67");
            let (said, sent) = shell
                .run(&format!(
                    "perl -e 'socket(S,2,2,17) or die; send(S,pack(\"CCCCNnnNNNNH32x192H8\",1,1,6,0,7,0,0,0,0,0,0,\"02bbbbbbbbbb\".\"0\"x20,\"63825363\"),0,pack(\"Sna4x8\",2,67,pack(\"C4\",split(/\\./,\"{node}\")))) or die $!'"
                ))
                .await;
            assert!(sent, "{said}");
            counted("dport 67") > before
        }
        other => panic!("{other}"),
    }
}

/// What the link's properties are to hold back, one by one: each is the only thing in the way.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_is_held_to_its_own_addresses_by_each_property_of_its_link() {
    real_guests::begin();
    let machines = machines(AGENT.as_bytes());
    let mut guest = Guest::start(&machines).await;
    let (node, address) = (guest.node.ip(), guest.address);
    let shell = &mut guest.shell;
    // Replies to a made-up address find their way; what arrives is counted before any rule of the host's stack.
    run("ip route add 10.77.200.9/32 dev hcih0");
    for command in [
        "nft add table netdev probe",
        "nft add chain netdev probe seen { type filter hook ingress device hcih0 priority 0 ; }",
        "nft add rule netdev probe seen ether type 0x88b5 counter",
        "nft add rule netdev probe seen udp dport 67 counter",
    ] {
        run(command);
    }
    // As the seed says, and no more than the link takes.
    let (said, _) = shell
        .run("cat /sys/class/net/eth0/mtu; ip -4 addr show dev eth0; cat /proc/net/if_inet6")
        .await;
    assert!(
        said.starts_with("1500\n") && said.contains(&format!("inet {address}/30")),
        "{said}"
    );
    assert!(!said.contains("eth0\n") || !said.contains("fe80"), "{said}");
    assert!(
        !shell.run("ip link set eth0 mtu 9000").await.1,
        "the link takes longer frames"
    );
    let all = BTreeSet::from(PROTECTION);
    for kind in PROTECTION {
        assert!(!gets_out(shell, kind, node).await, "{kind} holds nothing");
        let mut others = all.clone();
        others.remove(kind);
        protect(&others);
        let mut out = false;
        for _ in 0..TRIES {
            out = out || gets_out(shell, kind, node).await;
        }
        assert!(out, "without {kind} the probe should succeed");
        protect(&all);
    }
    // Nothing is allowed then but what was learned from DHCP: not even this shell's own words.
    run("dladm reset-linkprop -t -p allowed-ips hciv0");
    let silent = tokio::time::timeout(SILENCE, shell.run("true")).await;
    assert!(silent.is_err(), "{silent:?}");
    run(&format!("dladm set-linkprop -t -p allowed-ips={address}/32 hciv0"));
    assert!(shell.run("true").await.1);
    machines.destroy(&guest.spec.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

/// What is read back before a boot: a guest whose link has lost something of it never runs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_machine_whose_link_lost_a_property_is_not_booted() {
    real_guests::begin();
    let machines = machines(AGENT.as_bytes());
    let spec = spec(&"ab".repeat(32));
    for property in ["mtu", "protection", "allowed-ips"] {
        machines.prepare(&spec).await.unwrap();
        run(&format!("dladm reset-linkprop -t -p {property} hciv0"));
        let error = machines.start(&spec.name).await.unwrap_err();
        assert!(error.to_string().contains("not protected"), "{property}: {error}");
        assert_eq!(real_guests::emulators(), Vec::<i32>::new());
        machines.destroy(&spec.name).await.unwrap();
    }
    assert_eq!(left(), Vec::<String>::new());
}
