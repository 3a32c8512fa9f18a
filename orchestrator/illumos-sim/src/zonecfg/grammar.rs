//! zonecfg's grammar, one command at a time. The parser looks one lexeme ahead where the original's tables do,
//! because the line that an error names is the line of what was read, not of what was wrong.

use super::{
    keywords::{Verb, is_global},
    lexer::{Lexed, Lexeme, Lexer},
};

/// Parts of a value in parentheses, in their order.
pub type Parts = Vec<(&'static str, String)>;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    Simple(String),
    /// `(a=b,c=d)`.
    Complex(Parts),
    /// `[a,b]`.
    List(Vec<Given>),
}

/// Properties with their values, which tell one resource from others.
pub type Pairs = Vec<(&'static str, Given)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A verb with words that it reads as options.
    Plain(Verb, Vec<String>),
    /// `add KIND`.
    Add(&'static str),
    /// `add PROPERTY VALUE`.
    AddValue(&'static str, Given),
    /// `set PROPERTY=VALUE`; the word is what may stand before `zonepath`.
    Set(Option<String>, &'static str, Given),
    /// `clear PROPERTY`.
    Clear(&'static str),
    /// `select KIND PROPERTY=VALUE ...`.
    Select(&'static str, Pairs),
    /// `remove [WORD] KIND [PROPERTY=VALUE ...]`.
    Remove(Option<String>, &'static str, Pairs),
    /// `remove PROPERTY VALUE`.
    RemoveValue(&'static str, Given),
    /// `info [KIND or PROPERTY [PROPERTY=VALUE ...]]`.
    Info(Option<&'static str>, Pairs),
}

/// What one parse came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A command to be run.
    Run(Command),
    Empty,
    /// What was read does not fit; its text.
    Unexpected(String),
    /// A verb lacks what it needs.
    Usage(Verb),
    /// The input is over. A command that no newline ends was not one.
    End,
}

enum Wrong {
    Unexpected,
    Usage(Verb),
}

type Parsed<T> = Result<T, Wrong>;

/// Reads commands from a text.
#[derive(Debug)]
pub struct Parser<'t> {
    lexer: Lexer<'t>,
    ahead: Option<Lexed>,
}

impl<'t> Parser<'t> {
    /// At the beginning of a text.
    #[must_use]
    pub fn new(text: &'t str, lacks: Option<&'t str>) -> Self {
        Self {
            lexer: Lexer::new(text, lacks),
            ahead: None,
        }
    }

    /// The line that was read up to, from 1: after a command, the next.
    #[must_use]
    pub fn line(&self) -> usize {
        self.lexer.line
    }

    fn peek(&mut self) -> &Lexeme {
        let lexer = &mut self.lexer;
        &self.ahead.get_or_insert_with(|| lexer.lex()).lexeme
    }

    fn advance(&mut self) -> Lexed {
        self.ahead.take().unwrap_or_else(|| self.lexer.lex())
    }

    fn at_end_of_command(&mut self) -> bool {
        matches!(self.peek(), Lexeme::Newline | Lexeme::Semicolon)
    }

    /// The next command. After an error the rest of its command is passed over.
    pub fn step(&mut self) -> Step {
        let parsed = match *self.peek() {
            Lexeme::End => return Step::End,
            Lexeme::Newline | Lexeme::Semicolon => {
                self.advance();
                return Step::Empty;
            }
            Lexeme::Verb(verb) => {
                self.advance();
                self.command(verb)
            }
            _ => Err(Wrong::Unexpected),
        };
        match parsed {
            Ok(command) if self.at_end_of_command() => {
                self.advance();
                Step::Run(command)
            }
            Err(Wrong::Usage(verb)) => Step::Usage(verb),
            Ok(_) | Err(Wrong::Unexpected) => match self.advance() {
                lexed if lexed.lexeme == Lexeme::End => Step::End,
                lexed => {
                    let text = lexed.text.replace('\n', "\\n");
                    self.ahead = Some(lexed);
                    Step::Unexpected(text)
                }
            },
        }
    }

    /// Passes over what is left of a command that is wrong.
    pub fn skip(&mut self) {
        while !self.at_end_of_command() {
            if self.advance().lexeme == Lexeme::End {
                return;
            }
        }
        self.advance();
    }

    fn token(&mut self) -> Option<String> {
        let Lexeme::Token(text) = self.peek() else { return None };
        let text = text.clone();
        self.advance();
        Some(text)
    }

    fn property(&mut self) -> Option<&'static str> {
        let Lexeme::Property(name) = *self.peek() else {
            return None;
        };
        self.advance();
        Some(name)
    }

    fn resource(&mut self) -> Option<&'static str> {
        let Lexeme::Resource(name) = *self.peek() else {
            return None;
        };
        self.advance();
        Some(name)
    }

    fn is(&mut self, sign: char) -> bool {
        let is = *self.peek() == Lexeme::Sign(sign);
        if is {
            self.advance();
        }
        is
    }

    fn expect(&mut self, sign: char) -> Parsed<()> {
        if self.is(sign) { Ok(()) } else { Err(Wrong::Unexpected) }
    }

    /// A word as a value: keywords are words here.
    fn simple(&mut self) -> Parsed<String> {
        let text = match self.peek() {
            Lexeme::Token(text) => text.clone(),
            Lexeme::Resource(word) | Lexeme::Property(word) => (*word).to_owned(),
            _ => return Err(Wrong::Unexpected),
        };
        self.advance();
        Ok(text)
    }

    fn complex(&mut self) -> Parsed<Given> {
        let mut parts = Vec::new();
        loop {
            let name = self.property().ok_or(Wrong::Unexpected)?;
            self.expect('=')?;
            parts.push((name, self.simple()?));
            if self.is(')') {
                return Ok(Given::Complex(parts));
            }
            self.expect(',')?;
        }
    }

    fn value(&mut self) -> Parsed<Given> {
        if self.is('(') {
            return self.complex();
        }
        if self.is('[') {
            return self.list();
        }
        self.simple().map(Given::Simple)
    }

    /// The rest of a list whose bracket was read.
    fn list(&mut self) -> Parsed<Given> {
        let mut list = Vec::new();
        loop {
            list.push(if self.is('(') {
                self.complex()?
            } else {
                Given::Simple(self.simple()?)
            });
            if self.is(']') {
                return Ok(Given::List(list));
            }
            self.expect(',')?;
        }
    }

    fn pairs(&mut self) -> Parsed<Pairs> {
        let mut pairs = Vec::new();
        while pairs.len() < 3
            && let Some(name) = self.property()
        {
            self.expect('=')?;
            pairs.push((name, self.value()?));
        }
        Ok(pairs)
    }

    fn command(&mut self, verb: Verb) -> Parsed<Command> {
        match verb {
            Verb::Add => {
                if let Some(word) = self.token() {
                    Ok(Command::Plain(verb, vec![word]))
                } else if let Some(kind) = self.resource() {
                    Ok(Command::Add(kind))
                } else if let Some(name) = self.property() {
                    Ok(Command::AddValue(name, self.value()?))
                } else {
                    Err(Wrong::Usage(verb))
                }
            }
            Verb::Set => self.set(),
            Verb::Clear => self.property().map(Command::Clear).ok_or(Wrong::Usage(verb)),
            Verb::Select => {
                let kind = self.resource().ok_or(Wrong::Usage(verb))?;
                let pairs = self.pairs()?;
                if pairs.is_empty() && !kind.starts_with("capped-") && kind != "dedicated-cpu" {
                    self.peek();
                    return Err(Wrong::Usage(verb));
                }
                Ok(Command::Select(kind, pairs))
            }
            Verb::Remove => {
                let word = self.token();
                if let Some(kind) = self.resource() {
                    let pairs = if word.is_none() { self.pairs()? } else { Vec::new() };
                    return Ok(Command::Remove(word, kind, pairs));
                }
                if word.is_some() {
                    return Err(Wrong::Usage(verb));
                }
                let name = self.property().ok_or(Wrong::Usage(verb))?;
                Ok(Command::RemoveValue(name, self.value()?))
            }
            Verb::Info => {
                if self.token().is_some() {
                    return Err(Wrong::Usage(verb));
                }
                if let Some(kind) = self.resource() {
                    return Ok(Command::Info(Some(kind), self.pairs()?));
                }
                let global = matches!(self.peek(), Lexeme::Property(name) if is_global(name));
                let name = if global { self.property() } else { None };
                Ok(Command::Info(name, Vec::new()))
            }
            Verb::Create => Ok(Command::Plain(verb, self.words(3))),
            Verb::Export => Ok(Command::Plain(verb, self.words(2))),
            Verb::Cancel
            | Verb::Commit
            | Verb::Delete
            | Verb::End
            | Verb::Exit
            | Verb::Help
            | Verb::Revert
            | Verb::Verify => Ok(Command::Plain(verb, self.words(1))),
        }
    }

    fn set(&mut self) -> Parsed<Command> {
        let word = self.token();
        if word.is_some() && *self.peek() != Lexeme::Property("zonepath") {
            return Err(Wrong::Unexpected);
        }
        let name = self.property().ok_or(Wrong::Usage(Verb::Set))?;
        self.expect('=')?;
        // Only here a list may be empty.
        if word.is_none() && self.is('[') {
            if self.is(']') {
                return Ok(Command::Set(None, name, Given::List(Vec::new())));
            }
            return Ok(Command::Set(None, name, self.list()?));
        }
        Ok(Command::Set(word, name, self.value()?))
    }

    fn words(&mut self, most: usize) -> Vec<String> {
        let mut words = Vec::new();
        while words.len() < most
            && let Some(word) = self.token()
        {
            words.push(word);
        }
        words
    }
}
