//! zonecfg's lexer. A keyword is one only where the grammar's states look for it, strings know no escapes, and a
//! quotation that its line does not end swallows the newline.

use super::keywords::{PROPERTIES, RESOURCES, Verb};

/// What the text at one place is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lexeme {
    /// The first word of a command.
    Verb(Verb),
    /// The name of a kind of resource.
    Resource(&'static str),
    /// The name of a property.
    Property(&'static str),
    /// Another word, or what stood between double quotes.
    Token(String),
    /// One character: one of `= [ ] ( ) ,`, or one that begins nothing.
    Sign(char),
    /// The end of a line: of a command too.
    Newline,
    /// The other end of a command.
    Semicolon,
    /// The end of the input.
    End,
}

/// A lexeme with its text as it was written, which is what a syntax error prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lexed {
    pub lexeme: Lexeme,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initial,
    Words,
    List,
    Complex,
}

/// Reads lexemes from a text.
#[derive(Debug)]
pub struct Lexer<'t> {
    rest: &'t str,
    state: State,
    /// What a closing parenthesis returns to.
    outer: State,
    /// The line that the next lexeme is on, from 1. A newline that a quotation swallowed is not counted.
    pub line: usize,
    /// A property that this release does not know: a word like any other.
    lacks: Option<&'t str>,
}

impl<'t> Lexer<'t> {
    /// At the beginning of a text.
    #[must_use]
    pub fn new(text: &'t str, lacks: Option<&'t str>) -> Self {
        Self {
            rest: text,
            state: State::Initial,
            outer: State::Initial,
            line: 1,
            lacks,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        if state != State::Complex {
            self.outer = state;
        }
    }

    fn take(&mut self, length: usize, lexeme: Lexeme) -> Lexed {
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        Lexed {
            lexeme,
            text: text.to_owned(),
        }
    }

    pub fn lex(&mut self) -> Lexed {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        while self.state == State::Initial && self.rest.starts_with('#') {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.rest = self.rest[end..].trim_start_matches([' ', '\t']);
        }
        let Some(first) = self.rest.chars().next() else {
            return self.take(0, Lexeme::End);
        };
        match first {
            '\n' => {
                self.line += 1;
                self.state = State::Initial;
                self.take(1, Lexeme::Newline)
            }
            ';' => {
                self.state = State::Initial;
                self.take(1, Lexeme::Semicolon)
            }
            _ if self.state == State::Initial => self.verb(first),
            '"' => self.quoted(),
            '[' if self.state == State::Words => self.sign(first, State::List),
            ']' if self.state == State::List => self.sign(first, State::Words),
            '(' if self.state != State::Complex => self.sign(first, State::Complex),
            ')' if self.state == State::Complex => self.sign(first, self.outer),
            _ => self.word(first),
        }
    }

    fn sign(&mut self, sign: char, then: State) -> Lexed {
        self.enter(then);
        self.take(sign.len_utf8(), Lexeme::Sign(sign))
    }

    /// A verb is one by its beginning: `ended` is `end` with the word `ed` after it.
    fn verb(&mut self, first: char) -> Lexed {
        match Verb::at(self.rest) {
            Some((verb, length)) => {
                self.enter(State::Words);
                self.take(length, Lexeme::Verb(verb))
            }
            None => self.take(first.len_utf8(), Lexeme::Sign(first)),
        }
    }

    fn quoted(&mut self) -> Lexed {
        match self.rest[1..].find(['"', '\n']).map(|at| at + 1) {
            None => self.take(1, Lexeme::Sign('"')),
            Some(end) if self.rest[end..].starts_with('"') => {
                let inside = self.rest[1..end].to_owned();
                self.take(end + 1, Lexeme::Token(inside))
            }
            Some(end) => {
                let inside = self.rest[1..=end].to_owned();
                self.take(end + 1, Lexeme::Token(inside))
            }
        }
    }

    fn word(&mut self, first: char) -> Lexed {
        let ends = match self.state {
            State::List => " \t\n\",;=[]()",
            State::Complex => " \t\n\",;=()",
            _ => " \t\n\";=[]()",
        };
        let length = self.rest.find(|c| ends.contains(c)).unwrap_or(self.rest.len());
        if length == 0 {
            return self.take(first.len_utf8(), Lexeme::Sign(first));
        }
        let word = &self.rest[..length];
        let known = |words: &[&'static str]| words.iter().find(|w| **w == word && self.lacks != Some(word)).copied();
        let resource = known(RESOURCES).filter(|_| self.state == State::Words);
        let property = known(PROPERTIES).filter(|_| self.state != State::List);
        let lexeme = match (resource, property) {
            (Some(resource), _) => Lexeme::Resource(resource),
            (None, Some(property)) => Lexeme::Property(property),
            (None, None) => Lexeme::Token(word.to_owned()),
        };
        self.take(length, lexeme)
    }
}
