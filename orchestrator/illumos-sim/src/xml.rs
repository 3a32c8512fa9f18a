//! Just enough of XML to tell a document from something else, and to read one without its text.

use std::collections::BTreeMap;

/// One element with the elements inside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
    /// The elements directly inside it.
    pub children: Vec<Self>,
}

impl Element {
    /// An attribute; empty when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The elements of this name directly inside it.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// The root element of a document; what the text between elements says is not kept.
///
/// # Errors
/// What is wrong with the document.
pub fn parse(text: &str) -> Result<Element, String> {
    // The last is open, and inside the one before it; the first holds the root.
    let mut open = vec![Element::default()];
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        between(&rest[..at], open.len() > 1)?;
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = after(comment, "-->")?;
        } else if let Some(instruction) = rest.strip_prefix('?') {
            rest = after(instruction, "?>")?;
        } else if let Some(declaration) = rest.strip_prefix("!DOCTYPE") {
            rest = after(declaration, ">")?;
        } else if let Some(end) = rest.strip_prefix('/') {
            let (name, tail) = end.split_once('>').ok_or("a tag without its end")?;
            let closed = open
                .pop()
                .filter(|_| !open.is_empty())
                .ok_or("an end without a beginning")?;
            if closed.name != name.trim_end() {
                return Err(format!("<{}> ends as </{name}>", closed.name));
            }
            push(&mut open, closed);
            rest = tail;
        } else {
            let (element, whole, tail) = tag(rest)?;
            rest = tail;
            if whole {
                push(&mut open, element);
            } else {
                open.push(element);
            }
        }
    }
    between(rest, false)?;
    match open.as_mut_slice() {
        [document] if document.children.len() == 1 => document.children.pop().ok_or_else(String::new),
        [document] => Err(format!("{} root elements", document.children.len())),
        [.., unfinished] => Err(format!("<{}> has no end", unfinished.name)),
        [] => Err("nothing".into()),
    }
}

fn push(open: &mut [Element], element: Element) {
    if let Some(parent) = open.last_mut() {
        parent.children.push(element);
    }
}

fn after<'a>(text: &'a str, mark: &str) -> Result<&'a str, String> {
    text.split_once(mark)
        .map(|(_, tail)| tail)
        .ok_or_else(|| format!("`{mark}` is missing"))
}

fn between(text: &str, inside: bool) -> Result<(), String> {
    if !inside && !text.trim().is_empty() {
        return Err("text outside the root element".into());
    }
    decoded(text).map(drop)
}

/// A beginning, without its `<`; whether it is the whole element; what follows.
fn tag(text: &str) -> Result<(Element, bool, &str), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    let (name, mut rest) = text.split_at(text.find(|c| !plain(c)).unwrap_or(text.len()));
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err("`<` before what is no name".into());
    }
    let mut element = Element {
        name: name.to_owned(),
        ..Element::default()
    };
    loop {
        let trimmed = rest.trim_start();
        if let Some(tail) = trimmed.strip_prefix("/>") {
            return Ok((element, true, tail));
        }
        if let Some(tail) = trimmed.strip_prefix('>') {
            return Ok((element, false, tail));
        }
        let wrong = || format!("<{name}> has an attribute that is none");
        let (key, value) = trimmed.split_once('=').ok_or_else(wrong)?;
        let (key, value) = (key.trim_end(), value.trim_start());
        let quote = value
            .chars()
            .next()
            .filter(|c| ['"', '\''].contains(c))
            .ok_or_else(wrong)?;
        let (value, tail) = value[1..].split_once(quote).ok_or_else(wrong)?;
        let spaced = trimmed.len() < rest.len();
        if key.is_empty() || !key.chars().all(plain) || value.contains('<') || !spaced {
            return Err(wrong());
        }
        if element.attributes.insert(key.to_owned(), decoded(value)?).is_some() {
            return Err(format!("<{name}> has {key} twice"));
        }
        rest = tail;
    }
}

/// A text with its entities replaced.
fn decoded(text: &str) -> Result<String, String> {
    let mut parts = text.split('&');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let known = [
            ("amp;", '&'),
            ("lt;", '<'),
            ("gt;", '>'),
            ("quot;", '"'),
            ("apos;", '\''),
        ];
        let found = known.iter().find_map(|(name, c)| Some((c, part.strip_prefix(name)?)));
        let (c, tail) = found.ok_or("`&` before what is no entity")?;
        whole.push(*c);
        whole += tail;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_and_half_of_one_is_not() {
        let text = "<?xml version='1.0'?>\n<!DOCTYPE a SYSTEM \"x\">\n<!-- <b> -->\n<a one=\"1 &amp; 2\">\n text <b two = 'x'/><b/></a>\n";
        let root = parse(text).unwrap();
        assert_eq!(
            (root.name.as_str(), root.get("one"), root.get("none")),
            ("a", "1 & 2", "")
        );
        assert_eq!(root.of("b").map(|b| b.get("two")).collect::<Vec<_>>(), ["x", ""]);
        for bad in [
            "",
            "text",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><a/>",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            "<a x='1'y='2'/>",
            "<a x='<'/>",
            "<a>&</a>",
            "<a>&none;</a>",
            "<a/>more",
            "<!-- <a/>",
            "<a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
