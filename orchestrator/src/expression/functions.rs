//! The functions that need nothing but their arguments.

use std::ops::Range;

use super::{
    error::{ErrorKind, ExpressionError},
    evaluate::{Evaluator, Step},
    json, letters,
    meter::Writer,
    tree::Node,
    value::{Text, Value},
};

pub(super) fn starts_with(evaluator: &mut Evaluator<'_>, arguments: &[Node], span: &Range<usize>) -> Step<Value> {
    let text = evaluator.value(&arguments[0])?;
    part_of(evaluator, &text, &arguments[1], span, |text, part| {
        text.starts_with(part)
    })
}

pub(super) fn ends_with(evaluator: &mut Evaluator<'_>, arguments: &[Node], span: &Range<usize>) -> Step<Value> {
    let text = evaluator.value(&arguments[0])?;
    part_of(evaluator, &text, &arguments[1], span, |text, part| text.ends_with(part))
}

/// Whether a part fits a text, both in capitals. What is no primitive value fits nothing.
fn part_of(
    evaluator: &mut Evaluator<'_>,
    text: &Value,
    part: &Node,
    span: &Range<usize>,
    fits: impl Fn(&str, &str) -> bool,
) -> Step<Value> {
    if !text.is_primitive() {
        return Ok(Value::Bool(false));
    }
    let part = evaluator.value(part)?;
    if !part.is_primitive() {
        return Ok(Value::Bool(false));
    }
    evaluator.read(text, span)?;
    evaluator.read(&part, span)?;
    let (text, part) = (text.to_text(), part.to_text());
    let (text, part) = (letters::capitals(text.as_str()), letters::capitals(part.as_str()));
    Ok(Value::Bool(fits(&text, &part)))
}

pub(super) fn contains(evaluator: &mut Evaluator<'_>, arguments: &[Node], span: &Range<usize>) -> Step<Value> {
    let array = match evaluator.value(&arguments[0])? {
        Value::Array(array) => array,
        text => return part_of(evaluator, &text, &arguments[1], span, |text, part| text.contains(part)),
    };
    if array.items().is_empty() {
        return Ok(Value::Bool(false));
    }
    let wanted = evaluator.value(&arguments[1])?;
    for item in array.items() {
        evaluator.meter.step(1, span)?;
        evaluator.read(item, span)?;
        if wanted.equals(item) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

pub(super) fn join(evaluator: &mut Evaluator<'_>, arguments: &[Node], span: &Range<usize>) -> Step<Value> {
    let array = match evaluator.value(&arguments[0])? {
        Value::Array(array) => array,
        Value::Object(_) => return Ok("".into()),
        primitive => return Ok(Value::String(primitive.to_text())),
    };
    let mut separator = Text::from(",");
    if let (Some(argument), [_, _, ..]) = (arguments.get(1), array.items()) {
        let value = evaluator.value(argument)?;
        if value.is_primitive() {
            separator = value.to_text();
        }
    }
    let mut untrusted = separator.is_untrusted();
    let mut writer = Writer::new(&mut evaluator.meter, span);
    for (place, item) in array.items().iter().enumerate() {
        writer.step()?;
        if place > 0 {
            writer.push(separator.as_str())?;
        }
        let text = item.to_text();
        untrusted |= text.is_untrusted();
        writer.push(text.as_str())?;
    }
    Ok(Value::String(Text::new(writer.finish(), untrusted)))
}

pub(super) fn case(evaluator: &mut Evaluator<'_>, arguments: &[Node]) -> Step<Value> {
    let pairs = arguments.chunks_exact(2);
    // Their number is odd.
    let default = &pairs.remainder()[0];
    for pair in pairs {
        match evaluator.value(&pair[0])? {
            Value::Bool(true) => return evaluator.value(&pair[1]),
            Value::Bool(false) => {}
            _ => return Err(ErrorKind::CaseCondition.at(pair[0].span.clone()).into()),
        }
    }
    evaluator.value(default)
}

/// One piece of a format.
enum Piece<'f> {
    Text(&'f str),
    Argument(usize),
}

pub(super) fn format(evaluator: &mut Evaluator<'_>, arguments: &[Node], span: &Range<usize>) -> Step<Value> {
    let format = evaluator.value(&arguments[0])?.to_text();
    evaluator.meter.text(format.as_str().len(), span)?;
    // All of the format is judged before any argument is evaluated, and each of these but once.
    let values = &arguments[1..];
    let pieces = pieces(format.as_str(), values.len()).map_err(|reason| {
        let format = format.as_str().to_owned();
        ErrorKind::Format { format, reason }.at(arguments[0].span.clone())
    })?;
    let mut texts: Vec<Option<Text>> = vec![None; values.len()];
    for piece in &pieces {
        if let Piece::Argument(place) = piece
            && texts[*place].is_none()
        {
            texts[*place] = Some(evaluator.value(&values[*place])?.to_text());
        }
    }
    let mut untrusted = format.is_untrusted();
    let mut writer = Writer::new(&mut evaluator.meter, span);
    for piece in pieces {
        writer.step()?;
        match piece {
            Piece::Text(text) => writer.push(text)?,
            Piece::Argument(place) => {
                if let Some(text) = &texts[place] {
                    untrusted |= text.is_untrusted();
                    writer.push(text.as_str())?;
                }
            }
        }
    }
    Ok(Value::String(Text::new(writer.finish(), untrusted)))
}

/// `{0}` is an argument, `{{` and `}}` are braces, and no other brace is right.
fn pieces(format: &str, arguments: usize) -> Result<Vec<Piece<'_>>, &'static str> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        if brace.starts_with("{{") || brace.starts_with("}}") {
            pieces.push(Piece::Text(&rest[..=at]));
            rest = &brace[2..];
            continue;
        }
        if brace.starts_with('}') {
            return Err("a closing brace has no opening one");
        }
        let inner = &brace[1..];
        let digits = inner.find(|c: char| !c.is_ascii_digit()).unwrap_or(inner.len());
        let number = inner[..digits].parse::<u8>();
        let number = number.map_err(|_| "an opening brace is not followed by the number of an argument")?;
        let after = &inner[digits..];
        if after.starts_with(':') {
            return Err("how an argument is written cannot be chosen");
        }
        let after = after
            .strip_prefix('}')
            .ok_or("the number of an argument is not followed by a closing brace")?;
        let place = usize::from(number);
        if place >= arguments {
            return Err("it names more arguments than there are");
        }
        pieces.extend([Piece::Text(before), Piece::Argument(place)]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

pub(super) fn to_json(evaluator: &mut Evaluator<'_>, arguments: &[Node], span: &Range<usize>) -> Step<Value> {
    let value = evaluator.value(&arguments[0])?;
    let mut writer = Writer::new(&mut evaluator.meter, span);
    let mut untrusted = false;
    write_json(&value, 0, &mut writer, &mut untrusted)?;
    Ok(Value::String(Text::new(writer.finish(), untrusted)))
}

/// Recursion is bounded by the depth of values, which come from JSON.
fn write_json(
    value: &Value,
    level: usize,
    writer: &mut Writer<'_>,
    untrusted: &mut bool,
) -> Result<(), ExpressionError> {
    const INDENT: &str = "  ";
    writer.step()?;
    let line = |level: usize| format!("\n{}", INDENT.repeat(level));
    match value {
        Value::Null => writer.push("null"),
        Value::String(text) => {
            *untrusted |= text.is_untrusted();
            writer.push(&json::quoted(text.as_str()))
        }
        Value::Bool(_) | Value::Number(_) => writer.push(value.to_text().as_str()),
        Value::Array(array) if array.items().is_empty() => writer.push("[]"),
        Value::Array(array) => {
            for (place, item) in array.items().iter().enumerate() {
                writer.push(if place == 0 { "[" } else { "," })?;
                writer.push(&line(level + 1))?;
                write_json(item, level + 1, writer, untrusted)?;
            }
            writer.push(&line(level))?;
            writer.push("]")
        }
        Value::Object(object) if object.entries().is_empty() => writer.push("{}"),
        Value::Object(object) => {
            for (place, (name, value)) in object.entries().iter().enumerate() {
                writer.push(if place == 0 { "{" } else { "," })?;
                writer.push(&line(level + 1))?;
                writer.push(&json::quoted(name))?;
                writer.push(": ")?;
                write_json(value, level + 1, writer, untrusted)?;
            }
            writer.push(&line(level))?;
            writer.push("}")
        }
    }
}

pub(super) fn from_json(evaluator: &mut Evaluator<'_>, arguments: &[Node]) -> Step<Value> {
    let argument = &arguments[0];
    let text = evaluator.value(argument)?.to_text();
    evaluator.meter.text(text.as_str().len(), &argument.span)?;
    let left = evaluator.meter.left();
    match json::read(text.as_str(), text.is_untrusted(), left) {
        Ok((value, size)) => {
            evaluator.meter.take(size, &argument.span)?;
            Ok(value)
        }
        Err(error) => {
            let kind = error.map_or(ErrorKind::Memory, |error| ErrorKind::Json(error.to_string()));
            Err(kind.at(argument.span.clone()).into())
        }
    }
}
