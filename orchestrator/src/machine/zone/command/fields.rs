//! Parsable output of dladm(8), ipadm(8) and zoneadm(8): fields with `:` between them, `:` and `\` inside
//! escaped by `\`. dladm escapes nothing when one field alone was asked for, so nobody here asks for one.

/// A line that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the line `{line}` has {found} fields where {wanted} were asked for")]
pub struct FieldError {
    line: String,
    found: usize,
    wanted: usize,
}

/// The fields of one line.
///
/// # Errors
/// When they are not as many as `wanted`.
pub fn fields(line: &str, wanted: usize) -> Result<Vec<String>, FieldError> {
    let found = split(line);
    if found.len() == wanted {
        return Ok(found);
    }
    Err(FieldError {
        line: line.chars().take(200).collect(),
        found: found.len(),
        wanted,
    })
}

/// Splits at every `:` that no `\` stands before.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let field = match c {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => chars.next().unwrap_or('\\'),
            c => c,
        };
        if let Some(last) = fields.last_mut() {
            last.push(field);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escaped_colons_belong_to_the_field() {
        assert_eq!(
            fields(r"hciv0:hcis0:2\:8\:20\:0\:2a\:2:0", 4).unwrap()[2],
            "2:8:20:0:2a:2"
        );
        assert_eq!(fields("::", 3).unwrap(), ["", "", ""]);
        assert_eq!(fields(r"a\\:b", 2).unwrap(), ["a\\", "b"]);
        assert!(fields("a:b", 3).unwrap_err().to_string().contains("2 fields where 3"));
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(values in prop::collection::vec("\\PC{0,12}", 1..6)) {
            let escaped: Vec<String> = values.iter().map(|v| v.replace('\\', "\\\\").replace(':', "\\:")).collect();
            prop_assert_eq!(split(&escaped.join(":")), values);
        }
    }
}
