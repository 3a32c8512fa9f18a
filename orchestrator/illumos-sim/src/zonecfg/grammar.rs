//! zonecfg's grammar: one command out of the tokens of one line.

use super::{
    lexer::Token,
    resource::{Value, kind},
};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `create [-F] [-b | -t TEMPLATE]`.
    Create {
        /// Replace a configuration that is there.
        force: bool,
        /// The template.
        template: String,
    },
    /// `delete [-F]`.
    Delete(bool),
    /// `set PROPERTY=VALUE`.
    Set(String, Value),
    /// `clear PROPERTY`.
    Clear(String),
    /// `add KIND`.
    Add(String),
    /// `add PROPERTY VALUE`, inside a resource.
    AddValue(String, Value),
    /// `select KIND PROPERTY=VALUE ...`.
    Select(String, Vec<(String, Value)>),
    /// `remove [-F] KIND [PROPERTY=VALUE ...]`.
    Remove {
        /// Without asking, all of them.
        force: bool,
        /// The kind.
        kind: String,
        /// Which.
        filter: Vec<(String, Value)>,
    },
    /// `end`.
    End,
    /// `cancel`.
    Cancel,
    /// `verify`.
    Verify,
    /// `commit`.
    Commit,
    /// `revert [-F]`.
    Revert,
    /// `exit [-F]`.
    Exit,
    /// `info [KIND ...]`.
    Info,
    /// `export [-f FILE]`.
    Export(Option<String>),
}

/// What the parser did not expect; empty at the end of the line.
pub type Unexpected = String;

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn wrong<T>(&self) -> Result<T, Unexpected> {
        Err(match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => text.clone(),
            Some(Token::Sign(sign)) => sign.to_string(),
            None => String::new(),
        })
    }

    fn word(&mut self) -> Result<&'a str, Unexpected> {
        match self.peek() {
            Some(Token::Word(text)) => {
                self.at += 1;
                Ok(text)
            }
            _ => self.wrong(),
        }
    }

    fn text(&mut self) -> Result<&'a str, Unexpected> {
        match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => {
                self.at += 1;
                Ok(text)
            }
            _ => self.wrong(),
        }
    }

    fn is(&mut self, sign: char) -> bool {
        let is = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, sign: char) -> Result<(), Unexpected> {
        if self.is(sign) { Ok(()) } else { self.wrong() }
    }

    fn flag(&mut self, flag: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Word(word)) if word == flag);
        self.at += usize::from(is);
        is
    }

    fn value(&mut self) -> Result<Value, Unexpected> {
        if self.is('[') {
            let mut list = Vec::new();
            while !self.is(']') {
                if !list.is_empty() {
                    self.expect(',')?;
                }
                list.push(self.text()?.to_owned());
            }
            return Ok(Value::List(list));
        }
        if self.is('(') {
            let mut pairs = Vec::new();
            loop {
                let name = self.word()?.to_owned();
                self.expect('=')?;
                pairs.push((name, self.text()?.to_owned()));
                if self.is(')') {
                    return Ok(Value::Complex(vec![pairs]));
                }
                self.expect(',')?;
            }
        }
        Ok(Value::Simple(self.text()?.to_owned()))
    }

    fn pairs(&mut self) -> Result<Vec<(String, Value)>, Unexpected> {
        let mut pairs = Vec::new();
        while self.peek().is_some() {
            let name = self.word()?.to_owned();
            self.expect('=')?;
            pairs.push((name, self.value()?));
        }
        Ok(pairs)
    }

    fn kind(&mut self) -> Result<String, Unexpected> {
        let at = self.at;
        let word = self.word()?;
        if kind(word).is_some() {
            return Ok(word.to_owned());
        }
        self.at = at;
        self.wrong()
    }
}

/// Reads one command.
///
/// # Errors
/// The token that does not fit.
pub fn command(tokens: &[Token]) -> Result<Command, Unexpected> {
    let mut reader = Reader { tokens, at: 0 };
    let command = match reader.word()? {
        "create" => {
            let (mut force, mut template) = (false, "SUNWdefault".to_owned());
            loop {
                if reader.flag("-F") {
                    force = true;
                } else if reader.flag("-b") {
                    template = "SUNWblank".into();
                } else if reader.flag("-t") {
                    template = reader.text()?.to_owned();
                } else {
                    break Command::Create { force, template };
                }
            }
        }
        "delete" => Command::Delete(reader.flag("-F")),
        "set" => {
            let name = reader.word()?.to_owned();
            reader.expect('=')?;
            Command::Set(name, reader.value()?)
        }
        "clear" => Command::Clear(reader.word()?.to_owned()),
        "add" => {
            let name = reader.word()?.to_owned();
            match reader.peek() {
                None if kind(&name).is_some() => Command::Add(name),
                None => return Err(name),
                Some(_) => Command::AddValue(name, reader.value()?),
            }
        }
        "select" => Command::Select(reader.kind()?, reader.pairs()?),
        "remove" => {
            let force = reader.flag("-F");
            Command::Remove {
                force,
                kind: reader.kind()?,
                filter: reader.pairs()?,
            }
        }
        "end" => Command::End,
        "cancel" => Command::Cancel,
        "verify" => Command::Verify,
        "commit" => Command::Commit,
        "revert" => {
            reader.flag("-F");
            Command::Revert
        }
        "exit" => {
            reader.flag("-F");
            Command::Exit
        }
        "info" => {
            reader.at = tokens.len();
            Command::Info
        }
        "export" => Command::Export(if reader.flag("-f") {
            Some(reader.text()?.to_owned())
        } else {
            None
        }),
        other => return Err(other.to_owned()),
    };
    if reader.peek().is_some() {
        reader.wrong()
    } else {
        Ok(command)
    }
}
