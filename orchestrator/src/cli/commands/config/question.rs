//! Questions on a terminal, or their answers from options and defaults: prompts go to standard error, answers come from
//! standard input, line by line. A secret is not shown while it is typed.

use std::{
    fmt::Display,
    io::{self, BufRead, Read as _},
};

use miette::{IntoDiagnostic as _, miette};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::secret::Secret;

/// No answer is longer, keys included.
const MAX_BYTES: u64 = 64 << 10;

/// One question.
pub(super) struct Question<'a, T> {
    /// The option that answers it, as `--url`.
    pub option: &'a str,
    /// What a person reads.
    pub text: &'a str,
    /// The option's value.
    pub given: Option<T>,
    /// The answer when nothing is typed, and with `--yes`.
    pub default: Option<T>,
}

/// Who asks.
pub(super) struct Questions<R> {
    /// `--yes`: defaults are taken and nothing is asked.
    pub yes: bool,
    /// Where answers are typed.
    pub input: R,
    /// Whether that is a terminal, whose echo can be turned off.
    pub terminal: bool,
}

impl<R: BufRead> Questions<R> {
    /// Asks until there is an answer; `parse` says what is wrong with one.
    pub(super) fn ask<T: Display>(
        &mut self,
        question: Question<'_, T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> miette::Result<T> {
        let Question {
            option,
            text,
            given,
            default,
        } = question;
        if let Some(given) = given {
            return Ok(given);
        }
        if self.yes {
            return default.ok_or_else(|| missing(option, text));
        }
        loop {
            match &default {
                Some(default) => eprint!("{text} [{default}]: "),
                None => eprint!("{text}: "),
            }
            let line = self.line()?.ok_or_else(|| missing(option, text))?;
            match (line.trim(), default.is_some()) {
                ("", true) => return default.ok_or_else(|| missing(option, text)),
                ("", false) => eprintln!("There is no default. Ctrl-C leaves; nothing has been written."),
                (text, _) => match parse(text) {
                    Ok(answer) => return Ok(answer),
                    Err(wrong) => eprintln!("{wrong}"),
                },
            }
        }
    }

    /// A secret of one line, which is never an option's value: other processes can read a command line.
    pub(super) fn secret(&mut self, option: &str, text: &str) -> miette::Result<Secret> {
        if self.yes {
            return Err(missing(option, text));
        }
        loop {
            let line = {
                // Before the prompt: whoever sees it may type.
                let _hidden = self.terminal.then(NoEcho::begin).transpose().into_diagnostic()?;
                eprint!("{text}: ");
                self.line()?
            };
            if self.terminal {
                eprintln!();
            }
            match line.as_deref().map(str::trim) {
                None => return Err(missing(option, text)),
                Some("") => eprintln!("It is needed. Ctrl-C leaves; nothing has been written."),
                Some(secret) => return Ok(Secret::new(secret)),
            }
        }
    }

    /// Everything that standard input holds.
    pub(super) fn rest(&mut self) -> miette::Result<Secret> {
        let mut text = String::new();
        self.input
            .by_ref()
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(|e| miette!("cannot read standard input: {e}"))?;
        Ok(Secret::new(text))
    }

    /// The next line; none at the end.
    fn line(&mut self) -> miette::Result<Option<String>> {
        let mut line = String::new();
        let read = self.input.by_ref().take(MAX_BYTES).read_line(&mut line);
        match read.map_err(|e| miette!("cannot read the answer: {e}"))? {
            0 => Ok(None),
            _ => Ok(Some(line)),
        }
    }
}

fn missing(option: &str, text: &str) -> miette::Report {
    miette!(
        help = format!("answer it with {option}; without --yes it is asked for"),
        "no answer to: {text} ({option})"
    )
}

/// A terminal that shows nothing of what is typed. Dropping it gives the terminal back as it was.
struct NoEcho(Termios);

impl NoEcho {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _the_terminal_may_be_gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(yes: bool, typed: &str, given: Option<u32>, default: Option<u32>) -> miette::Result<u32> {
        let mut questions = Questions {
            yes,
            input: typed.as_bytes(),
            terminal: false,
        };
        let question = Question {
            option: "--number",
            text: "Number",
            given,
            default,
        };
        questions.ask(question, |text| {
            text.parse().map_err(|_| format!("{text} is no number"))
        })
    }

    #[test]
    fn an_option_answers_then_what_is_typed_then_the_default() {
        assert_eq!(asked(false, "2\n", Some(1), Some(3)).unwrap(), 1);
        assert_eq!(asked(false, "2\n", None, Some(3)).unwrap(), 2);
        assert_eq!(asked(false, "\n", None, Some(3)).unwrap(), 3);
        assert_eq!(asked(false, "two\n\nmany\n 2 \n", None, None).unwrap(), 2);
        assert_eq!(asked(true, "2\n", None, Some(3)).unwrap(), 3, "nothing is asked");
    }

    proptest! {
        #[test]
        fn what_has_no_answer_names_its_option(yes in any::<bool>(), typed in "([a-z]{0,5}\n){0,4}") {
            let refused = asked(yes, &typed, None, None).unwrap_err();
            prop_assert!(refused.to_string().contains("--number"), "{}", refused);
        }
    }

    #[test]
    fn a_secret_is_one_line_and_nobody_invents_one() {
        let mut questions = Questions {
            yes: false,
            input: "\n  t0ken \nrest\n".as_bytes(),
            terminal: false,
        };
        let secret = questions.secret("--token-file", "Token").unwrap();
        assert_eq!(secret.expose(), "t0ken");
        assert_eq!(questions.rest().unwrap().expose(), "rest\n");
        assert!(
            questions.secret("--token-file", "Token").is_err(),
            "at the end of the input"
        );
    }
}
