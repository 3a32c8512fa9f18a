//! The forges' own published API descriptions, used both ways: requests of the caller are checked, and
//! so are our answers, so that this forge cannot drift from the real ones.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::{Error, state::Kind};

/// Both descriptions, with the validators made so far (making one is slow, so each is made on first
/// use).
pub(crate) struct Schemas {
    documents: BTreeMap<Kind, Value>,
    made: Mutex<BTreeMap<String, Arc<Validator>>>,
}

impl std::fmt::Debug for Schemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schemas")
    }
}

/// What a description says about one call.
pub(crate) struct Operation {
    /// `POST /repos/{owner}/{repo}/check-runs`.
    pub(crate) name: String,
    kind: Kind,
    body: Value,
    answers: Value,
}

impl Schemas {
    /// Reads `forgejo.json` and `github.json` of this folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, Error> {
        let mut documents = BTreeMap::new();
        for kind in [Kind::Forgejo, Kind::Github] {
            let path = folder.join(format!("{}.json", kind.name()));
            let io = |source| Error::Io {
                path: path.clone(),
                source,
            };
            let text = std::fs::read(&path).map_err(io)?;
            let mut document: Value = serde_json::from_slice(&text).map_err(|e| io(e.into()))?;
            plain_json_schema(&mut document);
            documents.insert(kind, document);
        }
        Ok(Self {
            documents,
            made: Mutex::default(),
        })
    }

    /// The described operation of a request; `None` when the description has none.
    pub(crate) fn operation(&self, kind: Kind, method: &str, path: &str) -> Option<Operation> {
        let document = self.documents.get(&kind)?;
        let path = match kind {
            Kind::Forgejo => path,
            Kind::Github => path.strip_prefix("/api/v3")?,
        };
        let method = method.to_lowercase();
        let (template, item) = document["paths"]
            .as_object()?
            .iter()
            .filter(|(template, item)| item[&method].is_object() && fits(template, path))
            .min_by_key(|(template, _)| {
                (
                    template.split('/').count().abs_diff(path.split('/').count()),
                    template.matches('{').count(),
                )
            })?;
        let described = &item[&method];
        let body = match kind {
            Kind::Github => described["requestBody"]["content"]["application/json"]["schema"].clone(),
            Kind::Forgejo => described["parameters"]
                .as_array()
                .and_then(|all| all.iter().find(|p| p["in"] == "body"))
                .map_or(Value::Null, |p| p["schema"].clone()),
        };
        Some(Operation {
            name: format!("{} {template}", method.to_uppercase()),
            kind,
            body,
            answers: described["responses"].clone(),
        })
    }

    /// What is wrong with a request's body.
    pub(crate) fn check_request(&self, operation: &Operation, body: &Value) -> Option<String> {
        if operation.body.is_null() || body.is_null() {
            return None;
        }
        self.check(operation.kind, &operation.name, &operation.body, body)
    }

    /// What is wrong with an answer of ours.
    pub(crate) fn check_answer(&self, operation: &Operation, status: u16, body: &Value) -> Option<String> {
        let described = &operation.answers[status.to_string()];
        let described = match described["$ref"].as_str() {
            Some(reference) => self.documents[&operation.kind].pointer(reference.strip_prefix('#')?)?,
            None => described,
        };
        let schema = match operation.kind {
            Kind::Github => &described["content"]["application/json"]["schema"],
            Kind::Forgejo => &described["schema"],
        };
        if schema.is_null() || body.is_null() {
            return None;
        }
        let mut body = body.clone();
        if operation.kind == Kind::Forgejo {
            without_empty(&mut body);
        }
        self.check(operation.kind, &format!("{} {status}", operation.name), schema, &body)
            .map(|problem| format!("our answer {status}: {problem}"))
    }

    fn check(&self, kind: Kind, name: &str, schema: &Value, body: &Value) -> Option<String> {
        let validator = match self.validator(kind, name, schema) {
            Ok(validator) => validator,
            Err(problem) => return Some(problem),
        };
        let problems: Vec<String> = validator
            .iter_errors(body)
            .take(5)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    fn validator(&self, kind: Kind, name: &str, schema: &Value) -> Result<Arc<Validator>, String> {
        let key = format!("{} {name}", kind.name());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = made.get(&key) {
            return Ok(validator.clone());
        }
        // References point into the document, so the schema travels with the parts they name.
        let mut root = Map::new();
        for part in ["components", "definitions"] {
            if let Some(value) = self.documents[&kind].get(part) {
                root.insert(part.to_owned(), value.clone());
            }
        }
        root.insert("allOf".to_owned(), json!([schema]));
        let validator = jsonschema::draft4::new(&Value::Object(root))
            .map_err(|e| format!("the description itself cannot be used: {e}"))?;
        let validator = Arc::new(validator);
        made.insert(key, validator.clone());
        Ok(validator)
    }
}

/// Whether a path is an instance of a template; a template's last parameter may span several parts
/// (refs and file paths do).
fn fits(template: &str, path: &str) -> bool {
    let template: Vec<&str> = template.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    let spans = template
        .last()
        .is_some_and(|last| matches!(*last, "{ref}" | "{path}" | "{filepath}" | "{branch}"));
    (template.len() == path.len() || spans && path.len() > template.len())
        && template
            .iter()
            .zip(&path)
            .all(|(t, p)| t.starts_with('{') && !p.is_empty() || t == p)
}

/// Removes what a server in Go writes for "nothing" (`null` and `""`) and its description does not
/// mention.
fn without_empty(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null() && value != "");
            map.values_mut().for_each(without_empty);
        }
        _ => {}
    }
}

/// OpenAPI 3.0's `nullable` in JSON Schema's own words, and Go's `url` format in everybody's.
fn plain_json_schema(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(plain_json_schema),
        Value::Object(map) => {
            map.values_mut().for_each(plain_json_schema);
            if map.get("format").is_some_and(|f| f == "url") {
                map.insert("format".to_owned(), "uri".into());
            }
            if map.get("nullable").is_some_and(|n| n == true) {
                map.remove("nullable");
                let original = Value::Object(std::mem::take(map));
                map.insert("anyOf".to_owned(), json!([original, {"type": "null"}]));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_whole_paths_and_refs_may_span() {
        assert!(fits("/repos/{owner}/{repo}", "/repos/a/b"));
        assert!(!fits("/repos/{owner}/{repo}", "/repos/a/b/c"));
        assert!(fits(
            "/repos/{owner}/{repo}/git/ref/{ref}",
            "/repos/a/b/git/ref/heads/x/y"
        ));
        assert!(!fits("/repos/{owner}/{repo}", "/repos//b"));
    }

    #[test]
    fn nullable_becomes_a_choice() {
        let mut schema = json!({"properties": {"a": {"type": "string", "nullable": true}}});
        plain_json_schema(&mut schema);
        let validator = jsonschema::draft4::new(&schema).unwrap();
        assert!(validator.is_valid(&json!({"a": null})) && validator.is_valid(&json!({"a": "x"})));
        assert!(!validator.is_valid(&json!({"a": 1})));
    }
}
