//! `zonename`, `uname`, `fuser`, `dispadmin`.

use crate::{
    host::Host,
    out::{Out, Ran, options},
    volume,
};

/// zonename(1).
///
/// # Errors
/// Usage.
pub fn zonename(args: &[String]) -> Ran {
    match options(args, "") {
        Ok(options) if options.rest.is_empty() => Ok(Out::text("global\n")),
        _ => Err(Out::usage("usage: zonename")),
    }
}

/// uname(1).
///
/// # Errors
/// Usage.
pub fn uname(host: &Host, args: &[String]) -> Ran {
    let usage = || Out::usage("usage: uname [-aimnoprsvX]");
    let options = options(args, "aimnoprsv").map_err(|_| usage())?;
    if !options.rest.is_empty() {
        return Err(usage());
    }
    let all = options.has('a');
    let words = [
        ('s', "SunOS"),
        ('n', host.state.hostname.as_str()),
        ('r', "5.11"),
        ('v', host.state.version.as_str()),
        ('m', "i86pc"),
        ('p', "i386"),
        ('i', "i86pc"),
        ('o', "illumos"),
    ];
    let chosen: Vec<&str> = words
        .iter()
        .filter(|(letter, _)| options.has(*letter) || all && *letter != 'o' || args.is_empty() && *letter == 's')
        .map(|(_, word)| *word)
        .collect();
    Ok(Out::text(chosen.join(" ") + "\n"))
}

/// fuser(8): the zones' bhyves that have a volume open, by a made-up process id.
///
/// # Errors
/// Usage.
pub fn fuser(host: &Host, args: &[String]) -> Ran {
    let options =
        options(args, "cfnu").map_err(|text| Out::usage(format!("fuser: {text}\nUsage: fuser [-cfnu] files")))?;
    let mut out = Out::silent();
    for file in &options.rest {
        let name = file
            .trim_start_matches("/dev/zvol/rdsk/")
            .trim_start_matches("/dev/zvol/dsk/");
        out.stderr += &format!("{file}: ");
        for zone in host
            .state
            .zones
            .values()
            .filter(|zone| zone.guest && zone.volumes.iter().any(|v| v == name))
        {
            out.stdout += &format!(" {}", 10_000 + zone.id);
        }
        if volume::open_elsewhere(&volume::node(host, name)) {
            out.stdout += " 1";
        }
        out.stderr += "\n";
    }
    out.stdout += "\n";
    Ok(out)
}

/// Where the default scheduling class is kept (usr/src/cmd/dispadmin in illumos).
const CLASS: &str = "/etc/dispadmin.conf";

/// dispadmin(8), of which `-d` only: the default scheduling class, shown or set.
///
/// # Errors
/// Usage, an unknown class, none that was ever set.
pub fn dispadmin(host: &Host, args: &[String]) -> Ran {
    let name = "/usr/sbin/dispadmin";
    let classes = [
        ("FSS", "Fair Share"),
        ("TS", "Time Sharing"),
        ("IA", "Interactive"),
        ("FX", "Fixed Priority"),
    ];
    let known = |class: &str| classes.iter().find(|(known, _)| *known == class);
    let path = host.path(CLASS);
    match args {
        [flag] if flag == "-d" => {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let set = text.lines().find_map(|line| line.strip_prefix("DEFAULT_SCHEDULER="));
            match set.and_then(known) {
                Some((class, words)) => Ok(Out::text(format!("{class}\t({words})\n"))),
                None => Err(Out::error(format!("{name}: Default scheduling class is not set"))),
            }
        }
        [flag, class] if flag == "-d" => {
            if known(class).is_none() {
                return Err(Out::error(format!("{name}: Invalid or unconfigured class {class}")));
            }
            let written = crate::files::replace(&path, format!("#\nDEFAULT_SCHEDULER={class}\n").as_bytes());
            written.map_err(|error| Out::error(format!("{name}: Failed to open {CLASS} ({error})")))?;
            Ok(Out::silent())
        }
        _ => Err(Out::error("usage: dispadmin -d [class]")),
    }
}

#[cfg(test)]
mod tests {
    use crate::program::testing::TestHost;

    #[test]
    fn the_host_says_what_it_is() {
        let fixture = TestHost::new();
        assert_eq!(fixture.ok("zonename"), "global\n");
        assert_eq!(fixture.ok("uname -v"), "omnios-r151054-sim\n");
        assert_eq!(fixture.ok("uname -sr"), "SunOS 5.11\n");
        fixture.no("uname -Z", 2);
        assert_eq!(fixture.said("nonsense").code, 127);
    }

    #[test]
    fn the_default_class_is_what_was_set() {
        let fixture = TestHost::new();
        fixture.no("dispadmin -d", 1);
        fixture.no("dispadmin -d XY", 1);
        fixture.ok("dispadmin -d FSS");
        assert_eq!(fixture.ok("dispadmin -d"), "FSS\t(Fair Share)\n");
        fixture.no("dispadmin -l", 1);
    }
}
