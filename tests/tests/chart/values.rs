//! Values: all have a schema, and wrong ones are refused with their path and what is allowed.

use anyhow::{Context as _, Result, ensure};
use herald_lab::programs::Helm;
use serde_json::Value;

use crate::{documents, file, helm_of, template, template_of};

/// Arguments that are refused, and words that the refusal must hold.
const REFUSED: [(&[&str], &[&str]); 38] = [
    (&["--set=pool=x"], &["additional properties 'pool' not allowed"]),
    (&["--set=speaker.profil=fast"], &["'/speaker'", "'profil' not allowed"]),
    (&["--set=speaker.profile=quick"], &["'/speaker/profile'", "'default', 'fast'"]),
    (&["--set=speaker.adminListen=0.0.0.0"], &["'/speaker/adminListen'", "'Loopback', 'NodeIP'"]),
    (&["--set=speaker.adminPort=70000"], &["'/speaker/adminPort'", "65,535"]),
    // Not root on the node's network: it can't open one of the first 1,023.
    (&["--set=speaker.adminPort=80"], &["'/speaker/adminPort'", "1,024"]),
    (
        &["--set=speaker.updateStrategy=Recreate"],
        &["'/speaker/updateStrategy'", "'RollingUpdate', 'OnDelete'"],
    ),
    (&["--set=speaker.maxUnavailable=0"], &["'/speaker/maxUnavailable'"]),
    (&["--set=speaker.maxUnavailable=101%"], &["'/speaker/maxUnavailable'"]),
    (&["--set=speaker.interfaces={averyveryverylongname}"], &["'/speaker/interfaces/0'"]),
    (&["--set=speaker.tolerations[0].effect=Never"], &["'/speaker/tolerations/0/effect'", "'NoSchedule'"]),
    (&["--set=controller.replicas=0"], &["'/controller/replicas'", "want 1"]),
    (&["--set=controller.replicas=two"], &["'/controller/replicas'", "want integer"]),
    (&["--set=controller.image.digest=abc"], &["'/controller/image/digest'", "sha256:"]),
    (&["--set=controller.podLabels.a=1"], &["'/controller/podLabels/a'", "want string"]),
    (&["--set=image.pullPolicy=always"], &["'/image/pullPolicy'", "'Always', 'IfNotPresent', 'Never'"]),
    (&["--set=image.registry=https://example.com"], &["'/image/registry'"]),
    (&["--set=loadBalancerClass=a b"], &["'/loadBalancerClass'"]),
    (&["--set=helloKey.existingSecret=My_Secret"], &["'/helloKey/existingSecret'"]),
    (&["--set=networkPolicy.apiServerPorts={}"], &["'/networkPolicy/apiServerPorts"]),
    (&["--set=pools[0].name=x"], &["'/pools/0'", "missing property 'addresses'"]),
    (
        &["--set=pools[0].addresses={10.0.0.1},pools[0].autoassign=false"],
        &["'/pools/0'", "'autoassign' not allowed"],
    ),
    (
        &["--set=pools[0].addresses={10.0.0.1},pools[0].reclaimPolicy=Keep"],
        &["'/pools/0/reclaimPolicy'", "'Delete', 'Retain'"],
    ),
    (&["--set=pools[0].addresses={192.168.1.300}"], &["pools[0].addresses[0]", "192.168.1.240/28"]),
    (&["--set=pools[0].addresses={10.0.0.9-10.0.0.1}"], &["pools[0].addresses[0]", "START first"]),
    (&["--set=pools[0].addresses={10.0.0.0/33}"], &["pools[0].addresses[0]"]),
    (&["--set=pools[0].addresses={fd00::/129}"], &["pools[0].addresses[0]"]),
    (&["--set=pools[0].addresses={fd00::9-fd00::1}"], &["pools[0].addresses[0]", "START first"]),
    (&["--set=pools[0].addresses={fd00::12345}"], &["pools[0].addresses[0]"]),
    (&["--set=pools[0].addresses={192.168.1.10-fd98::1}"], &["pools[0].addresses[0]"]),
    (
        &["--set=pools[0].addresses={10.0.0.1},pools[1].addresses={10.0.0.2}"],
        &["pools[1] is called \"default\", as pools[0] is"],
    ),
    (&["--set=metrics.podMonitor.enabled=true"], &["speaker.adminListen to NodeIP"]),
    (&["--set=metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true"], &["scraped twice"]),
    (&["--set=speaker.adminPort=7480"], &["controller.adminPort and speaker.adminPort"]),
    (&["--set=image=null"], &["missing property 'image'"]),
    (&["--set=metrics.podMonitor=null"], &["'/metrics'", "missing property 'podMonitor'"]),
    (&["--set=speaker.adminPort=null"], &["'/speaker'", "missing property 'adminPort'"]),
    (&["--set=image.tag=1.2.3", DIGEST], &["speaker.image.digest is set", "--set controller.image.digest=,"]),
];

const DIGEST: &str = "--set=speaker.image.digest=\
                      sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_wrong_value_is_refused_with_its_path_and_what_is_allowed() -> Result<()> {
    let mut wrong = Vec::new();
    for ((args, words), helm) in REFUSED.into_iter().flat_map(|each| Helm::ALL.map(|helm| (each, helm))) {
        match template_of(helm, args) {
            Ok(_) => wrong.push(format!("{args:?} was taken by {helm:?}")),
            Err(error) => {
                let error = format!("{error:#}");
                for word in words.iter().filter(|word| !error.contains(**word)) {
                    wrong.push(format!("{args:?}: no {word:?} in {error}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn what_may_be_missing_may_be_null() -> Result<()> {
    let absent =
        ["pools", "speaker.podLabels", "speaker.nodeSelector", "speaker.resources", "controller.affinity"];
    for value in absent {
        documents(&template(&[&format!("--set={value}=null")])?).with_context(|| value.to_owned())?;
    }
    Ok(())
}

#[test]
fn addresses_of_every_form_are_taken() -> Result<()> {
    let all = "192.168.1.1,192.168.1.0/24,0.0.0.0/0,10.0.0.1 - 10.0.0.9,10.0.0.1-10.0.0.1,fd00::f0/124,fd00::1-fd00::9,::1,fd00::1.2.3.4";
    template(&[&format!("--set=pools[0].addresses={{{all}}}")])?;
    Ok(())
}

#[test]
fn kubernetes_older_than_1_31_is_refused_with_the_version_that_is_needed() -> Result<()> {
    let Err(error) = template(&["--kube-version=v1.30.9"]) else {
        anyhow::bail!("Kubernetes 1.30 was accepted");
    };
    let error = format!("{error:#}");
    ensure!(error.contains(">=1.31.0") && error.contains("v1.30.9"), "{error}");
    // Vendors put a suffix behind the version, which semantic versioning takes for older.
    template(&["--kube-version=v1.31.0-eks-1234"])?;
    template(&["--kube-version=v1.31.0+k3s1"])?;
    Ok(())
}

#[test]
fn every_value_has_a_schema_and_every_schema_a_value() -> Result<()> {
    let (values, schema) = (file("charts/herald/values.yaml")?, file("charts/herald/values.schema.json")?);
    let mut wrong = Vec::new();
    compare("", &values, &schema, &mut wrong);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Notes where the fields of `values` and of its schema are not the same, and where one lacks its words.
fn compare(path: &str, values: &Value, schema: &Value, wrong: &mut Vec<String>) {
    // Of a parent chart, a selector's free map, or an entry's fields: nothing of the chart's own.
    let (Some(values), Some(fields)) = (values.as_object(), schema["properties"].as_object()) else { return };
    if schema["additionalProperties"] != Value::Bool(false) {
        wrong.push(format!("{path}: its schema takes unknown fields"));
    }
    let optional = ["global", "nodeAffinity", "podAffinity", "podAntiAffinity"];
    for name in fields.keys().filter(|name| !values.contains_key(*name) && !optional.contains(&name.as_str()))
    {
        wrong.push(format!("{path}.{name} is in the schema and not in values.yaml"));
    }
    for (name, value) in values {
        match fields.get(name) {
            Some(schema) => compare(&format!("{path}.{name}"), value, schema, wrong),
            None => wrong.push(format!("{path}.{name} has no schema")),
        }
    }
}

#[test]
fn lint_finds_nothing() -> Result<()> {
    for (_, args) in crate::SETS {
        for helm in Helm::ALL {
            helm_of(helm, &[&["lint", "--strict", "charts/herald"], args].concat())?;
        }
    }
    Ok(())
}

#[test]
fn the_charts_version_and_the_images_are_the_programs() -> Result<()> {
    let chart = file("charts/herald/Chart.yaml")?;
    for field in ["version", "appVersion"] {
        ensure!(chart[field] == env!("CARGO_PKG_VERSION"), "{field} of Chart.yaml is {}", chart[field]);
    }
    Ok(())
}
