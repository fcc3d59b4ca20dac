//! From nothing to an answered request and back, with helm, on a cluster with real kubelets. `make test-cluster`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{Cluster, ClusterPlan, HERALD_NAMESPACE, programs};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

const PATIENCE: Duration = Duration::from_mins(1);

/// When the first of Herald's containers ran, by kubelet's clock, which is this machine's.
fn first_container_started(cluster: &Cluster) -> Result<k8s_openapi::jiff::Timestamp> {
    let speakers = cluster.speakers()?;
    let started = |pod: &Pod| {
        let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
        Some(state.running.as_ref()?.started_at.as_ref()?.0)
    };
    let first = speakers.values().filter_map(started).min();
    first.with_context(|| {
        format!("none runs of {:?}", speakers.values().map(Pod::name_any).collect::<Vec<_>>())
    })
}

#[test]
#[ignore = "a full cluster: make test-cluster"]
fn installed_answered_removed_and_installed_again_with_the_same_addresses() -> Result<()> {
    let cluster = ClusterPlan::nodes(3).with_images(programs::images()?).start()?;
    // The application waits for its address, as one does that was there before Herald.
    cluster.run_backend("default", "web", &["n1", "n2"], "ipFamilyPolicy: SingleStack")?;
    let begun = Instant::now();
    let (helm, answered) = std::thread::scope(|scope| {
        let install = scope.spawn(|| cluster.install_herald(&[]));
        let answered = (|| {
            let address = *cluster.await_addresses("default", "web")?.first().context("no address")?;
            let given = begun.elapsed();
            cluster.client().http_get_again(address, 80, Duration::from_millis(200), PATIENCE)?;
            anyhow::Ok((given, begun.elapsed(), k8s_openapi::jiff::Timestamp::now()))
        })();
        (install.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), answered)
    });
    let (helm, (given, answered, at)) = (helm?, answered?);
    let ours = at.duration_since(first_container_started(&cluster)?);
    cluster.measured(&format!(
        "from `helm install`: EXTERNAL-IP after {given:?}, first answered request after {answered:?} (of which {ours:.1} \
         since the first speaker's container ran), helm --wait returned after {helm:?}"
    ));

    let address = *cluster.await_addresses("default", "web")?.first().context("no address")?;
    cluster.await_holder(address)?;
    cluster.run_backend("default", "second", &["n3"], "ipFamilyPolicy: SingleStack")?;
    cluster.await_holder(*cluster.await_addresses("default", "second")?.first().context("no address")?)?;
    let addresses = |cluster: &Cluster| -> Result<BTreeMap<String, Vec<IpAddr>>> {
        Ok(cluster.address_book()?.into_iter().map(|(name, listed)| (name, listed.addresses)).collect())
    };
    let before = addresses(&cluster)?;
    cluster.helm(&["uninstall", "herald", "--namespace", HERALD_NAMESPACE, "--wait"])?;
    ensure!(addresses(&cluster)? == before, "uninstalling took addresses: {before:?}");
    ensure!(
        cluster.all_lbips()?.len() == 2,
        "uninstalling deleted LoadBalancerIPs: {:?}",
        cluster.all_lbips()?
    );
    let begun = Instant::now();
    cluster.install_herald(&[])?;
    cluster.client().forget_neighbours()?;
    cluster.client().http_get_again(address, 80, Duration::from_millis(200), PATIENCE)?;
    cluster.measured(&format!("installed again: answered after {:?}", begun.elapsed()));
    cluster.await_holder(address)?;
    ensure!(addresses(&cluster)? == before, "{:?} after {before:?}", addresses(&cluster)?);
    Ok(())
}
