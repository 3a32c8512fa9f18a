//! What libzonecfg says of an error, by its sentence.

/// The file is no configuration.
pub const INVALID_DOCUMENT: &str = "Invalid document";
/// A property cannot be so.
pub const BAD_PROPERTY: &str = "Bad document property";
/// A property's value is refused.
pub const INVALID_PROPERTY: &str = "Specified property is invalid";
/// There is none of this kind.
pub const NO_ENTRY: &str = "No such entry";
/// There is none like that.
pub const NO_RESOURCE_ID: &str = "No such resource with that id";
/// A capped resource is not there.
pub const NO_RESOURCE_TYPE: &str = "No such resource type";
/// The resource has no such property.
pub const NO_PROPERTY_TYPE: &str = "No such property type";
/// The property has no such value.
pub const NO_PROPERTY_ID: &str = "No such property with that id";
/// More than one is like that, or a resource is still open.
pub const INSUFFICIENT_SPEC: &str = "Insufficient specification";
/// Something of the zone itself is missing.
pub const REQD_RESOURCE_MISSING: &str = "Required resource missing";
/// Something of a resource is missing.
pub const REQD_PROPERTY_MISSING: &str = "Required property missing";
/// It is wrong otherwise.
pub const INVAL: &str = "Invalid argument";
/// It is too long.
pub const TOO_BIG: &str = "Argument list too long";
/// There is no such zone.
pub const NO_ZONE: &str = "No such zone configured";
pub const BAD_ZONE_STATE: &str = "Zone state is invalid for the requested operation";
/// It can be no zone's name.
pub const BOGUS_ZONE_NAME: &str = "Bogus zone name";
/// Another zone has it.
pub const NAME_IN_USE: &str = "Zone name already in use";
/// Two settings exclude each other.
pub const INCOMPATIBLE: &str = "Incompatible settings";
/// A control is there that the alias does not speak for.
pub const ALIAS_DISALLOW: &str = "An incompatible rctl already exists for this property";
/// It cannot be cleared.
pub const CLEAR_DISALLOW: &str = "Clearing this property is not allowed";
