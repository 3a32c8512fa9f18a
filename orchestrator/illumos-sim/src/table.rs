//! The parsable tables of dladm(8) and ipadm(8): colons between the fields, and a backslash before a
//! colon or backslash inside one, but only when there is more than one field.

use std::fmt::Write as _;

/// One row: field names with their values.
pub type Row = Vec<(&'static str, String)>;

/// Prints rows. `fields` are the names asked for, separated by commas, in any case.
///
/// # Errors
/// The name that no row could have.
pub fn print(rows: &[Row], known: &[&'static str], fields: Option<&str>, parsable: bool) -> Result<String, String> {
    let names: Vec<&str> = match fields.map(str::to_ascii_lowercase) {
        None => known.to_vec(),
        Some(all) if all == "all" => known.to_vec(),
        Some(list) => {
            let mut names = Vec::new();
            for word in list.split(',') {
                names.push(
                    *known
                        .iter()
                        .find(|name| **name == word)
                        .ok_or_else(|| word.to_owned())?,
                );
            }
            names
        }
    };
    let mut text = String::new();
    if !parsable {
        text = names
            .iter()
            .map(|name| format!("{:<16}", name.to_uppercase()))
            .collect::<String>();
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for row in rows {
        let values = names
            .iter()
            .map(|name| row.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v));
        let line = if !parsable {
            values
                .map(|value| format!("{:<16}", if value.is_empty() { "--" } else { value }))
                .collect::<String>()
        } else if names.len() == 1 {
            values.collect()
        } else {
            values.map(escape).collect::<Vec<_>>().join(":")
        };
        let _ = writeln!(text, "{}", if parsable { &line } else { line.trim_end() });
    }
    Ok(text)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_is_not_escaped() {
        let rows = [vec![
            ("link", "hciv7".to_owned()),
            ("macaddress", "2:8:20:0:2a:2".to_owned()),
        ]];
        let known = ["link", "macaddress"];
        assert_eq!(
            print(&rows, &known, Some("LINK,macaddress"), true).unwrap(),
            "hciv7:2\\:8\\:20\\:0\\:2a\\:2\n"
        );
        assert_eq!(
            print(&rows, &known, Some("macaddress"), true).unwrap(),
            "2:8:20:0:2a:2\n"
        );
        assert_eq!(print(&rows, &known, Some("nothing"), true).unwrap_err(), "nothing");
    }
}
