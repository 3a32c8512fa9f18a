//! The shape of a row.

use super::{super::code::Code, Allowed};

/// What may stand at one place.
#[derive(Debug)]
pub struct Definition {
    /// What it is.
    pub kind: Kind,
    /// What expressions in it, and below it, may use besides what those around it may.
    pub allowed: Allowed,
}

/// The kinds of values.
#[derive(Debug)]
pub enum Kind {
    /// Anything at all.
    Any,
    /// Nothing.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A text; other scalars are turned into one.
    Text {
        /// It may be empty.
        empty: bool,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of these.
    Sequence(&'static Definition),
    /// A mapping.
    Mapping(Mapping),
    /// One of several; of mappings, the one that has the keys that are used.
    OneOf(&'static [&'static Definition]),
}

/// A mapping's keys.
#[derive(Debug)]
pub struct Mapping {
    /// What a person calls it: `a job`.
    pub noun: &'static str,
    /// The keys that it has.
    pub keys: &'static [Key],
    /// What any other key means: its noun, its placeholder in a path, its value. None where there is no other key.
    pub others: Option<Others>,
}

/// Keys that the file chooses.
#[derive(Debug)]
pub struct Others {
    /// How a path writes it: `<job-id>`.
    pub placeholder: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// What stands below it.
    pub value: &'static Definition,
}

/// One key of a mapping.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What stands below it.
    pub value: &'static Definition,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Whether the mapping must have it.
    pub required: bool,
    /// Nothing below it is taken for an empty mapping, as GitHub's service does although its parser does not.
    pub may_be_bare: bool,
    /// What is said where helios-ci does not act on it.
    pub unsupported: Option<Code>,
}

impl Definition {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            allowed: Allowed::NONE,
        }
    }

    pub(super) const fn any() -> Self {
        Self::new(Kind::Any)
    }

    pub(super) const fn null() -> Self {
        Self::new(Kind::Null)
    }

    pub(super) const fn boolean() -> Self {
        Self::new(Kind::Boolean)
    }

    pub(super) const fn number() -> Self {
        Self::new(Kind::Number)
    }

    pub(super) const fn text() -> Self {
        Self::new(Kind::Text { empty: true })
    }

    pub(super) const fn filled() -> Self {
        Self::new(Kind::Text { empty: false })
    }

    pub(super) const fn word(words: &'static [&'static str]) -> Self {
        Self::new(Kind::Word(words))
    }

    pub(super) const fn sequence(item: &'static Self) -> Self {
        Self::new(Kind::Sequence(item))
    }

    pub(super) const fn one_of(definitions: &'static [&'static Self]) -> Self {
        Self::new(Kind::OneOf(definitions))
    }

    pub(super) const fn mapping(noun: &'static str, keys: &'static [Key]) -> Self {
        Self::new(Kind::Mapping(Mapping {
            noun,
            keys,
            others: None,
        }))
    }

    pub(super) const fn open(noun: &'static str, keys: &'static [Key], others: Others) -> Self {
        Self::new(Kind::Mapping(Mapping {
            noun,
            keys,
            others: Some(others),
        }))
    }

    pub(super) const fn with(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// The definitions that are no choice between others, each with what its expressions may use.
    pub fn leaves(&'static self, around: Allowed) -> Vec<(&'static Self, Allowed)> {
        let allowed = around.and(self.allowed);
        match &self.kind {
            Kind::OneOf(all) => all.iter().flat_map(|one| one.leaves(allowed)).collect(),
            _ => vec![(self, allowed)],
        }
    }
}

impl Others {
    pub(super) const fn new(placeholder: &'static str, about: &'static str, value: &'static Definition) -> Self {
        Self {
            placeholder,
            about,
            value,
        }
    }
}

impl Key {
    pub(super) const fn new(name: &'static str, value: &'static Definition, about: &'static str) -> Self {
        Self {
            name,
            value,
            about,
            required: false,
            may_be_bare: false,
            unsupported: None,
        }
    }

    pub(super) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(super) const fn bare(mut self) -> Self {
        self.may_be_bare = true;
        self
    }

    pub(super) const fn not_yet(mut self, code: Code) -> Self {
        self.unsupported = Some(code);
        self
    }
}

impl Mapping {
    /// The key of this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
