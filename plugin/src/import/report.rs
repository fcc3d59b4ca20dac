//! The plan in print.

use super::{
    finding::Finding,
    plan::{Fate, Plan},
};
use crate::{Failure, table::table};

/// Herald's objects, as `kubectl apply -f -` reads them.
pub fn manifests(plan: &Plan) -> Result<String, Failure> {
    let mut text = String::new();
    for manifest in &plan.manifests {
        let yaml = serde_yaml::to_string(&manifest.value())
            .map_err(|error| Failure::cluster(format!("{} {}: {error}", manifest.kind, manifest.name)))?;
        text.push_str("---\n");
        text.push_str(&yaml);
    }
    Ok(text)
}

/// What a person reads.
pub fn report(plan: &Plan) -> String {
    let mut text = String::new();
    if !plan.services.is_empty() {
        let rows: Vec<_> = plan
            .services
            .iter()
            .map(|row| {
                let shows: Vec<String> = row.shows.iter().map(ToString::to_string).collect();
                let then = match &row.fate {
                    Fate::Keeps { pool } => format!("of pool {pool}"),
                    Fate::Gets(to) | Fate::Changes(to) => to.to_string(),
                    Fate::Waits | Fate::LeftAlone | Fate::NotServed => String::new(),
                };
                let shows = if shows.is_empty() { "-".to_owned() } else { shows.join(",") };
                [
                    row.service.namespace.to_string(),
                    row.service.name.to_string(),
                    shows,
                    row.fate.word().to_owned(),
                    then,
                ]
            })
            .collect();
        text += &table(["NAMESPACE", "SERVICE", "ADDRESS", "WITH HERALD", ""], &rows);
        text.push('\n');
    }
    if !plan.findings.is_empty() {
        let row = |finding: &Finding| {
            [
                format!("{:?}", finding.weight()),
                finding.code().to_owned(),
                finding.about(),
                finding.to_string(),
            ]
        };
        let rows: Vec<_> = plan.findings.iter().map(row).collect();
        text += &table(["WEIGHT", "CODE", "ABOUT", "WHAT"], &rows);
        text.push('\n');
    }
    text + &summary(plan)
}

fn summary(plan: &Plan) -> String {
    let count = |wanted: fn(&Fate) -> bool| plan.services.iter().filter(|row| wanted(&row.fate)).count();
    let shown = plan.services.iter().filter(|row| !row.shows.is_empty()).count();
    let kept = count(|fate| matches!(fate, Fate::Keeps { .. }));
    let changed = count(|fate| matches!(fate, Fate::Changes(_)));
    let objects = plan.manifests.len();
    let problems =
        if plan.has_problems() { "there are problems: --apply would refuse" } else { "no problems" };
    format!(
        "{objects} objects; of {shown} Services with an address {kept} keep it, {changed} would get another, {} would \
         not be served; {problems}\n",
        shown.saturating_sub(kept + changed)
    )
}
