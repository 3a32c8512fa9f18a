//! `database`: a file, or a Postgres URL that stands in a file of its own.

use std::path::Path;

use super::{
    Database,
    read::{Map, Reader},
};
use crate::yaml::Value;

pub(super) fn read(reader: &mut Reader, top: &Map<'_>, data_dir: &Path) -> Database {
    let default = Database::Sqlite(data_dir.join("helios-ci.db"));
    let Some(node) = top.get("database") else {
        return default;
    };
    let help = "write `sqlite`, `{sqlite: /path}` or `{postgres: file:/path/of/its/url}`";
    match &node.value {
        Value::Scalar(scalar) if scalar.written == "sqlite" => default,
        Value::Mapping(_) => {
            let map = reader.map(node, "database", &["sqlite", "postgres"]);
            match (map.get("sqlite"), map.get("postgres")) {
                (Some(path), None) => reader
                    .path(Some(path), "database.sqlite")
                    .map_or(default, Database::Sqlite),
                (None, Some(url)) => match reader.secret(url, "database.postgres") {
                    Some(secret)
                        if secret.expose().starts_with("postgres://")
                            || secret.expose().starts_with("postgresql://") =>
                    {
                        Database::Postgres(secret)
                    }
                    Some(_) => {
                        let message = "database.postgres: the file does not hold a `postgres://` URL";
                        reader.problem(url.span, message, None);
                        default
                    }
                    None => default,
                },
                _ => {
                    reader.problem(
                        node.span,
                        "database must be exactly one of sqlite and postgres",
                        help.to_owned(),
                    );
                    default
                }
            }
        }
        // The text is not repeated: it may be a URL with a password.
        _ => {
            reader.problem(node.span, "this is no database", help.to_owned());
            default
        }
    }
}
