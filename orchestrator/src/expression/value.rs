//! The values of expressions, and what each counts as where another kind is wanted.

use std::{
    cmp::Ordering,
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use super::{letters, number};

/// A value. Cloning one copies no text and no collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, and what is not there.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    String(Text),
    /// A list.
    Array(Array),
    /// Names with values.
    Object(Object),
}

/// A text, and whether outsiders can choose it: the title of a pull request is theirs, whatever was made from it too.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    text: Arc<str>,
    untrusted: bool,
}

/// A list.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    items: Arc<[Value]>,
    /// Made by `.*`: a name or index asked of it is asked of each of its items.
    filtered: bool,
}

/// Names with values in their order; names are one ignoring case.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(Arc<Fields>);

#[derive(Debug, PartialEq)]
struct Fields {
    entries: Vec<(Arc<str>, Value)>,
    /// By the name in capitals.
    places: HashMap<String, usize>,
}

impl Text {
    /// A text whose letters were chosen by those whom the repository trusts, or not.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>, untrusted: bool) -> Self {
        Self {
            text: text.into(),
            untrusted,
        }
    }

    /// Its letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether outsiders can choose it, or a part of it.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        self.untrusted
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.untrusted { "untrusted " } else { "" };
        write!(f, "{mark}{:?}", self.text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text, false)
    }
}

impl Array {
    /// A list of these.
    #[must_use]
    pub fn new(items: Vec<Value>) -> Self {
        Self {
            items: items.into(),
            filtered: false,
        }
    }

    pub(super) fn filtered(items: Vec<Value>) -> Self {
        Self {
            items: items.into(),
            filtered: true,
        }
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// What is in it.
    #[must_use]
    pub fn items(&self) -> &[Value] {
        &self.items
    }
}

impl Object {
    /// Of names in this order. Of equal ones the last value counts, at the place of the first.
    #[must_use]
    pub fn new<K: Into<Arc<str>>>(fields: impl IntoIterator<Item = (K, Value)>) -> Self {
        let mut entries: Vec<(Arc<str>, Value)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (name, value) in fields {
            let name = name.into();
            match places.entry(letters::capitals(&name)) {
                Entry::Occupied(known) => entries[*known.get()].1 = value,
                Entry::Vacant(new) => {
                    new.insert(entries.len());
                    entries.push((name, value));
                }
            }
        }
        Self(Arc::new(Fields { entries, places }))
    }

    /// The value of a name, in any case of letters.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let place = self.0.places.get(&letters::capitals(name))?;
        Some(&self.0.entries[*place].1)
    }

    /// Names and values in their order.
    #[must_use]
    pub fn entries(&self) -> &[(Arc<str>, Value)] {
        &self.0.entries
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl Value {
    /// What the language calls this kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "Null",
            Self::Bool(_) => "Boolean",
            Self::Number(_) => "Number",
            Self::String(_) => "String",
            Self::Array(_) => "Array",
            Self::Object(_) => "Object",
        }
    }

    /// Whether it is neither a list nor an object.
    #[must_use]
    pub fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// Whether it counts as true where a condition is wanted.
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::String(text) => !text.text.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// As a text. Of a list or an object that is the name of its kind.
    #[must_use]
    pub fn to_text(&self) -> Text {
        match self {
            Self::String(text) => text.clone(),
            Self::Null => "".into(),
            Self::Bool(true) => "true".into(),
            Self::Bool(false) => "false".into(),
            Self::Number(number) => Text::new(number::text(*number), false),
            Self::Array(_) | Self::Object(_) => self.kind().into(),
        }
    }

    /// As a number; not a number (NaN) where it is none.
    #[must_use]
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(number) => *number,
            Self::String(text) => number::parse(&text.text),
            Self::Array(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// `==`: values of one kind as such, others as numbers. A list or an object equals only itself.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::String(left), Self::String(right)) => letters::equal(&left.text, &right.text),
            (Self::Array(left), Self::Array(right)) => Arc::ptr_eq(&left.items, &right.items),
            (Self::Object(left), Self::Object(right)) => Arc::ptr_eq(&left.0, &right.0),
            // Also when one of them is no primitive: that one is not a number.
            (left, right) => left.to_number() == right.to_number(),
        }
    }

    /// For `<` and `>`. Most values that are not primitive have no order, nor has null with null.
    #[must_use]
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Self::Null) => None,
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::String(left), Self::String(right)) => Some(letters::order(&left.text, &right.text)),
            (left, right) => left.to_number().partial_cmp(&right.to_number()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_ignoring_case_and_keep_their_order() {
        let object = Object::new([("b", Value::Number(1.0)), ("Ä", Value::Null), ("B", Value::Number(2.0))]);
        assert_eq!(object.get("ä"), Some(&Value::Null));
        assert_eq!(object.get("b"), Some(&Value::Number(2.0)));
        assert_eq!(object.get("c"), None);
        let names: Vec<&str> = object.entries().iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["b", "Ä"]);
    }

    #[test]
    fn a_collection_equals_only_itself() {
        let list = Value::Array(Array::new(vec![]));
        assert!(list.equals(&list.clone()));
        assert!(!list.equals(&Value::Array(Array::new(vec![]))));
        let object = Value::Object(Object::new::<&str>([]));
        assert!(object.equals(&object.clone()));
        assert!(!object.equals(&Value::Object(Object::new::<&str>([]))));
        for other in [
            Value::Null,
            Value::Bool(false),
            Value::Number(0.0),
            "".into(),
            "Array".into(),
        ] {
            assert!(!list.equals(&other) && !other.equals(&list), "{other:?}");
            assert_eq!(list.order(&other), None);
        }
    }
}
