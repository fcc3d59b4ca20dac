//! The CRDs' own rules, asked of a real API server: one manifest that each accepts and one that it refuses.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::{Plan, programs};

#[test]
fn every_rule_accepts_its_good_manifest_and_refuses_its_bad_one_with_its_own_words() -> Result<()> {
    let lab = Plan::nodes(0).without_herald().start()?;
    lab.apply_manifests()?;
    let dir = programs::workspace().join("crds/examples");
    let files: Vec<PathBuf> =
        std::fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let mut wrong = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let name = file.display().to_string();
        let answer = lab.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &name]);
        if name.ends_with(".accepted.yaml") {
            accepted += 1;
            if let Err(error) = answer {
                wrong.push(format!("{name} was refused: {error:#}"));
            }
        } else if name.ends_with(".refused.yaml") {
            refused += 1;
            let words = text.lines().next().and_then(|line| line.strip_prefix("# refused: "));
            let words = words.with_context(|| format!("{name} does not begin with '# refused: words'"))?;
            match answer {
                Ok(_) => wrong.push(format!("{name} was accepted")),
                Err(error) if !format!("{error:#}").contains(words) => {
                    wrong.push(format!("{name} was not refused with {words:?} but: {error:#}"));
                }
                Err(_) => {}
            }
        } else {
            bail!("{name} is neither .accepted.yaml nor .refused.yaml");
        }
    }
    ensure!(
        accepted > 0 && accepted == refused,
        "{accepted} to accept, {refused} to refuse: they come in pairs"
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn an_address_never_changes_and_its_revision_only_grows() -> Result<()> {
    let lab = Plan::nodes(0).without_herald().start()?;
    lab.apply_manifests()?;
    lab.kubectl_apply(
        "{apiVersion: heraldlb.io/v1beta1, kind: LoadBalancerIP, metadata: {name: 10.0.0.1}, \
         spec: {address: 10.0.0.1, claimRef: {namespace: shop, name: web}}}",
    )?;
    let patch =
        |spec: &str| lab.kubectl(&["patch", "loadbalancerip", "10.0.0.1", "--type=merge", "--patch", spec]);
    patch(r#"{"spec": {"address": "10.0.0.1", "revision": 7}}"#)?;
    for (spec, words) in [
        (r#"{"spec": {"revision": 6}}"#, "spec.revision only grows"),
        (r#"{"spec": {"address": "10.0.0.2"}}"#, "the address of a LoadBalancerIP can't change"),
    ] {
        match patch(spec) {
            Ok(_) => bail!("{spec} was accepted"),
            Err(error) => ensure!(format!("{error:#}").contains(words), "{spec}: {error:#}"),
        }
    }
    Ok(())
}
