//! zonecfg's lexer: words, quoted strings without escapes, and the signs that are syntax.

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A bare word.
    Word(String),
    /// What stood between double quotes.
    Quoted(String),
    /// One of `= [ ] ( ) ,`; the comma only inside brackets and parentheses.
    Sign(char),
}

/// One command with the line it begins on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its line.
    pub number: usize,
    /// Its tokens; never none.
    pub tokens: Vec<Token>,
}

/// Cuts a program into commands, at newlines and semicolons. A quotation ends at its newline.
#[must_use]
pub fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for (at, line) in text.split('\n').enumerate() {
        let mut tokens: Vec<Token> = Vec::new();
        let mut depth = 0usize;
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            match c {
                ' ' | '\t' => rest = after,
                '#' if tokens.is_empty() => break,
                ';' => {
                    flush(&mut lines, at + 1, &mut tokens);
                    depth = 0;
                    rest = after;
                }
                '"' => {
                    let (inside, tail) = after.split_once('"').unwrap_or((after, ""));
                    tokens.push(Token::Quoted(inside.to_owned()));
                    rest = tail;
                }
                '=' | '[' | ']' | '(' | ')' => {
                    match c {
                        '[' | '(' => depth += 1,
                        ']' | ')' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    tokens.push(Token::Sign(c));
                    rest = after;
                }
                ',' if depth > 0 => {
                    tokens.push(Token::Sign(','));
                    rest = after;
                }
                _ => {
                    let ends = |c: char| " \t\";=[]()".contains(c) || c == ',' && depth > 0;
                    let end = rest.find(ends).unwrap_or(rest.len());
                    tokens.push(Token::Word(rest[..end].to_owned()));
                    rest = &rest[end..];
                }
            }
        }
        flush(&mut lines, at + 1, &mut tokens);
    }
    lines
}

fn flush(lines: &mut Vec<Line>, number: usize, tokens: &mut Vec<Token>) {
    if !tokens.is_empty() {
        lines.push(Line {
            number,
            tokens: std::mem::take(tokens),
        });
    }
}
