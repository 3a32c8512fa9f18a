//! What one run of a program says, and how options are read.

/// Standard output, standard error and exit code of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Out {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

/// `Ok` is what the program ends with when nothing stopped it on the way; both are exits.
pub type Ran = Result<Out, Out>;

impl Out {
    /// Exit 0 without a word.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// Exit 0 with this output.
    #[must_use]
    pub fn text(stdout: impl Into<String>) -> Self {
        Self {
            stdout: stdout.into(),
            ..Self::default()
        }
    }

    /// Exit 1 with this line on standard error.
    #[must_use]
    pub fn error(line: impl std::fmt::Display) -> Self {
        Self {
            stderr: format!("{line}\n"),
            code: 1,
            ..Self::default()
        }
    }

    /// Exit 2 with this line on standard error.
    #[must_use]
    pub fn usage(line: impl std::fmt::Display) -> Self {
        Self {
            code: 2,
            ..Self::error(line)
        }
    }

    /// The same, with another exit code.
    #[must_use]
    pub fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }
}

/// Options and operands as getopt(3C) reads them: options come first, `--` ends them.
#[derive(Debug)]
pub struct Options<'a> {
    given: Vec<(char, Option<&'a str>)>,
    pub rest: Vec<&'a str>,
}

/// Reads options; `spec` is getopt's (`a:` takes an argument).
///
/// # Errors
/// The sentence getopt's callers print: an unknown option, or one without its argument.
pub fn options<'a>(args: &'a [String], spec: &str) -> Result<Options<'a>, String> {
    let mut given = Vec::new();
    let mut args = args.iter().map(String::as_str);
    let mut rest = Vec::new();
    'words: while let Some(word) = args.next() {
        if word == "--" {
            break;
        }
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            rest.push(word);
            break;
        };
        for (at, letter) in letters.char_indices() {
            let Some(place) = spec.find(letter).filter(|_| letter != ':') else {
                return Err(format!("invalid option '{letter}'"));
            };
            if spec[place + letter.len_utf8()..].starts_with(':') {
                let tail = &letters[at + letter.len_utf8()..];
                let value = if tail.is_empty() { args.next() } else { Some(tail) };
                match value {
                    Some(value) => given.push((letter, Some(value))),
                    None => return Err(format!("missing argument for '{letter}' option")),
                }
                continue 'words;
            }
            given.push((letter, None));
        }
    }
    rest.extend(args);
    Ok(Options { given, rest })
}

impl<'a> Options<'a> {
    /// Whether the option was given.
    #[must_use]
    pub fn has(&self, letter: char) -> bool {
        self.given.iter().any(|(l, _)| *l == letter)
    }

    /// The last argument given with this option.
    #[must_use]
    pub fn value(&self, letter: char) -> Option<&'a str> {
        self.values(letter).last().copied()
    }

    /// All arguments given with this option.
    #[must_use]
    pub fn values(&self, letter: char) -> Vec<&'a str> {
        self.given
            .iter()
            .filter(|(l, _)| *l == letter)
            .filter_map(|(_, v)| *v)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_getopts() {
        let args = words("-Hpo name -t volume pool -r");
        let read = options(&args, "Hpo:t:r").unwrap();
        assert!(read.has('H') && read.has('p') && !read.has('r'));
        assert_eq!(read.values('o'), ["name"]);
        assert_eq!(read.rest, ["pool", "-r"]);
        assert_eq!(options(&words("-x"), "H").unwrap_err(), "invalid option 'x'");
        assert_eq!(
            options(&words("-o"), "o:").unwrap_err(),
            "missing argument for 'o' option"
        );
        assert_eq!(
            options(&words("-oname,type"), "o:").unwrap().value('o'),
            Some("name,type")
        );
        assert_eq!(options(&words("-- -o"), "o:").unwrap().rest, ["-o"]);
    }
}
