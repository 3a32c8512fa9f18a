//! ipf(8) and ipfstat(8): rules are parsed, kept in their order, and listed.

use crate::{
    host::Host,
    out::{Out, Ran, options},
    ports::Services,
    state::FIREWALL,
};

/// Reads one rule and gives it as ipfstat prints it where ports have no names.
///
/// # Errors
/// What ipf says of a line it does not understand.
pub fn rule(line: &str, services: &Services) -> Result<String, String> {
    let mut words = line.split_whitespace().peekable();
    let mut out: Vec<String> = Vec::new();
    let wrong = |word: Option<&str>| format!("unexpected \"{}\"", word.unwrap_or("end of line"));
    macro_rules! take {
        () => {
            words.next().ok_or_else(|| wrong(None))?
        };
    }
    for wanted in [&["pass", "block"], &["in", "out"]] {
        let word = take!();
        if !wanted.contains(&word) {
            return Err(wrong(Some(word)));
        }
        out.push(word.into());
    }
    while let Some(word) = words.next_if(|word| ["log", "quick"].contains(word)) {
        out.push(word.into());
    }
    if words.next_if_eq(&"on").is_some() {
        out.extend(["on".into(), take!().to_owned()]);
    }
    if words.next_if_eq(&"proto").is_some() {
        let proto = take!();
        if !["tcp", "udp", "icmp", "tcp/udp"].contains(&proto) && proto.parse::<u8>().is_err() {
            return Err(wrong(Some(proto)));
        }
        out.extend(["proto".into(), proto.to_owned()]);
    }
    if words.next_if_eq(&"all").is_some() {
        out.push("all".into());
    } else {
        for side in ["from", "to"] {
            let word = take!();
            if word != side {
                return Err(wrong(Some(word)));
            }
            out.extend([side.to_owned(), network(take!())?]);
            if words.next_if_eq(&"port").is_some() {
                let (operator, number) = (take!(), take!());
                if !["=", "!=", "<", ">", "<=", ">="].contains(&operator) {
                    return Err(wrong(Some(operator)));
                }
                let number = services.port(number).ok_or_else(|| wrong(Some(number)))?;
                if !out.iter().any(|word| word.starts_with("tcp") || word == "udp") {
                    return Err("port requires protocol tcp or udp".into());
                }
                out.extend(["port".into(), operator.to_owned(), number.to_string()]);
            }
        }
    }
    if words.next_if_eq(&"flags").is_some() {
        let flags = take!();
        if !flags.chars().all(|c| "FSRPAU/".contains(c)) || !out.contains(&"tcp".to_owned()) {
            return Err(wrong(Some(flags)));
        }
        let full = if flags.contains('/') {
            flags.to_owned()
        } else {
            format!("{flags}/FSRPAU")
        };
        out.extend(["flags".into(), full]);
    }
    while words.next_if_eq(&"keep").is_some() {
        let what = take!();
        if !["state", "frags"].contains(&what) {
            return Err(wrong(Some(what)));
        }
        out.extend(["keep".into(), what.to_owned()]);
    }
    match words.next() {
        None => Ok(out.join(" ")),
        extra => Err(wrong(extra)),
    }
}

/// `any`, an address, or a network; an address is printed with its prefix.
fn network(text: &str) -> Result<String, String> {
    if text == "any" {
        return Ok(text.into());
    }
    let (addr, prefix) = text.split_once('/').unwrap_or((text, "32"));
    match (addr.parse::<std::net::Ipv4Addr>(), prefix.parse::<u8>()) {
        (Ok(addr), Ok(prefix @ 0..=32)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ok(format!("{}/{prefix}", std::net::Ipv4Addr::from(u32::from(addr) & mask)))
        }
        _ => Err(format!("unknown host \"{text}\"")),
    }
}

/// `ipf [-r] [-Fa] -f FILE`, and `-E`, `-D`.
///
/// # Errors
/// Usage, or a rule that cannot be read or set.
pub fn ipf(host: &mut Host, args: &[String]) -> Ran {
    let usage = |text: String| {
        Out::error(format!(
            "ipf: {text}\nusage: ipf [-6AdDEInoPrRsUvVyzZ] [-F i|o|a|s|S] [-f file]"
        ))
    };
    let options = options(args, "6EDrvyAF:f:").map_err(usage)?;
    if !options.rest.is_empty() || args.is_empty() {
        return Err(usage("wrong arguments".into()));
    }
    if options.has('6') {
        return Err(Out::error("ipf: IPv6 rules are not simulated"));
    }
    if options.has('E') {
        host.state.filter.disabled = false;
    }
    if options.has('D') {
        host.state.filter.disabled = true;
    }
    match options.value('F') {
        None | Some("s" | "S") => {}
        Some("a") => host.state.filter.rules.clear(),
        Some("i") => host.state.filter.rules.retain(|rule| rule.contains(" out ")),
        Some("o") => host.state.filter.rules.retain(|rule| rule.contains(" in ")),
        Some(other) => return Err(usage(format!("unknown flush '{other}'"))),
    }
    let mut out = Out::silent();
    for file in options.values('f') {
        let text = if file == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(host.given(file))
        };
        let text = text.map_err(|error| Out::error(format!("fopen({file}) failed: {error}")))?;
        load(host, file, &text, options.has('r'), &mut out)?;
    }
    Ok(out)
}

/// Adds the rules of a text, or removes them, up to the first that cannot be read.
fn load(host: &mut Host, file: &str, text: &str, removes: bool, out: &mut Out) -> Result<(), Out> {
    let services = Services::read(host);
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let parsed =
            rule(line, &services).map_err(|why| Out::error(format!("{file}:{}: syntax error, {why}", number + 1)))?;
        let rules = &mut host.state.filter.rules;
        let there = rules.iter().position(|rule| *rule == parsed);
        match (removes, there) {
            (false, None) => rules.push(parsed),
            (true, Some(at)) => drop(rules.remove(at)),
            (false, Some(_)) => {
                out.stderr += &format!("{}:ioctl(add/insert rule): File exists\n", number + 1);
                out.code = 1;
            }
            (true, None) => {
                out.stderr += &format!("{}:ioctl(delete rule): No such process\n", number + 1);
                out.code = 1;
            }
        }
    }
    Ok(())
}

/// What the service does at its start and its refresh: the rules become those of the file that its properties name;
/// false when one of them cannot be read, and then they are what they were. Another policy than `custom` reads no
/// file; what it makes is not simulated.
pub fn reload(host: &mut Host) -> bool {
    let before = std::mem::take(&mut host.state.filter.rules);
    let props = host.state.service_props.get(FIREWALL);
    let prop = |name: &str| props.and_then(|props| props.get(&format!("firewall_config_default/{name}")));
    let Some(file) = prop("custom_policy_file").filter(|_| prop("policy").is_some_and(|policy| policy == "custom"))
    else {
        return true;
    };
    let file = file.clone();
    // Without the file there are no rules.
    let Ok(text) = std::fs::read_to_string(host.path(&file)) else {
        return true;
    };
    // What is said of them is in the service's log, which is not simulated.
    let mut said = Out::silent();
    let loaded = load(host, &file, &text, false, &mut said).is_ok() && said.code == 0;
    if !loaded {
        host.state.filter.rules = before;
    }
    loaded
}

/// A rule with the names of its ports.
fn named(rule: &str, services: &Services) -> String {
    let mut words: Vec<&str> = rule.split(' ').collect();
    let protocol = words.iter().position(|word| *word == "proto").map(|at| words[at + 1]);
    for at in 2..words.len() {
        let name = match (words[at - 2], protocol) {
            ("port", Some(protocol)) => words[at].parse().ok().and_then(|port| services.name(port, protocol)),
            _ => None,
        };
        words[at] = name.unwrap_or(words[at]);
    }
    words.join(" ")
}

/// `ipfstat -io`, which says the names of ports that have one, and with `-R` their numbers.
///
/// # Errors
/// Usage.
pub fn ipfstat(host: &Host, args: &[String]) -> Ran {
    let usage = |text: String| Out::error(format!("ipfstat: {text}\nUsage: ipfstat [-6aAfghIinosvR]"));
    let options = options(args, "ioR").map_err(usage)?;
    if !options.rest.is_empty() || !(options.has('i') || options.has('o')) {
        return Err(usage("statistics are not simulated".into()));
    }
    let (mut text, services) = (String::new(), Services::read(host));
    for (letter, word) in [('o', "out"), ('i', "in")] {
        if !options.has(letter) {
            continue;
        }
        let active = host.state.filter.rules.iter().filter(|_| !host.state.filter.disabled);
        let rules: Vec<&String> = active.filter(|rule| rule.split(' ').nth(1) == Some(word)).collect();
        if rules.is_empty() {
            text += &format!("empty list for ipfilter({word})\n");
        }
        for rule in rules {
            let shown = if options.has('R') {
                rule.clone()
            } else {
                named(rule, &services)
            };
            text += &format!("{shown}\n");
        }
    }
    Ok(Out::text(text))
}

#[cfg(test)]
mod tests {
    use crate::program::testing::TestHost;

    #[test]
    fn rules_are_loaded_listed_and_removed() {
        let fixture = TestHost::new();
        let file = fixture.file(
            "rules",
            "# ours\npass in quick proto tcp from 10.77.0.0/16 to 10.77.0.0/16 port = 9443 flags S keep state\nblock in quick from 10.77.0.0/16 to any\n",
        );
        assert_eq!(
            fixture.ok("ipfstat -io"),
            "empty list for ipfilter(out)\nempty list for ipfilter(in)\n"
        );
        fixture.ok(&format!("ipf -f {file}"));
        assert_eq!(
            fixture.ok("ipfstat -i"),
            "pass in quick proto tcp from 10.77.0.0/16 to 10.77.0.0/16 port = 9443 flags S/FSRPAU keep state\nblock in quick from 10.77.0.0/16 to any\n"
        );
        assert!(fixture.no(&format!("ipf -f {file}"), 1).contains("File exists"));
        fixture.ok(&format!("ipf -r -f {file}"));
        assert!(fixture.no(&format!("ipf -r -f {file}"), 1).contains("No such process"));
    }

    #[test]
    fn ports_are_listed_by_the_names_that_the_host_has_for_them() {
        let fixture = TestHost::new();
        let rule = |protocol: &str, port: &str| {
            format!("pass in quick proto {protocol} from any port > 1024 to any port = {port}\n")
        };
        let ports = [
            ("tcp", "8080", "http-alt"),
            ("tcp", "3306", "mysql"),
            ("tcp", "5432", "postgresql"),
            ("udp", "2049", "nfsd"),
            ("tcp/udp", "2049", "nfsd"),
            // Only one of the two protocols calls it so.
            ("tcp/udp", "8080", "8080"),
            ("udp", "8080", "8080"),
            ("tcp", "9417", "9417"),
        ];
        let numbers: String = ports.iter().map(|(protocol, port, _)| rule(protocol, port)).collect();
        let names: String = ports.iter().map(|(protocol, _, name)| rule(protocol, name)).collect();
        fixture.ok(&format!("ipf -f {}", fixture.file("rules", &numbers)));
        assert_eq!(fixture.ok("ipfstat -i"), names);
        let none = "empty list for ipfilter(out)\n";
        assert_eq!(fixture.ok("ipfstat -ioR"), format!("{none}{numbers}"));
        // A name is as good as its number to load by.
        assert!(
            fixture
                .no(&format!("ipf -f {}", fixture.file("rules", &names)), 1)
                .contains("File exists")
        );
        fixture.ok(&format!("ipf -r -f {}", fixture.file("rules", &names)));
        // An administrator gives a port a name.
        let services = fixture.sim.root().join(crate::ports::FILE);
        std::fs::write(services, "# ours\nci 9417/tcp helios\n").unwrap();
        fixture.ok(&format!("ipf -f {}", fixture.file("rules", &numbers)));
        assert_eq!(fixture.ok("ipfstat -i"), numbers.replace("= 9417", "= ci"));
        assert!(fixture.no("ipfstat -R", 1).contains("not simulated"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let fixture = TestHost::new();
        for bad in [
            "permit in all",
            "pass all",
            "pass in quick from any",
            "pass in quick from any to 10.0.0.300",
            "pass in quick from any to any port = 80",
            "pass in all keep calm",
            "pass in all and more",
            "pass in proto tcp from any to any port = nonesuch",
        ] {
            assert!(
                fixture
                    .no(&format!("ipf -f {}", fixture.file("rules", bad)), 1)
                    .contains("syntax error"),
                "{bad}"
            );
        }
    }
}
