//! svcs(1) and svcprop(1): the states and properties of the services that the model names.

use super::filter;
use crate::{
    host::Host,
    out::{Out, Ran, options},
    state::FIREWALL,
};

/// The full names that a pattern means: an FMRI, or its end with or without the instance.
pub(super) fn matching<'a>(host: &'a Host, pattern: &str) -> Vec<&'a String> {
    let tail = pattern.trim_start_matches("svc:/");
    let fits = |fmri: &str| {
        let whole = fmri.trim_start_matches("svc:/");
        let service = whole.split(':').next().unwrap_or_default();
        [whole, service]
            .iter()
            .any(|name| *name == tail || name.ends_with(&format!("/{tail}")))
    };
    host.state.services.keys().filter(|fmri| fits(fmri)).collect()
}

/// `svcs -H -o state,nstate,fmri FMRI`.
///
/// # Errors
/// Usage, or a pattern that means nothing.
pub fn svcs(host: &Host, args: &[String]) -> Ran {
    let usage = |text: String| {
        Out::usage(format!(
            "svcs: {text}\nUsage: svcs [-aH] [-o col[,col ...]] [FMRI | pattern ...]"
        ))
    };
    let options = options(args, "aHo:").map_err(usage)?;
    let columns: Vec<String> = options
        .value('o')
        .unwrap_or("state,stime,fmri")
        .split(',')
        .map(str::to_ascii_lowercase)
        .collect();
    if let Some(bad) = columns
        .iter()
        .find(|c| !["state", "nstate", "fmri", "stime", "sta"].contains(&c.as_str()))
    {
        return Err(usage(format!("Unknown column \"{bad}\".")));
    }
    let mut out = Out::silent();
    if !options.has('H') {
        out.stdout = columns.iter().map(|c| c.to_uppercase()).collect::<Vec<_>>().join(" ") + "\n";
    }
    let mut fmris = Vec::new();
    for pattern in &options.rest {
        let found = matching(host, pattern);
        if found.is_empty() {
            out.stderr += &format!("svcs: Pattern '{pattern}' doesn't match any instances\n");
            out.code = 1;
        }
        fmris.extend(found);
    }
    if options.rest.is_empty() {
        fmris.extend(host.state.services.keys());
    }
    for fmri in fmris {
        let state = host.state.services.get(fmri).map_or("-", String::as_str);
        let cells = columns.iter().map(|column| match column.as_str() {
            "state" | "sta" => state,
            "fmri" => fmri.as_str(),
            _ => "-",
        });
        out.stdout += &(cells.collect::<Vec<_>>().join(" ") + "\n");
    }
    Ok(out)
}

/// `svcadm enable | disable [-st] FMRI`, `refresh`, `restart`, `clear`.
///
/// # Errors
/// Usage, or a pattern that means nothing.
pub fn svcadm(host: &mut Host, args: &[String]) -> Ran {
    let usage = || Out::usage("Usage: svcadm [-v] enable|disable|restart|refresh|clear FMRI ...");
    let Some((verb, rest)) = args.split_first() else {
        return Err(usage());
    };
    let spec = match verb.as_str() {
        "enable" => "rst",
        "disable" => "st",
        "restart" | "refresh" | "clear" => "s",
        _ => return Err(usage()),
    };
    let options = options(rest, spec).map_err(|_| usage())?;
    if options.rest.is_empty() {
        return Err(usage());
    }
    for pattern in &options.rest {
        let found: Vec<String> = matching(host, pattern).into_iter().cloned().collect();
        let [fmri] = found.as_slice() else {
            return Err(Out::error(format!(
                "svcadm: Pattern '{pattern}' doesn't match any instances"
            )));
        };
        let state = host.state.services.entry(fmri.clone()).or_default();
        let ran = state == "online";
        match verb.as_str() {
            "disable" => *state = "disabled".into(),
            "clear" if state != "maintenance" => {
                return Err(Out::error(format!(
                    "svcadm: Instance \"{fmri}\" is not in a maintenance or degraded state."
                )));
            }
            "enable" | "clear" if state != "maintenance" || verb == "clear" => *state = "online".into(),
            _ => {}
        }
        if verb == "refresh"
            && let Some(edits) = host.state.service_edits.remove(fmri)
        {
            host.state.service_props.entry(fmri.clone()).or_default().extend(edits);
        }
        if fmri == FIREWALL {
            let runs = host.state.services.get(fmri).is_some_and(|state| state == "online");
            host.state.filter.disabled = !runs;
            // A service that runs already is not started by its `enable`.
            if runs && verb == "refresh" {
                // What it was stays when the new cannot be read.
                filter::reload(host);
            } else if runs && !(verb == "enable" && ran) {
                start_filter(host);
            }
        }
    }
    Ok(Out::silent())
}

/// What services do when the host comes up.
pub fn boot(host: &mut Host) {
    host.state.filter.disabled = host.state.services.get(FIREWALL).is_none_or(|state| state != "online");
    if !host.state.filter.disabled {
        start_filter(host);
    }
}

/// The start of ipfilter: one whose rules cannot be read ends as any method does whose configuration is bad.
fn start_filter(host: &mut Host) {
    host.state.filter.rules.clear();
    if !filter::reload(host) {
        host.state.filter.disabled = true;
        host.state.services.insert(FIREWALL.into(), "maintenance".into());
    }
}

/// `svcprop -p group/name FMRI`.
///
/// # Errors
/// Usage, no such service or property.
pub fn svcprop(host: &Host, args: &[String]) -> Ran {
    let usage = |text: String| Out::usage(format!("svcprop: {text}\nUsage: svcprop [-p [name/]name]... FMRI"));
    let options = options(args, "p:q").map_err(usage)?;
    let [pattern] = options.rest.as_slice() else {
        return Err(usage("one FMRI wanted".into()));
    };
    let found = matching(host, pattern);
    let [fmri] = found.as_slice() else {
        return Err(Out::error(format!(
            "svcprop: Pattern '{pattern}' doesn't match any entities"
        )));
    };
    let props = host.state.service_props.get(*fmri);
    let mut text = String::new();
    for name in options.values('p') {
        let value = match name {
            "restarter/state" => host.state.services.get(*fmri),
            name => props.and_then(|props| props.get(name)),
        };
        match value {
            Some(value) => text += &format!("{value}\n"),
            None => {
                let said = format!("svcprop: Couldn't find property '{name}' for instance '{fmri}'.");
                return Err(if options.has('q') {
                    Out::silent().code(1)
                } else {
                    Out::error(said)
                });
            }
        }
    }
    if options.values('p').is_empty() {
        text = props
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name} astring {value}\n"))
            .collect();
    }
    Ok(Out::text(if options.has('q') { String::new() } else { text }))
}

#[cfg(test)]
mod tests {
    use crate::program::testing::TestHost;

    #[test]
    fn services_have_states() {
        let fixture = TestHost::new();
        assert_eq!(
            fixture.ok("svcs -H -o state,fmri network/ipfilter"),
            "online svc:/network/ipfilter:default\n"
        );
        assert!(
            fixture
                .no("svcs -H -o state application/none", 1)
                .contains("doesn't match any instances")
        );
        fixture.ok("svcadm disable -s network/ipfilter");
        assert_eq!(fixture.ok("svcs -H -o state ipfilter"), "disabled\n");
        assert!(fixture.sim.state().unwrap().filter.disabled);
        fixture.ok("svcadm enable network/ipfilter");
        assert!(
            fixture
                .no("svcadm clear network/ipfilter", 1)
                .contains("is not in a maintenance")
        );
        fixture.no("svcadm frobnicate x", 2);
        // The filter's rules are those of its file whenever it starts or is told to look again.
        let conf = fixture.sim.root().join("etc/ipf/ipf.conf");
        std::fs::write(&conf, "# ours\nblock in quick from 10.77.0.0/16 to any\n").unwrap();
        let rules = "block in quick from 10.77.0.0/16 to any\n";
        fixture.ok("svcadm enable network/ipfilter");
        assert_eq!(
            fixture.ok("ipfstat -i"),
            "empty list for ipfilter(in)\n",
            "it runs already"
        );
        fixture.ok("svcadm refresh network/ipfilter");
        assert_eq!(fixture.ok("ipfstat -i"), rules);
        fixture.ok("svcadm disable network/ipfilter");
        assert_eq!(fixture.ok("ipfstat -i"), "empty list for ipfilter(in)\n");
        fixture.ok("svcadm enable network/ipfilter");
        assert_eq!(fixture.ok("ipfstat -i"), rules);
        fixture.ok("ipf -Fa");
        fixture.sim.host_reboot().unwrap();
        assert_eq!(fixture.ok("ipfstat -i"), rules);
        assert_eq!(
            fixture.ok("svcprop -p firewall_config_default/policy network/ipfilter"),
            "custom\n"
        );
        // One line that is no rule: the rules stay what they were, and nothing comes of a start.
        std::fs::write(&conf, "pass in all\nno rule\n").unwrap();
        fixture.ok("svcadm refresh network/ipfilter");
        assert_eq!(fixture.ok("ipfstat -i"), rules);
        fixture.sim.host_reboot().unwrap();
        assert_eq!(fixture.ok("svcs -H -o state network/ipfilter"), "maintenance\n");
        assert_eq!(fixture.ok("ipfstat -i"), "empty list for ipfilter(in)\n");
        std::fs::write(&conf, rules).unwrap();
        fixture.ok("svcadm clear network/ipfilter");
        assert_eq!(fixture.ok("ipfstat -i"), rules);
        let none = |host: &mut crate::host::Host| {
            let props = host.state.service_props.get_mut(crate::state::FIREWALL).unwrap();
            props.insert("firewall_config_default/policy".into(), "none".into());
        };
        fixture.sim.mutate(none).unwrap();
        fixture.sim.host_reboot().unwrap();
        assert_eq!(
            fixture.ok("ipfstat -i"),
            "empty list for ipfilter(in)\n",
            "another policy reads no file"
        );
        assert_eq!(fixture.ok("svcprop -p restarter/state system/zones"), "online\n");
        assert!(
            fixture
                .no("svcprop -p config/x system/zones", 1)
                .contains("Couldn't find property")
        );
    }
}
