//! `make demo`: the whole story in half a minute, with the real programs and real frames.
#![expect(clippy::print_stdout, reason = "a demonstration is for reading")]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use herald_lab::{
    Gap, Lab, Meter, Node, Plan, Progress, Sniffer,
    programs::{self, Kubernetes},
};

/// Long enough for anything on a slow machine; nothing here waits for the clock.
const PATIENCE: Duration = Duration::from_secs(30);
/// The Services of the tutorials that the demo applies.
const SERVICES: [&str; 6] = [
    "loadbalancer.yaml",
    "loadbalancer-dual-stack.yaml",
    "loadbalancer-address.yaml",
    "loadbalancer-ports.yaml",
    "loadbalancer-local.yaml",
    "clusterip.yaml",
];
/// Those of them that get addresses.
const BALANCED: [&str; 5] = ["web", DUAL, "pinned", STAR, "local"];
/// The one with an IPv4 and an IPv6 address.
const DUAL: &str = "web-dual";
/// The one whose node dies; it has a UDP port, so that its client can ask often.
const STAR: &str = "many-ports";
const STAR_UDP_PORT: u16 = 53;

fn main() -> Result<()> {
    // Says so if it takes minutes, once per machine; the story's clock starts after it.
    Kubernetes::find_or_build(&Progress::new())?;
    let mut story = Story { steps: 0, begun: Instant::now() };

    story
        .step("A Kubernetes control plane, three nodes and a client, each in a network namespace of its own");
    let mut plan = Plan::nodes(3);
    plan.progress = Progress::quiet();
    let lab = plan.without_herald().start()?;
    story.done("etcd, kube-apiserver, kube-controller-manager and a kube-proxy per node are up");
    Story::shows(&lab, &["get", "nodes", "-o", "wide"])?;

    story.step("Herald: the CRDs, the rights, one controller, a speaker on every node");
    lab.apply_manifests()?;
    lab.start_controller()?;
    lab.start_speakers()?;
    story.done("started, each with its own ServiceAccount's rights");

    story.step("A pool of addresses and the tutorial's Services");
    for file in ["pool.yaml"].into_iter().chain(SERVICES) {
        let said = lab.kubectl(&["apply", "-f", &example(file).display().to_string()])?;
        print!("  $ kubectl apply -f examples/{file}\n    {said}");
    }
    let begun = Instant::now();
    for service in BALANCED {
        lab.await_addresses("default", service)?;
    }
    story.done(&format!(
        "every Service has its address ({} ms after the last apply)",
        begun.elapsed().as_millis()
    ));
    let everywhere: Vec<&str> = lab.nodes().iter().map(Node::name).collect();
    for service in BALANCED {
        lab.set_endpoints("default", service, &everywhere)?;
        for address in lab.await_addresses("default", service)? {
            lab.await_holder(address)?;
        }
    }
    Story::shows(&lab, &["get", "svc"])?;
    Story::shows(&lab, &["get", "lbip"])?;

    story.step("The client, another machine on the LAN, uses the addresses");
    let mut addresses = lab.await_addresses("default", DUAL)?;
    let star = *lab.await_addresses("default", STAR)?.first().context("the star has no address")?;
    addresses.insert(0, star);
    visit(&lab, &addresses)?;

    let holder = lab.holder_seen_by_client(star)?;
    story.step(&format!(
        "Node {holder}, which answers for {star}, loses power (cable and every process at once)"
    ));
    let gap = lose(&lab, &holder, star)?;
    let successor = lab.holder_seen_by_client(star)?;
    story.done(&format!(
        "the client was without an answer for {} ms; {successor} answers now",
        gap.length().as_millis()
    ));
    visit(&lab, &addresses)?;

    story.step("What Kubernetes says about it");
    lab.await_holder_is(star, &successor)?;
    Story::shows(&lab, &["get", "lbip"])?;
    Story::shows(&lab, &["describe", "svc", STAR])?;

    story.step("The end: processes, namespaces and files go");
    let tag = lab.tag().to_owned();
    drop(lab);
    story.done(&format!("nothing called {tag} is left; the machine's own network was never touched"));
    Ok(())
}

/// Cuts the holder's power under a client that asks every 2 ms, and prints what the wire and the client saw.
fn lose(lab: &Lab, holder: &str, address: IpAddr) -> Result<Gap> {
    let survivors: Vec<&str> = lab.nodes().iter().map(Node::name).filter(|&node| node != holder).collect();
    for service in BALANCED {
        lab.set_endpoints("default", service, &survivors)?;
    }
    println!(
        "  (the application runs on the other two nodes now, so that what is measured is the address alone)"
    );
    let sniffer = Sniffer::start(lab.lan())?;
    let meter =
        Meter::start(lab.client(), SocketAddr::new(address, STAR_UDP_PORT), Duration::from_millis(2))?;
    meter.await_answer(Instant::now(), PATIENCE)?;

    let cut = Instant::now();
    lab.power_off(holder)?;
    let news = sniffer.wait_for(cut, PATIENCE, |frame| frame.announces(address) && frame.from != holder)?;
    println!(
        "  + {:>4} ms  {} announces {address} at {}",
        (news.at - cut).as_millis(),
        news.from,
        news.source
    );
    let answer = meter.await_answer(cut, PATIENCE)?;
    println!("  + {:>4} ms  the client is answered again", (answer - cut).as_millis());
    meter.stop()?.longest_gap().context("the client was never answered")
}

/// Fetches the page at every address and says whom the client's neighbour cache leads it to.
fn visit(lab: &Lab, addresses: &[IpAddr]) -> Result<()> {
    for &address in addresses {
        let page = lab.client().http_get_until_ok(address, 80, PATIENCE)?;
        let holder = lab.holder_seen_by_client(address)?;
        let (body, took) = (page.body.trim_end(), page.took.as_secs_f64() * 1e3);
        println!("  $ curl {}\n    {body}   ({took:.1} ms, through {holder}'s MAC)", url(address));
    }
    Ok(())
}

fn url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("http://{address}/"),
        IpAddr::V6(address) => format!("http://[{address}]/"),
    }
}

fn example(file: &str) -> PathBuf {
    programs::workspace().join("examples").join(file)
}

/// Numbered steps with times.
struct Story {
    steps: u32,
    begun: Instant,
}

impl Story {
    fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}", self.steps);
    }

    fn done(&self, result: &str) {
        println!("  [{:5.2} s] {result}", self.begun.elapsed().as_secs_f64());
    }

    /// A kubectl command and what it really printed.
    fn shows(lab: &Lab, args: &[&str]) -> Result<()> {
        let output = lab.kubectl(args)?;
        println!("  $ kubectl {}", args.join(" "));
        for line in output.lines() {
            println!("    {line}");
        }
        Ok(())
    }
}
