//! Starting where something is missing: an error that says what to do, or patience.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{
    Lab, Netns, Node, Plan, Process, ProxyMode, programs,
    shared::{Case, lab_alone},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a speaker on `node` by hand, beside or instead of the lab's own, until it says `words`.
fn speaker_says(
    lab: &Lab,
    node: &Node,
    wrapper: &[&str],
    key_dir: &Path,
    more: &[&str],
    words: &str,
) -> Result<()> {
    let binary = programs::herald("herald-speaker")?;
    let kubeconfig = lab.account_kubeconfig("herald-speaker")?;
    let mut command: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
    command.push(binary.display().to_string());
    command.extend(["--node-name".to_owned(), node.name().to_owned()]);
    command.extend(["--key-dir".to_owned(), key_dir.display().to_string()]);
    command.extend(["--kubeconfig".to_owned(), kubeconfig.display().to_string()]);
    command.extend(more.iter().map(|&word| word.to_owned()));
    let log = node.dir().join("by-hand.log");
    // Each run's words alone; the first finds none of an earlier one.
    let _ = std::fs::remove_file(&log);
    let (program, arguments) = command.split_first().context("no program")?;
    Process::start(&node.host.netns, "the speaker", Path::new(program), arguments, &log)?
        .await_words(words, PATIENCE)
}

#[test]
fn a_speaker_without_the_right_to_packet_sockets_names_the_capability() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let node = lab.node("n3")?;
    node.speaker(Process::kill)?;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];
    let said = speaker_says(lab, node, &nobody, &node.key_dir(), &[], "NET_RAW");
    node.start_speaker()?;
    said
}

#[test]
fn a_second_speaker_on_a_node_does_not_start() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let node = lab.node("n1")?;
    let elsewhere = ["--admin-addr", "127.0.0.1:7999"];
    speaker_says(lab, node, &[], &node.key_dir(), &elsewhere, "another speaker runs")?;
    node.speaker(|speaker| {
        ensure!(speaker.exited()?.is_none(), "the first speaker ended");
        Ok(())
    })
}

#[test]
fn a_speaker_without_its_key_names_the_directory() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let node = lab.node("n2")?;
    node.speaker(Process::kill)?;
    let said = speaker_says(lab, node, &[], Path::new("/nonexistent/keys"), &[], "/nonexistent/keys");
    node.start_speaker()?;
    said
}

#[test]
fn a_taken_admin_port_is_named() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    let node = lab.node("n2")?;
    node.speaker(Process::kill)?;
    let taken = node.host.netns.run(|| std::net::TcpListener::bind("127.0.0.1:7481"))??;
    let said = speaker_says(lab, node, &[], &node.key_dir(), &[], "127.0.0.1:7481");
    drop(taken);
    node.start_speaker()?;
    said
}

/// Starts a controller by hand beside the lab's own, with the rights of ServiceAccount `account`.
fn second_controller(lab: &Lab, account: &str, admin_addr: &str) -> Result<Process> {
    let binary = programs::herald("herald-controller")?;
    let kubeconfig = lab.account_kubeconfig(account)?.display().to_string();
    let log = lab.dir().join("second-controller.log");
    // Each run's words alone; the first finds none of an earlier one.
    let _ = std::fs::remove_file(&log);
    let args = ["--kubeconfig", &kubeconfig, "--admin-addr", admin_addr];
    Process::start(&lab.control_plane().host().netns, "the second controller", &binary, args, &log)
}

/// What a controller's admin address answers.
fn ask_controller(lab: &Lab, admin_addr: &str, path: &str) -> Result<String> {
    ask(&lab.control_plane().host().netns, admin_addr, path)
}

fn ask(netns: &Netns, admin_addr: &str, path: &str) -> Result<String> {
    let to = admin_addr.to_owned();
    // A socket stays in the namespace that it was made in.
    let mut stream = netns.run(move || TcpStream::connect(to))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin_addr}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_controller_whose_port_is_taken_names_the_flag_and_the_one_that_has_it_is_well() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    second_controller(lab, "herald-controller", "127.0.0.1:7480")?.await_words("--admin-addr", PATIENCE)?;
    for (path, words) in [("/livez", "200 OK"), ("/readyz", "200 OK"), ("/metrics", "herald_")] {
        let answer = ask_controller(lab, "127.0.0.1:7480", path)?;
        ensure!(answer.contains(words), "{path}: {answer}");
    }
    Ok(())
}

#[test]
fn a_controller_without_rights_says_which_it_needs_and_ends_when_asked() -> Result<()> {
    const ADMIN: &str = "127.0.0.1:7999";
    let (_alone, lab) = lab_alone()?;
    lab.kubectl_apply(
        "{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: herald-system, name: nobody}}",
    )?;
    let controller = second_controller(lab, "nobody", ADMIN)?;
    controller.await_words("the lease can't be read or written", PATIENCE)?;
    let begun = Instant::now();
    loop {
        let answer = ask_controller(lab, ADMIN, "/readyz")?;
        let services = "watch services: RBAC refuses: grant this service account get, list and watch";
        let lease = "create, get, update, list and watch on leases.coordination.k8s.io";
        if answer.contains(services) && answer.contains(lease) && answer.contains("watch loadbalancerips") {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "{answer}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let ended = controller.terminate()?;
    ensure!(ended.success(), "{ended}: {}", controller.last_words());
    Ok(())
}

#[test]
fn a_controller_without_crds_says_so_and_is_ready_once_they_are_there() -> Result<()> {
    const ADMIN: &str = "127.0.0.1:7480";
    let lab = Plan::nodes(1).without_herald().start()?;
    lab.kubectl_apply("{apiVersion: v1, kind: Namespace, metadata: {name: herald-system}}")?;
    let kubeconfig = lab.control_plane().admin_kubeconfig().display().to_string();
    let binary = programs::herald("herald-controller")?;
    let netns = &lab.control_plane().host().netns;
    let log = lab.dir().join("without-crds.log");
    let controller = Process::start(netns, "the controller", &binary, ["--kubeconfig", &kubeconfig], &log)?;
    controller.await_words("install Herald's CRDs", PATIENCE)?;
    let readyz = |words: &[&str]| {
        let begun = Instant::now();
        loop {
            let answer = ask_controller(&lab, ADMIN, "/readyz")?;
            if words.iter().all(|words| answer.contains(words)) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{answer}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    };
    readyz(&[
        "watch ipaddresspools: the API server doesn't know ipaddresspools: install Herald's CRDs",
        "watch l2advertisements:",
        "watch loadbalancerips:",
    ])?;
    lab.kubectl_apply_file(&programs::workspace().join("crds/manifests"))?;
    readyz(&["200 OK"])
}

/// Waits until the `/readyz` of a speaker that was started on `node` by hand holds `words`.
fn speaker_lacks(lab: &Lab, node: &Node, kubeconfig: &Path, words: &str) -> Result<()> {
    const ADMIN: &str = "127.0.0.1:7999";
    let keys = lab.dir().join("keys-by-hand");
    std::fs::create_dir_all(&keys)?;
    std::fs::write(keys.join("cluster-id"), "0123456789abcdef")?;
    std::fs::write(keys.join("key-0"), "00".repeat(32))?;
    let (keys, kubeconfig) = (keys.display().to_string(), kubeconfig.display().to_string());
    let flags =
        ["--node-name", node.name(), "--key-dir", &keys, "--kubeconfig", &kubeconfig, "--admin-addr", ADMIN];
    let binary = programs::herald("herald-speaker")?;
    let log = node.dir().join("lacking.log");
    let speaker = Process::start(&node.host.netns, "the speaker by hand", &binary, flags, &log)?;
    let begun = Instant::now();
    loop {
        // It listens a moment after it was started.
        let answer = ask(&node.host.netns, ADMIN, "/readyz").unwrap_or_else(|error| format!("{error:#}"));
        if answer.contains(words) {
            ensure!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "/readyz does not say {words:?}: {answer}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    ensure!(speaker.terminate()?.success(), "{}", speaker.last_words());
    Ok(())
}

#[test]
fn a_speaker_without_crds_or_rights_names_the_watch_and_what_it_needs() -> Result<()> {
    let lab = Plan::nodes(1).without_herald().start()?;
    let node = lab.node("n1")?;
    let admin = lab.control_plane().admin_kubeconfig();
    let crds = "watch loadbalancerips: the API server doesn't know loadbalancerips: install Herald's CRDs";
    speaker_lacks(&lab, node, &admin, crds)?;

    lab.kubectl_apply_file(&programs::workspace().join("crds/manifests"))?;
    lab.kubectl_apply(
        "{apiVersion: v1, kind: List, items: [
           {apiVersion: v1, kind: Namespace, metadata: {name: herald-system}},
           {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: herald-system, name: nobody}}]}",
    )?;
    let nobody = lab.account_kubeconfig("nobody")?;
    let grant = "RBAC refuses: grant this service account get, list and watch on";
    speaker_lacks(&lab, node, &nobody, &format!("watch nodes: {grant} nodes"))?;
    lab.kubectl(&["create", "clusterrole", "see-nodes", "--verb=get,list,watch", "--resource=nodes"])?;
    let binding = ["create", "clusterrolebinding", "see-nodes", "--clusterrole=see-nodes"];
    lab.kubectl(&[&binding[..], &["--serviceaccount=herald-system:nobody"]].concat())?;
    speaker_lacks(&lab, node, &nobody, &format!("watch loadbalancerips: {grant} loadbalancerips"))
}

#[test]
fn both_programs_wait_for_an_api_server_that_is_not_there_yet() -> Result<()> {
    let (_alone, lab) = lab_alone()?;
    lab.control_plane().kill_api()?;
    lab.controller(Process::kill)?;
    let node = lab.node("n1")?;
    node.speaker(Process::kill)?;
    lab.start_controller_again()?;
    node.start_speaker()?;
    lab.restart_api()?;
    let case = Case::in_lab(lab, "late-api")?;
    case.apply_service("web", "", "")?;
    lab.await_holder(case.address("web")?)?;
    lab.controller(|controller| {
        ensure!(controller.exited()?.is_none(), "the controller ended:\n{}", controller.last_words());
        Ok(())
    })
}

#[test]
fn a_cluster_with_kube_proxy_in_iptables_mode_is_served_just_so() -> Result<()> {
    let lab = Plan::nodes(1).with_proxy(ProxyMode::Iptables).start()?;
    lab.kubectl_apply_file(&herald_lab::shared::example("pool.yaml"))?;
    lab.kubectl_apply_file(&herald_lab::shared::example("loadbalancer-dual-stack.yaml"))?;
    lab.set_endpoints("default", "web-dual", &["n1"])?;
    let addresses = lab.await_addresses("default", "web-dual")?;
    ensure!(addresses.len() == 2, "{addresses:?}");
    for address in addresses {
        lab.client().http_get_until_ok(address, 80, PATIENCE)?;
    }
    Ok(())
}
