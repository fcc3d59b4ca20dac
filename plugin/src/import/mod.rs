//! `kubectl herald import metallb`: MetalLB's configuration as Herald's, without a Service changing its address.
//!
//! Read ([`source`], [`live`]) → decide ([`convert`], [`plan`]; no I/O) → print ([`report`]) → with `--apply`: write and
//! watch ([`apply`]) → with `--take-over`: take the status field over ([`takeover`]).

pub mod apply;
pub mod convert;
pub mod finding;
pub mod live;
pub mod plan;
pub mod report;
pub mod source;
pub mod takeover;

use std::{fmt::Display, time::Duration};

use herald_controller::objects::{
    node::{KnownNode, Labelled, NodeObject},
    service::ServiceObject,
};
use kube::api::ObjectMeta;

use self::{
    finding::Finding,
    plan::{Plan, plan},
    source::{BadInput, Object},
};
use crate::{
    Exit, Failure,
    cli::{ClusterFlags, ImportOutput, Metallb},
    cluster::{Cluster, Unseen, connect},
    judge::World,
    print, tell,
};

/// Runs `import metallb`.
pub async fn run(cluster_flags: &ClusterFlags, flags: &Metallb) -> Result<Exit, Failure> {
    let cluster = if flags.offline { None } else { Some(connect(cluster_flags).await?) };
    let mut objects = read(&flags.filename)?;
    let class = cluster_flags.load_balancer_class.clone();
    let (world, installed) = match &cluster {
        Some(cluster) => {
            if flags.filename.is_empty() {
                objects = live::metallb(cluster).await?;
            }
            live::world(cluster, class).await?
        }
        None => (offline_world(&objects, class)?, true),
    };
    let mut plan = plan(&objects, flags.metallb_namespace.as_deref(), &world, cluster.is_some())
        .map_err(|bad| all(&bad))?;
    let running = match &cluster {
        Some(cluster) if flags.apply => running(cluster, flags.i_stopped_metallb).await?,
        _ => Running::default(),
    };
    let Running { deployments: running, unseen } = running;
    let metallb_runs = !running.is_empty();
    let runs = running.into_iter().map(|deployment| Finding::StillRuns { deployment });
    plan.findings.splice(0..0, runs);
    show(&plan, flags.output)?;
    let Some(cluster) = cluster.filter(|_| flags.apply) else {
        return Ok(if plan.has_problems() { Exit::Problems } else { Exit::Done });
    };
    if plan.has_problems() && !flags.despite_problems {
        tell("nothing was applied: solve the problems above, or say --despite-problems");
        return Ok(Exit::Problems);
    }
    if let Some(unseen) = unseen.filter(|_| !flags.despite_problems) {
        tell(&format!(
            "nothing was applied: whether MetalLB's controller runs can't be seen: {unseen}. While it runs, both give \
             the same addresses to new Services: stop it and say --i-stopped-metallb"
        ));
        return Ok(Exit::Problems);
    }
    if metallb_runs && flags.take_over {
        tell("nothing was applied: you say that MetalLB's controller is stopped, and it is not (see above)");
        return Ok(Exit::Problems);
    }
    if !installed {
        return Err(Failure::cluster(
            "Herald's CRDs are not installed in this cluster: install Herald first, then run this again",
        ));
    }
    apply_and_watch(&cluster, &plan, flags).await
}

fn read(files: &[std::path::PathBuf]) -> Result<Vec<Object>, Failure> {
    let (mut objects, mut bad) = (Vec::new(), Vec::new());
    for file in files {
        match source::read_file(file) {
            Ok(read) => objects.extend(read),
            Err(errors) => bad.extend(errors),
        }
    }
    if bad.is_empty() { Ok(objects) } else { Err(all(&bad)) }
}

fn all(bad: &[BadInput]) -> Failure {
    Failure::input(bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nerror: "))
}

/// Services and Namespaces that stand in the files.
pub fn offline_world(objects: &[Object], class: Option<String>) -> Result<World, Failure> {
    let mut world = World { class, all_services: true, ..World::default() };
    for object in objects.iter().filter(|object| object.group.is_empty()) {
        match object.kind.as_str() {
            "Service" => {
                let service: ServiceObject = object.parse().map_err(|error| all(&[error]))?;
                world.services.push(service.into());
            }
            "Namespace" => {
                let labels = object.labels().map_err(|error| all(&[error]))?;
                let metadata = ObjectMeta {
                    name: Some(object.name.clone()),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                };
                world.namespaces.push(Labelled::from(metadata));
            }
            "Node" => {
                let node: NodeObject = object.parse().map_err(|error| all(&[error]))?;
                world.node_addresses.extend(KnownNode::from(node).addresses);
            }
            _ => {}
        }
    }
    Ok(world)
}

/// What is known of MetalLB's controller.
#[derive(Default)]
struct Running {
    /// Its Deployments that are not scaled to nothing.
    deployments: Vec<String>,
    /// Why that is not known, where nobody has said either that it is stopped.
    unseen: Option<Unseen>,
}

/// A right that is missing here is not worth stopping for if the person has said that MetalLB is stopped.
async fn running(cluster: &Cluster, said_stopped: bool) -> Result<Running, Failure> {
    match live::running_controllers(cluster).await {
        Ok(deployments) => Ok(Running { deployments, unseen: None }),
        Err(unseen @ Unseen::NoRight { .. }) if said_stopped => {
            tell(&format!("note: whether MetalLB's controller runs was not checked: {unseen}"));
            Ok(Running::default())
        }
        Err(unseen @ Unseen::NoRight { .. }) => Ok(Running { deployments: Vec::new(), unseen: Some(unseen) }),
        Err(unseen) => Err(unseen.into()),
    }
}

fn show(plan: &Plan, output: ImportOutput) -> Result<(), Failure> {
    match output {
        ImportOutput::Yaml => {
            print(&report::manifests(plan)?)?;
            tell(&report::report(plan));
        }
        ImportOutput::Json => print(&format!("{:#}\n", plan.value()))?,
        ImportOutput::Table => print(&report::report(plan))?,
    }
    Ok(())
}

async fn apply_and_watch(cluster: &Cluster, plan: &Plan, flags: &Metallb) -> Result<Exit, Failure> {
    apply::apply(cluster, &plan.manifests).await?;
    tell(&format!("{} objects applied", plan.manifests.len()));
    if flags.wait == 0 && !flags.take_over {
        return Ok(Exit::Done);
    }
    let progress = apply::settle(cluster, plan, Duration::from_secs(flags.wait.into())).await?;
    for (service, before, now) in &progress.changed {
        tell(&format!("Service {service} CHANGED: it showed {}, now {}", list(before), list(now)));
    }
    for (service, says) in &progress.pending {
        tell(&format!("Service {service} was not taken over (its address is unchanged): {says}"));
    }
    tell(&format!("{} Services taken over, no address changed among them", progress.taken.len()));
    if flags.take_over {
        let taken = takeover::take_over(cluster, &progress.taken, &flags.metallb_manager).await?;
        for (service, others) in &taken.others {
            tell(&format!(
                "Service {service}: {others} claims status.loadBalancer as well, and was left alone"
            ));
        }
        let (written, manager, already) = (taken.written, &flags.metallb_manager, taken.already);
        tell(&format!(
            "status.loadBalancer of {written} Services taken over from field manager '{manager}'; {already} had \
             nothing of its"
        ));
    }
    let done = progress.changed.is_empty() && progress.pending.is_empty();
    Ok(if done { Exit::Done } else { Exit::Unfinished })
}

fn list(addresses: &[impl Display]) -> String {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
}
