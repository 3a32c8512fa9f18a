//! `zfs list` and `zfs get`.

use super::{name, open, props, read, usage};
use crate::{
    host::Host,
    out::{Options, Out, Ran},
    state::Kind,
};

/// The kinds that `-t` asks for; none when it was not given.
fn kinds(options: &Options, verb: &str) -> Result<Option<Vec<Kind>>, Out> {
    let Some(words) = options.value('t') else {
        return Ok(None);
    };
    let mut kinds = Vec::new();
    for word in words.split(',') {
        match word {
            "filesystem" | "fs" => kinds.push(Kind::Filesystem),
            "volume" | "vol" => kinds.push(Kind::Volume),
            "snapshot" | "snap" => kinds.push(Kind::Snapshot),
            "bookmark" => {}
            "all" => kinds.extend([Kind::Filesystem, Kind::Volume, Kind::Snapshot]),
            other => return Err(usage(verb, &format!("invalid type '{other}'"))),
        }
    }
    Ok(Some(kinds))
}

/// The datasets that a list or get is about, in order, and what could not be opened.
fn chosen(host: &Host, options: &Options, verb: &str) -> Result<(Vec<String>, String), Out> {
    let asked = kinds(options, verb)?;
    let depth = match options.value('d') {
        None if options.has('r') => usize::MAX,
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| usage(verb, &format!("'{text}' is not a valid depth")))?,
    };
    let shown = |kind: Kind, named: bool| match &asked {
        Some(kinds) => kinds.contains(&kind),
        None => kind != Kind::Snapshot || named || verb == "get",
    };
    let (mut names, mut errors) = (Vec::new(), String::new());
    if options.rest.is_empty() {
        let all = host
            .state
            .datasets
            .iter()
            .filter(|(_, dataset)| shown(dataset.kind, false));
        names.extend(all.map(|(name, dataset)| (name::key(name, dataset.guid), name.clone())));
    }
    for top in &options.rest {
        let top = top.trim_start_matches('/');
        let dataset = match open(host, top) {
            Ok(dataset) => dataset,
            Err(out) => {
                errors += &out.stderr;
                continue;
            }
        };
        let only_snapshots = asked.as_deref() == Some(&[Kind::Snapshot]) && dataset.kind != Kind::Snapshot;
        let depth = if only_snapshots { depth.max(1) } else { depth };
        if shown(dataset.kind, true) {
            names.push((name::key(top, dataset.guid), top.to_owned()));
        } else if depth == 0 {
            errors += &format!("cannot open '{top}': operation not applicable to datasets of this type\n");
        }
        for (other, dataset) in &host.state.datasets {
            let levels = other.get(top.len()..).unwrap_or_default().matches(['/', '@']).count();
            if name::is_below(other, top) && levels <= depth && shown(dataset.kind, false) {
                names.push((name::key(other, dataset.guid), other.clone()));
            }
        }
    }
    names.sort();
    names.dedup();
    Ok((names.into_iter().map(|(_, name)| name).collect(), errors))
}

fn print(rows: Vec<Vec<String>>, header: Option<Vec<String>>) -> String {
    let Some(header) = header else {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    };
    let widths: Vec<usize> = (0..header.len())
        .map(|at| rows.iter().chain([&header]).map(|row| row[at].len()).max().unwrap_or(0))
        .collect();
    [header].iter().chain(&rows).fold(String::new(), |mut text, row| {
        let line: String = row
            .iter()
            .zip(&widths)
            .map(|(value, width)| format!("{value:<width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

/// `zfs list`.
pub(super) fn list(host: &Host, args: &[String]) -> Ran {
    let options = read("list", args, "HS:d:o:prs:t:", 0, usize::MAX)?;
    let columns: Vec<&str> = options
        .value('o')
        .unwrap_or("name,used,avail,refer,mountpoint")
        .split(',')
        .collect();
    let sorted: Vec<(char, &str)> = ['s', 'S']
        .iter()
        .flat_map(|l| options.values(*l).into_iter().map(move |v| (*l, v)))
        .collect();
    for name in columns.iter().chain(sorted.iter().map(|(_, name)| name)) {
        if !props::exists(name) {
            return Err(usage("list", &format!("bad property list: invalid property '{name}'")));
        }
    }
    let exact = options.has('p');
    let (mut names, stderr) = chosen(host, &options, "list")?;
    let cell = |name: &str, property: &str, exact| {
        props::value(host, name, property, exact).map_or_else(|| "-".to_owned(), |(value, _)| value)
    };
    for (order, property) in sorted.iter().rev() {
        let key = |name: &String| {
            let text = cell(name, property, true);
            (text.parse::<u64>().ok(), text)
        };
        names.sort_by(|a, b| {
            if *order == 's' {
                key(a).cmp(&key(b))
            } else {
                key(b).cmp(&key(a))
            }
        });
    }
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| columns.iter().map(|property| cell(name, property, exact)).collect())
        .collect();
    let header = (!options.has('H') && !rows.is_empty()).then(|| columns.iter().map(|c| c.to_uppercase()).collect());
    let code = i32::from(!stderr.is_empty());
    let stderr = if rows.is_empty() && code == 0 {
        "no datasets available\n".into()
    } else {
        stderr
    };
    Ok(Out {
        stdout: print(rows, header),
        stderr,
        code,
    })
}

/// `zfs get`.
pub(super) fn get(host: &Host, args: &[String]) -> Ran {
    let mut options = read("get", args, "Hd:o:prs:t:", 1, usize::MAX)?;
    let wanted = options.rest.remove(0);
    let mut fields = Vec::new();
    for word in options.value('o').unwrap_or("name,property,value,source").split(',') {
        match word {
            "name" | "property" | "value" | "source" | "received" => fields.push(word),
            "all" => fields.extend(["name", "property", "value", "received", "source"]),
            other => return Err(usage("get", &format!("invalid column name '{other}'"))),
        }
    }
    let sources: Option<Vec<&str>> = options.value('s').map(|words| words.split(',').collect());
    let known = ["local", "default", "inherited", "received", "temporary", "none"];
    if let Some(bad) = sources.iter().flatten().find(|word| !known.contains(word)) {
        return Err(usage("get", &format!("invalid source '{bad}'")));
    }
    let all = wanted == "all";
    if let Some(bad) = wanted.split(',').find(|name| !all && !props::exists(name)) {
        return Err(usage("get", &format!("bad property list: invalid property '{bad}'")));
    }
    let (names, stderr) = chosen(host, &options, "get")?;
    let mut rows = Vec::new();
    for name in &names {
        let Some(dataset) = host.state.datasets.get(name) else {
            continue;
        };
        let properties: Vec<String> = if all {
            let users = props::users(host, name);
            props::natives(dataset.kind).map(str::to_owned).chain(users).collect()
        } else {
            wanted.split(',').map(str::to_owned).collect()
        };
        for property in properties {
            let found = props::value(host, name, &property, options.has('p'));
            let (value, source) = match found {
                None if all => continue,
                None => ("-".to_owned(), "-".to_owned()),
                Some(found) => found,
            };
            let class = match source.as_str() {
                "-" => "none",
                text if text.starts_with("inherited") => "inherited",
                text => text,
            };
            if sources.as_ref().is_some_and(|sources| !sources.contains(&class)) {
                continue;
            }
            let field = |field: &&str| match *field {
                "name" => name.clone(),
                "property" => property.clone(),
                "value" => value.clone(),
                "received" => "-".into(),
                _ => source.clone(),
            };
            rows.push(fields.iter().map(field).collect());
        }
    }
    let header = (!options.has('H')).then(|| fields.iter().map(|field| field.to_uppercase()).collect());
    let code = i32::from(!stderr.is_empty());
    Ok(Out {
        stdout: print(rows, header),
        stderr,
        code,
    })
}
