//! The reference pages that are made from the chart: its values and its rights, with the comments beside them.

use std::fmt::Write as _;

/// One value of the chart, as values.yaml shows it.
struct Row {
    path: String,
    default: String,
    text: String,
}

/// The table of all values: path, default, and the comment above it.
pub(crate) fn values(yaml: &str) -> String {
    let mut page = "<!-- Made from charts/herald/values.yaml by `cargo xtask manifests`; edit that. -->\n\n\
         # Values of the chart\n\n\
         `helm show values` prints the same with its comments; values.schema.json beside it refuses what is not allowed, \
         and unknown names.\n\n\
         | value | default | |\n|---|---|---|\n"
        .to_owned();
    for Row { path, default, text } in rows(yaml) {
        let default = if default.is_empty() { String::new() } else { format!("`{}`", cell(&default)) };
        // Writing to a String can't fail.
        let _ = writeln!(page, "| `{path}` | {default} | {} |", cell(&text));
    }
    page
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn rows(yaml: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() {
            comment.clear();
        } else if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some(item) = text.strip_prefix("- ") {
            // A list's entries are the default of the key above them.
            if let Some(row) = rows.last_mut() {
                let entries = row.default.trim_start_matches('[').trim_end_matches(']');
                let sep = if entries.is_empty() { "" } else { ", " };
                row.default = format!("[{entries}{sep}{item}]");
            }
        } else if let Some((key, value)) = text.split_once(':') {
            parents.retain(|(depth, _)| *depth < indent);
            parents.push((indent, key));
            let path: Vec<&str> = parents.iter().map(|(_, key)| *key).collect();
            let row = Row { path: path.join("."), default: value.trim().to_owned(), text: comment.join(" ") };
            comment.clear();
            rows.push(row);
        }
    }
    // A parent without words of its own says nothing that its children don't.
    let only_parent = |row: &Row| row.default.is_empty() && row.text.is_empty();
    rows.retain(|row| !only_parent(row));
    rows
}

/// The table of all rights: whose, where (`own` is Herald's namespace), what, and the comment above the rule.
pub(crate) fn rights(yaml: &str, own: &str) -> String {
    let mut page = "<!-- Made from charts/herald by `cargo xtask manifests`; edit that. -->\n\n\
         # What each right is for\n\n\
         The chart gives these rights and no others. *Where* is the cluster, Herald's own namespace, or the one named. The rights of \
         `herald-crds` exist only while its Job runs, before an upgrade; if helm is killed meanwhile, until the next one.\n\n\
         | who | where | what | may | for what |\n|---|---|---|---|---|\n"
        .to_owned();
    let (mut place, mut who, mut comment) = ("", "", Vec::new());
    let (mut group, mut what, mut only) = ("", "", "");
    for line in yaml.lines() {
        let text = line.trim_start().trim_start_matches("- ");
        let (key, value) = text.split_once(": ").unwrap_or((text, ""));
        let list = value.trim_matches(['[', ']']);
        match key {
            "kind" if value == "ClusterRole" => place = "cluster",
            "kind" if value == "Role" => place = "namespace",
            "kind" => place = "",
            "namespace" if place == "namespace" && line.starts_with("  namespace: ") && value != own => {
                place = value;
            }
            // The first one of a document; subjects and labels are deeper.
            "name" if line.starts_with("  name: ") => who = value,
            "apiGroups" => (group, only) = (list.trim_matches('"'), ""),
            "resources" => what = list,
            "resourceNames" => only = list,
            "verbs" if !place.is_empty() => {
                let suffix = if group.is_empty() { String::new() } else { format!(" ({group})") };
                let named: Vec<&str> = only
                    .split(',')
                    .map(|name| name.trim_matches([' ', '"']))
                    .filter(|name| !name.is_empty())
                    .collect();
                let named =
                    if named.is_empty() { String::new() } else { format!(" named {}", named.join(", ")) };
                let words = cell(&comment.join(" "));
                // Writing to a String can't fail.
                let _ = writeln!(page, "| {who} | {place} | {what}{suffix}{named} | {list} | {words} |");
                comment.clear();
            }
            _ => match line.strip_prefix("  # ") {
                Some(words) => comment.push(words),
                None if line == "rules:" => comment.clear(),
                None => {}
            },
        }
    }
    page
}
