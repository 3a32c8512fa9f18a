//! `/etc/zones/index`, read and never written: a zone whose configuration is gone stands in no list, and only
//! here.

use std::{fs, io};

use crate::model::names::MachineName;

const INDEX: &str = "/etc/zones/index";

/// The zonepath of a zone that has a line there.
pub(in crate::machine::zone) fn zonepath(name: &MachineName) -> io::Result<Option<String>> {
    match fs::read_to_string(INDEX) {
        Ok(text) => Ok(find(&text, name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `name:state:zonepath:uuid`; no zonepath of ours has a `:`, so one that is quoted for its sake is another's.
fn find(text: &str, name: &MachineName) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let named = fields.next() == Some(name.as_str());
        fields.nth(1).filter(|_| named).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_zone_is_found_by_its_whole_name() {
        let name: MachineName = "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap();
        let text = format!(
            "# DO NOT EDIT\nglobal:installed:/\n{name}x:installed:/no:u\n{name}\n{name}:configured:/zones/hci/{name}:\n"
        );
        assert_eq!(find(&text, &name).unwrap(), format!("/zones/hci/{name}"));
        assert_eq!(find("global:installed:/\n", &name), None);
        assert_eq!(find("", &name), None);
    }
}
