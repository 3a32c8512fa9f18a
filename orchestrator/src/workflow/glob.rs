//! GitHub's filter patterns for branches, tags and paths: translated to one regular expression
//! each. In a list the last pattern that matches decides.

use regex::Regex;

/// What a pattern is for: branches and tags have stricter rules than paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A branch or tag name.
    Ref,
    /// A path of the repository.
    Path,
}

/// The longest pattern: far beyond any real one, and small as a regular expression.
const MAX_PATTERN: usize = 1000;

/// Patterns of one list: each is a regular expression of its own.
pub(super) const MAX_PATTERNS: usize = 1000;

/// One pattern.
#[derive(Debug, Clone)]
pub struct Glob {
    negative: bool,
    regex: Regex,
}

/// A list of patterns, as a workflow file has it.
#[derive(Debug, Clone, Default)]
pub struct Globs(Vec<Glob>);

impl Globs {
    /// A list in the order of the file.
    #[must_use]
    pub fn new(globs: Vec<Glob>) -> Self {
        Self(globs)
    }

    /// Whether the last pattern that matches is a positive one.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0
            .iter()
            .rev()
            .find(|glob| glob.regex.is_match(name))
            .is_some_and(|glob| !glob.negative)
    }
}

impl Glob {
    /// Translates one pattern.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without its end.
    pub fn new(pattern: &str, subject: Subject) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("a pattern is at most {MAX_PATTERN} bytes long"));
        }
        let (negative, body) = match pattern.strip_prefix('!') {
            Some("") => return Err("at least one character must follow `!`".into()),
            Some(body) => (true, body),
            None => (false, pattern),
        };
        match subject {
            Subject::Ref => check_ref(body)?,
            Subject::Path => check_path(pattern, body)?,
        }
        let regex = Translator::new(body, subject).run()?;
        let regex = Regex::new(&regex).map_err(|_| "the pattern is too large".to_owned())?;
        Ok(Self { negative, regex })
    }
}

fn check_ref(body: &str) -> Result<(), String> {
    if body.is_empty() {
        return Err("a pattern cannot be empty".into());
    }
    if body.starts_with('/') {
        return Err("a branch or tag name does not begin with `/`".into());
    }
    if body.ends_with(['/', '.']) {
        return Err("a branch or tag name does not end with `/` or `.`".into());
    }
    Ok(())
}

fn check_path(pattern: &str, body: &str) -> Result<(), String> {
    if body.is_empty() {
        return Err("a pattern cannot be empty".into());
    }
    if pattern != pattern.trim() || body != body.trim() {
        return Err("a pattern for paths has no blanks at its ends".into());
    }
    if body == "." || body == ".." || body.starts_with("./") || body.starts_with("../") {
        return Err(
            "a pattern for paths does not begin with `.` or `..`: paths count from the repository's root".into(),
        );
    }
    Ok(())
}

struct Translator<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    subject: Subject,
    out: String,
    /// Whether the last item may carry `?` or `+`.
    repeatable: bool,
}

impl<'a> Translator<'a> {
    fn new(body: &'a str, subject: Subject) -> Self {
        Self {
            rest: body.chars().peekable(),
            subject,
            // Any character counts, also a newline: names are compared whole.
            out: String::from(r"(?s)\A"),
            repeatable: false,
        }
    }

    fn run(mut self) -> Result<String, String> {
        while let Some(c) = self.rest.next() {
            match c {
                '*' => self.star(),
                '?' | '+' if !self.repeatable => {
                    return Err(format!("`{c}` must follow a character that is not special itself"));
                }
                '?' | '+' => {
                    self.out.push(c);
                    self.repeatable = false;
                }
                '[' => self.class()?,
                '\\' => self.escape()?,
                '\r' | '\n' => return Err("a pattern cannot contain a line break".into()),
                ' ' | '\t' | '~' | '^' | ':' if self.subject == Subject::Ref => {
                    return Err(format!("a branch or tag name cannot contain {c:?}"));
                }
                c => self.literal(c),
            }
        }
        self.out.push_str(r"\z");
        Ok(self.out)
    }

    fn literal(&mut self, c: char) {
        self.out.push_str(&escaped(c));
        self.repeatable = true;
    }

    fn star(&mut self) {
        self.repeatable = false;
        if self.rest.peek() != Some(&'*') {
            self.out.push_str("[^/]*");
            return;
        }
        while self.rest.peek() == Some(&'*') {
            self.rest.next();
        }
        // `**/` also matches nothing, where a whole component stands.
        let whole = self.out.ends_with(r"\A") || self.out.ends_with('/');
        if whole && self.rest.peek() == Some(&'/') {
            self.rest.next();
            self.out.push_str("(?:.*/)?");
        } else {
            self.out.push_str(".*");
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        match self.rest.next() {
            Some(c @ ('[' | '?' | '*')) if self.subject == Subject::Ref => {
                Err(format!("a branch or tag name cannot contain `{c}`"))
            }
            Some(c @ ('[' | '?' | '*' | ']' | '+' | '\\' | '!')) => {
                self.literal(c);
                Ok(())
            }
            _ => Err(r"only `[`, `]`, `?`, `*`, `+`, `!` and `\` can be escaped with `\`".into()),
        }
    }

    fn class(&mut self) -> Result<(), String> {
        let mut members = 0;
        let mut class = String::from("[");
        loop {
            let Some(from) = self.rest.next() else {
                return Err("missing `]` after `[`".into());
            };
            if from == ']' {
                break;
            }
            let to = if self.rest.peek() == Some(&'-') {
                self.rest.next();
                members += 1;
                match self.rest.next() {
                    None => return Err("missing `]` after `[`".into()),
                    Some(']') => return Err("the range in `[…]` has no end".into()),
                    Some(to) => to,
                }
            } else {
                from
            };
            members += 1;
            if from.is_control() || to.is_control() {
                return Err("a pattern cannot contain control characters".into());
            }
            if from > to {
                return Err(format!(
                    "the range `{from}-{to}` in `[…]` is empty: its start comes after its end"
                ));
            }
            class.push_str(&escaped(from));
            class.push('-');
            class.push_str(&escaped(to));
        }
        match members {
            0 => return Err("`[]` matches nothing".into()),
            1 => return Err("`[…]` with a single character is useless: write the character".into()),
            _ => {}
        }
        class.push(']');
        self.out.push_str(&class);
        self.repeatable = true;
        Ok(())
    }
}

fn escaped(c: char) -> String {
    regex::escape(c.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::new(patterns.iter().map(|p| Glob::new(p, Subject::Ref).unwrap()).collect())
    }

    #[test]
    fn the_last_matching_pattern_decides() {
        let list = globs(&["releases/**", "!releases/**-alpha", "releases/keep-alpha"]);
        assert!(list.matches("releases/10"));
        assert!(!list.matches("releases/beta/3-alpha"));
        assert!(list.matches("releases/keep-alpha"));
        assert!(
            !globs(&["!main"]).matches("other"),
            "only negative patterns match nothing"
        );
    }

    #[test]
    fn stars_know_their_component() {
        assert!(globs(&["**/x"]).matches("x") && globs(&["**/x"]).matches("a/b/x"));
        assert!(!globs(&["**/x"]).matches("ax") && !globs(&["a**/x"]).matches("ax"));
        assert!(!globs(&["*"]).matches("a/b") && globs(&["**"]).matches("a/b"));
        assert!(globs(&["v[12]+.x?"]).matches("v121.") && !globs(&["v[12]+.x?"]).matches("v3.x"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_an_error(pattern in "\\PC{0,60}", name in "\\PC{0,30}") {
            for subject in [Subject::Ref, Subject::Path] {
                if let Ok(glob) = Glob::new(&pattern, subject) {
                    let _either = Globs::new(vec![glob]).matches(&name);
                }
            }
        }

        #[test]
        fn a_plain_name_matches_itself_alone(name in "[a-z0-9/]{0,20}[a-z0-9]", other in "[a-z0-9]{1,20}") {
            prop_assume!(!name.starts_with('/'));
            let list = globs(&[&name]);
            prop_assert!(list.matches(&name));
            prop_assert_eq!(list.matches(&other), name == other);
        }
    }
}
