//! `/usr/lib/brand/bhyve/boot`, as far as a person may run it: its dry run.

use crate::{
    boot::brand,
    host::Host,
    out::{Out, Ran, options},
    zonecfg,
};

/// `boot -t NAME` prints the command line of bhyve. `-j` and `-x` are refused.
///
/// # Errors
/// Usage, no such zone, and what the hook refuses.
pub fn boot(host: &Host, args: &[String]) -> Ran {
    let usage = |text: &str| Out::usage(format!("boot: {text}\nusage: boot [-jt] [-x FILE] NAME"));
    let options = options(args, "t").map_err(|text| usage(&text))?;
    let ([name], true) = (options.rest.as_slice(), options.has('t')) else {
        return Err(usage("only `-t NAME` is simulated"));
    };
    let broken = |error: std::io::Error| Out::error(format!("/etc/zones/{name}.xml: {error}"));
    let Some(config) = zonecfg::load(host, name).map_err(broken)? else {
        return Err(Out::error(format!(
            "[Errno 2] No such file or directory: '/etc/zones/{name}.xml'"
        )));
    };
    let machine = brand::machine(host, &config).map_err(Out::error)?;
    Ok(Out::text(machine.argv().join(" ") + "\n"))
}
