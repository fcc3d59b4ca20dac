//! Objects as they were found, from a file or the cluster, and reading their fields one by one.
//!
//! What must always hold: a field that can't be read is named with its object and where that stands, and a field that
//! nobody reads is reported, never silently lost.

use std::{fmt, path::Path};

use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A Kubernetes object as found.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Where it was found; empty for the cluster.
    pub origin: String,
    /// `apiVersion` without its version: the API group.
    pub group: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// All of it.
    pub value: Value,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Something that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{at}: {error}")]
pub struct BadInput {
    /// File, document, object and field.
    pub at: String,
    /// What is wrong.
    pub error: String,
}

impl BadInput {
    /// At a place that is no object.
    pub fn new(at: impl Into<String>, error: &(impl ToString + ?Sized)) -> Self {
        Self { at: at.into(), error: error.to_string() }
    }
}

impl Object {
    /// Reads what every object has.
    pub fn new(origin: &str, value: Value) -> Result<Self, BadInput> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let missing =
            |field: &str| BadInput::new(origin, &format!("{field} is missing: is this a Kubernetes object?"));
        let kind = text("/kind").ok_or_else(|| missing("kind"))?;
        let version = text("/apiVersion").ok_or_else(|| missing("apiVersion"))?;
        let group = version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default();
        let name = text("/metadata/name").ok_or_else(|| missing("metadata.name"))?;
        let namespace = text("/metadata/namespace");
        Ok(Self { origin: origin.to_owned(), group, kind, namespace, name, value })
    }

    /// The fields at `path` (dots between names).
    pub fn fields(&self, path: &str) -> Result<Fields<'_>, BadInput> {
        let pointer = format!("/{}", path.replace('.', "/"));
        Fields::new(self, path.to_owned(), self.value.pointer(&pointer))
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> Result<std::collections::BTreeMap<String, String>, BadInput> {
        let mut metadata = self.fields("metadata")?;
        Ok(metadata.take("labels")?.unwrap_or_default())
    }

    /// Reads it as a type of its own.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, BadInput> {
        serde_json::from_value(self.value.clone()).map_err(|error| self.bad("", &error))
    }

    /// An error at one of its fields.
    pub fn bad(&self, field: &str, error: &(impl ToString + ?Sized)) -> BadInput {
        let origin = if self.origin.is_empty() { String::new() } else { format!("{}: ", self.origin) };
        let field = if field.is_empty() { String::new() } else { format!(": {field}") };
        BadInput::new(format!("{origin}{self}{field}"), error)
    }
}

/// The fields of a map that nobody has read yet.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Object,
    path: String,
    left: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Of a value that may be absent.
    pub fn new(object: &'a Object, path: String, value: Option<&Value>) -> Result<Self, BadInput> {
        let left = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => map.clone(),
            Some(_) => return Err(object.bad(&path, "must be a map of fields")),
        };
        Ok(Self { object, path, left })
    }

    /// Reads a field; absent and null are the same.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, BadInput> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                T::deserialize(value).map(Some).map_err(|error| self.object.bad(&self.path_of(name), &error))
            }
        }
    }

    /// Reads a map in a field.
    pub fn take_map(&mut self, name: &str) -> Result<Option<Fields<'a>>, BadInput> {
        let path = self.path_of(name);
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Self::new(self.object, path, Some(&value)).map(Some),
        }
    }

    /// The paths of those that nobody read.
    pub fn unread(self) -> Vec<String> {
        self.left.keys().map(|name| format!("{}.{name}", self.path)).collect()
    }

    /// The path of one of them.
    pub fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}

/// Reads a file (`-`: stdin).
pub fn read_file(path: &Path) -> Result<Vec<Object>, Vec<BadInput>> {
    let stdin = path == Path::new("-");
    let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
    let text = if stdin { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    match text {
        Ok(text) => documents(&name, &text),
        Err(error) => Err(vec![BadInput::new(name, &format!("can't be read: {error}"))]),
    }
}

/// The objects in the documents of a YAML text; lists are taken apart, empty documents skipped.
pub fn documents(file: &str, text: &str) -> Result<Vec<Object>, Vec<BadInput>> {
    let (mut objects, mut bad) = (Vec::new(), Vec::new());
    for (number, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let origin = format!("{file}, document {}", number + 1);
        match Value::deserialize(document) {
            Ok(Value::Null) => {}
            Ok(value) => collect(&origin, value, &mut objects, &mut bad),
            Err(error) => {
                bad.push(BadInput::new(origin, &error));
                // Behind a syntax error there are no documents to be told apart.
                break;
            }
        }
    }
    if bad.is_empty() { Ok(objects) } else { Err(bad) }
}

fn collect(origin: &str, mut value: Value, objects: &mut Vec<Object>, bad: &mut Vec<BadInput>) {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            for (number, item) in items.into_iter().enumerate() {
                collect(&format!("{origin}, item {}", number + 1), item, objects, bad);
            }
        }
        Some(_) if is_list => bad.push(BadInput::new(origin, "items must be a list")),
        _ => match Object::new(origin, value) {
            Ok(object) => objects.push(object),
            Err(error) => bad.push(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str =
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: lan, namespace: m}\n";

    #[test]
    fn documents_lists_and_empty_documents_are_read() {
        let list = format!("kind: List\napiVersion: v1\nitems:\n- {}", POOL.trim_end().replace('\n', "\n  "));
        let text = format!("---\n{POOL}---\n# nothing\n---\n{list}\n");
        let objects = documents("f.yaml", &text).unwrap();
        let named: Vec<_> = objects.iter().map(|object| format!("{}: {object}", object.origin)).collect();
        let wanted =
            ["f.yaml, document 1: IPAddressPool m/lan", "f.yaml, document 3, item 1: IPAddressPool m/lan"];
        assert_eq!(named, wanted);
    }

    #[test]
    fn what_is_no_object_is_named_with_its_document() {
        for (text, says) in [
            ("a: [", "f, document 1: "),
            ("just text", "f, document 1: kind is missing"),
            ("kind: List\napiVersion: v1\nitems: 7", "f, document 1: items must be a list"),
            ("kind: A\napiVersion: v1\nmetadata: {}", "f, document 1: metadata.name is missing"),
        ] {
            let bad = documents("f", text).unwrap_err();
            assert!(bad[0].to_string().starts_with(says), "{text}: {bad:?}");
        }
    }

    #[test]
    fn a_field_that_cant_be_read_is_named_and_one_that_nobody_reads_is_left_over() {
        let text =
            format!("{POOL}spec: {{addresses: 10.0.0.0/24, more: 1, autoAssign: null, deep: {{a: 1}}}}");
        let objects = documents("f", &text).unwrap();
        let mut spec = objects[0].fields("spec").unwrap();
        assert_eq!(spec.take::<bool>("autoAssign"), Ok(None));
        let error = spec.take::<Vec<String>>("addresses").unwrap_err().to_string();
        let wanted =
            "f, document 1: IPAddressPool m/lan: spec.addresses: invalid type: string \"10.0.0.0/24\"";
        assert!(error.starts_with(wanted), "{error}");
        let deep = spec.take_map("deep").unwrap().unwrap();
        assert_eq!(deep.unread(), ["spec.deep.a"]);
        assert_eq!(spec.unread(), ["spec.more"]);
    }
}
