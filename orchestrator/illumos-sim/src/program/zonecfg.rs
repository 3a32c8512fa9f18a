//! zonecfg(8): the command line; the language is in [`crate::zonecfg`].

use crate::{
    host::Host,
    out::{Out, Ran},
    zonecfg::{
        is_zone_name,
        keywords::{USAGE, ZONE_NAMES},
        session::{self, Source},
    },
};

/// Runs zonecfg.
///
/// # Errors
/// Usage, and what the commands refuse.
pub fn run(host: &mut Host, args: &[String]) -> Ran {
    let usage = |text: &str| Out::usage(format!("zonecfg: {text}\n{}", USAGE.trim_end()));
    let options = crate::out::options(args, "z:f:R:r").map_err(|text| usage(&text))?;
    if options.has('R') || options.has('r') {
        return Err(usage("-R and -r are not simulated"));
    }
    let Some(name) = options.value('z') else {
        return Err(usage("-z is needed"));
    };
    if !is_zone_name(name) && name != "global" {
        return Err(Out::usage(format!(
            "{name}: Bogus zone name\n{}",
            ZONE_NAMES.trim_end()
        )));
    }
    let (text, source) = match (options.value('f'), options.rest.as_slice()) {
        (Some("-"), []) | (None, []) => (
            std::io::read_to_string(std::io::stdin()).map_err(|error| usage(&error.to_string()))?,
            Source::Input,
        ),
        (Some(file), []) => {
            let path = host.given(file);
            if !path.is_file() {
                return Err(Out::error(format!("could not open file: {file}")));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| Out::error(format!("{file}: {error}")))?;
            (text, Source::File(file.to_owned()))
        }
        (None, words) => (words.join(" ") + "\n", Source::Words),
        (Some(_), _) => return Err(usage("a file and commands at once")),
    };
    session::run(host, name, &text, &source)
}
