//! `show-link`, `show-vnic`, `show-etherstub`.

use super::{no, read, unpadded};
use crate::{
    host::Host,
    out::{Options, Out, Ran},
    state::{Link, LinkClass},
    table::{self, Row},
};

/// Prints rows with `-p` and `-o`.
pub(super) fn print(options: &Options, parsable: bool, known: &[&'static str], rows: &[Row]) -> Ran {
    let fields = options.value('o');
    if parsable && fields.is_none() {
        return Err(no("output field list (-o) required in parsable output mode"));
    }
    if parsable && fields == Some("all") {
        return Err(no("\"-o all\" is invalid in parsable output mode"));
    }
    match table::print(rows, known, fields, parsable) {
        Ok(text) => Ok(Out::text(text)),
        Err(field) => Err(no(format!("unknown output field '{field}'"))),
    }
}

/// The links to show: the one named, or all of a class.
fn chosen<'a>(
    host: &'a Host,
    options: &Options,
    class: Option<LinkClass>,
    missing: impl Fn(&str) -> Out,
) -> Result<Vec<(&'a String, &'a Link)>, Out> {
    let fits = |link: &Link| class.is_none_or(|class| link.class == class);
    match options.rest.first() {
        Some(name) => match host.state.links.get_key_value(*name).filter(|(_, link)| fits(link)) {
            Some(found) => Ok(vec![found]),
            None => Err(missing(name)),
        },
        None => {
            let over = options.value('l');
            let on = |link: &Link| over.is_none_or(|over| link.over.as_deref() == Some(over));
            Ok(host
                .state
                .links
                .iter()
                .filter(|(_, link)| fits(link) && on(link))
                .collect())
        }
    }
}

pub(super) fn link(host: &Host, args: &[String]) -> Ran {
    let options = read(args, "pPo:Z", 0, 1)?;
    let known = ["link", "class", "mtu", "state", "bridge", "over"];
    let links = chosen(host, &options, None, |name| {
        no(format!("link {name} is not valid: object not found"))
    })?;
    let dash = || "--".to_owned();
    let rows: Vec<Row> = links
        .into_iter()
        .map(|(name, link)| {
            let state = if link.class == LinkClass::Etherstub {
                "unknown"
            } else {
                "up"
            };
            vec![
                ("link", name.clone()),
                ("class", link.class.as_str().into()),
                ("mtu", host.mtu(name).to_string()),
                ("state", state.into()),
                ("bridge", dash()),
                ("over", link.over.clone().unwrap_or_else(dash)),
            ]
        })
        .collect();
    print(&options, options.has('p'), &known, &rows)
}

pub(super) fn vnic(host: &Host, args: &[String]) -> Ran {
    let options = read(args, "pPo:l:Z", 0, 1)?;
    let known = ["link", "over", "speed", "macaddress", "macaddrtype", "vid"];
    let missing = |name: &str| no(format!("invalid vnic name '{name}': object not found"));
    let rows: Vec<Row> = chosen(host, &options, Some(LinkClass::Vnic), missing)?
        .into_iter()
        .map(|(name, link)| {
            vec![
                ("link", name.clone()),
                ("over", link.over.clone().unwrap_or_default()),
                ("speed", "0".into()),
                ("macaddress", unpadded(&link.mac)),
                ("macaddrtype", "fixed".into()),
                ("vid", link.vid.to_string()),
            ]
        })
        .collect();
    print(&options, options.has('p'), &known, &rows)
}

pub(super) fn etherstub(host: &Host, args: &[String]) -> Ran {
    let options = read(args, "pPo:Z", 0, 1)?;
    // The text says vnic for etherstubs too.
    let missing = |name: &str| no(format!("invalid vnic name '{name}': object not found"));
    let rows: Vec<Row> = chosen(host, &options, Some(LinkClass::Etherstub), missing)?
        .into_iter()
        .map(|(name, _)| vec![("link", name.clone())])
        .collect();
    print(&options, options.has('p'), &["link"], &rows)
}
