//! Values from JSON and to JSON. Names keep their order, which `.*` and `toJSON` show.

use std::{cell::Cell, fmt};

use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap as _, SerializeSeq as _},
};

use super::{
    meter,
    value::{Array, Object, Text, Value},
};

/// Whose texts these are, and what may yet be read: a seed for serde.
#[derive(Debug, Clone, Copy)]
struct Origin<'m> {
    untrusted: bool,
    left: &'m Cell<Option<usize>>,
}

/// The value of a JSON text, and what it takes in bytes; no error is one that would take more than `limit`.
pub(super) fn read(text: &str, untrusted: bool, limit: usize) -> Result<(Value, usize), Option<serde_json::Error>> {
    let left = Cell::new(Some(limit));
    let mut reader = serde_json::Deserializer::from_str(text);
    let origin = Origin { untrusted, left: &left };
    let value = origin
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    match (value, left.get()) {
        (_, None) => Err(None),
        (Err(error), _) => Err(Some(error)),
        (Ok(value), Some(left)) => Ok((value, limit - left)),
    }
}

impl Value {
    /// The value of a JSON text. Where outsiders wrote it, or a part of it, each of its texts is marked.
    ///
    /// # Errors
    /// When it is not JSON, or nested deeper than serde's limit of 128 levels.
    pub fn from_json(text: &str, untrusted: bool) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let left = Cell::new(Some(usize::MAX));
        let value = Origin { untrusted, left: &left }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

impl Origin<'_> {
    fn takes<E: Error>(self, bytes: usize) -> Result<(), E> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(bytes)));
        match self.left.get() {
            Some(_) => Ok(()),
            None => Err(E::custom("the value is too large")),
        }
    }

    fn made<E: Error>(self, value: Value) -> Result<Value, E> {
        self.takes::<E>(meter::size(&value))?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Origin<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Origin<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.made(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.made(Value::Bool(value))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        self.made(Value::Number(number))
    }

    #[allow(clippy::cast_precision_loss, reason = "the language's numbers are of this kind")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.made(Value::Number(number as f64))
    }

    #[allow(clippy::cast_precision_loss, reason = "the language's numbers are of this kind")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.made(Value::Number(number as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.made(Value::String(Text::new(text, self.untrusted)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        self.made(Value::Array(Array::new(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields: Vec<(String, Value)> = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            self.takes::<A::Error>(meter::size_of_text(&name))?;
            fields.push((name, access.next_value_seed(self)?));
        }
        self.made(Value::Object(Object::new(fields)))
    }
}

/// Numbers that JSON cannot say are their texts.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => match whole(*number) {
                Some(whole) => serializer.serialize_i64(whole),
                None if number.is_finite() => serializer.serialize_f64(*number),
                None => serializer.serialize_str(self.to_text().as_str()),
            },
            Self::String(text) => serializer.serialize_str(text.as_str()),
            Self::Array(array) => {
                let mut list = serializer.serialize_seq(Some(array.items().len()))?;
                for item in array.items() {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.entries().len()))?;
                for (name, value) in object.entries() {
                    map.serialize_entry(&**name, value)?;
                }
                map.end()
            }
        }
    }
}

/// A number without fraction that has one text only.
#[allow(clippy::cast_possible_truncation, reason = "it is checked")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_whole = number.fract() == 0.0 && number.abs() < EXACT && (number != 0.0 || number.is_sign_positive());
    is_whole.then_some(number as i64)
}

/// A text as JSON writes it. Newtonsoft's writer, which GitHub uses, escapes also what ends a line elsewhere.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = serde_json::Value::from(text).to_string();
    for (c, escaped) in [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")] {
        if quoted.contains(c) {
            quoted = quoted.replace(c, escaped);
        }
    }
    quoted
}
