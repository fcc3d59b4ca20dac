//! What is made from the API types in `crds/src`: the CRD manifests, in `crds/manifests/`, in the chart and among the
//! plain manifests, and the chart's schema of pools and advertisements, whose fields are the objects' own.

use anyhow::Context as _;
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use crate::generated::Generated;

const HEADER: &str = "# Made from the types in crds/src by `cargo xtask crds`; edit those.\n";
const SCHEMA: &str = "charts/herald/values.schema.json";
/// Kinds that the chart's values hold lists of, and the schema's name for one entry.
const IN_VALUES: [(&str, &str); 2] = [("IPAddressPool", "pool"), ("L2Advertisement", "l2Advertisement")];

/// Writes or checks all of it.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let files = Generated::new("cargo xtask crds", check);
    let mut all = HEADER.to_owned();
    let mut names = Vec::new();
    let mut schema: Value = serde_json::from_str(&files.read(SCHEMA)?).context(SCHEMA)?;
    for crd in herald_crds::all() {
        let name = format!("{}.yaml", crd.name_any());
        let text = serde_yaml::to_string(&crd).with_context(|| format!("serialising {}", crd.name_any()))?;
        for dir in ["crds/manifests", "charts/herald/crds"] {
            files.put(format!("{dir}/{name}"), &format!("{HEADER}{text}"))?;
        }
        all = format!("{all}---\n{text}");
        names.push(name);
        if let Some((_, entry)) = IN_VALUES.iter().find(|(kind, _)| *kind == crd.spec.names.kind) {
            let crd = serde_json::to_value(&crd)?;
            let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
            let spec = spec.with_context(|| format!("the CRD of {entry} has no spec"))?;
            let defs = schema.pointer_mut("/$defs").and_then(Value::as_object_mut);
            let defs = defs.with_context(|| format!("{SCHEMA} has no $defs"))?;
            defs.insert((*entry).to_owned(), in_values(spec));
        }
    }
    for dir in ["crds/manifests", "charts/herald/crds"] {
        files.nothing_else(dir, ".yaml", &names)?;
    }
    files.put("manifests/crds.yaml", &all)?;
    files.put(SCHEMA, &(serde_json::to_string_pretty(&schema)? + "\n"))
}

/// The schema of one entry of the values: the object's name, labels and annotations beside the fields of its spec.
fn in_values(spec: &Value) -> Value {
    let mut entry = plain(spec);
    if let Some(fields) = entry.pointer_mut("/properties").and_then(Value::as_object_mut) {
        let words = |of: &str| {
            json!({
                "description": format!("The object's {of}."),
                "type": "object", "additionalProperties": { "type": "string" },
            })
        };
        fields.insert("labels".to_owned(), words("labels"));
        fields.insert("annotations".to_owned(), words("annotations"));
        fields.insert(
            "name".to_owned(),
            json!({
                "description": "The object's name; `default` where none is given.",
                "type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            }),
        );
    }
    entry
}

/// A CRD's structural schema as plain JSON Schema that knows no other fields.
fn plain(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut result = Map::new();
    for (key, value) in schema {
        match key.as_str() {
            // The API server checks the rules and the formats; null means what absence means.
            "format" | "nullable" | "title" => {}
            rule if rule.starts_with("x-kubernetes-") => {}
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                let fields: Map<String, Value> =
                    fields.map(|(name, field)| (name.clone(), plain(field))).collect();
                result.insert(key.clone(), Value::Object(fields));
                result.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            "items" | "additionalProperties" => {
                result.insert(key.clone(), plain(value));
            }
            _ => {
                result.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(result)
}
