//! How a forge delivers webhooks: the part of the port that a forge need not have.

use std::fmt;

use serde_json::{Map, Value};

use crate::model::trigger::{Retry, Subject, Trigger};

/// What became of a delivery's body.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// Something to plan.
    Triggers(Vec<Trigger>),
    /// Nothing to do, and why: `a branch was deleted`, `a ping`.
    Ignored(String),
    /// It is about a repository that the configuration does not list, and why nothing is done.
    NotServed(String),
}

/// A webhook body that its forge would not have sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body of this `{event}` delivery cannot be used: {reason}")]
pub struct BadDelivery {
    /// The event's name.
    pub event: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether delivering it again may help.
    pub retry: Retry,
}

/// The headers of a forge's deliveries, and their size. The configuration says whose they are; a request never does:
/// Forgejo sends GitHub's headers as well.
#[derive(Debug)]
pub struct Dialect {
    /// The longest body that the forge sends, in bytes.
    pub body_limit: usize,
    /// The headers with the event's name; the first that is present counts, here and below.
    pub event_headers: &'static [&'static str],
    /// The headers with the delivery's id.
    pub delivery_headers: &'static [&'static str],
    /// The headers with the HMAC-SHA256 of the raw body in hexadecimal, each with what stands before the digits.
    pub signature_headers: &'static [(&'static str, &'static str)],
    /// What the sender of a bad signature should look at.
    pub signature_remedy: &'static str,
}

/// The webhooks of one connection.
pub trait Webhooks: Send + Sync + fmt::Debug {
    /// Headers and limits.
    fn dialect(&self) -> &'static Dialect;

    /// What a verified body is about, as far as it claims names.
    fn subject(&self, body: &Map<String, Value>) -> Subject;

    /// Whether a verified body is in no format of this forge's events, as those are that Forgejo sends for chats. Such
    /// a body claims to be of no repository, and [`Webhooks::parse`] refuses it whatever its event is called.
    fn is_foreign(&self, body: &Map<String, Value>) -> bool;

    /// Turns a verified body into triggers. Pure.
    ///
    /// # Errors
    /// When the body is not what the event's name says.
    fn parse(&self, event: &str, body: &[u8]) -> Result<Parsed, BadDelivery>;
}
