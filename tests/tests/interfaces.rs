//! An interface that goes and comes back under a running speaker: its addresses move to the other node, and the speaker
//! is of use again afterwards.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::{Host, Lab, Plan, Process, Sniffer, shared::example};

const PATIENCE: Duration = Duration::from_secs(30);
const NODE: &str = "n1";
const OTHER: &str = "n2";

/// Two nodes; the first has the application and, in the end of each step, the address.
struct Scene {
    lab: Lab,
    address: IpAddr,
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Plan::nodes(2).start()?;
        lab.kubectl_apply_file(&example("pool.yaml"))?;
        lab.kubectl_apply_file(&example("loadbalancer.yaml"))?;
        let address = *lab.await_addresses("default", "web")?.first().context("an address")?;
        lab.set_endpoints("default", "web", &[NODE])?;
        lab.await_holder(address)?;
        Ok(Self { lab, address })
    }

    /// Has the first node take the address, because the other is cut off.
    fn move_here(&self, what: &str) -> Result<()> {
        let sniffer = Sniffer::start(self.lab.lan())?;
        if self.lab.await_holder(self.address)? == NODE {
            return Ok(());
        }
        let cut = Instant::now();
        self.lab.lan().cut(OTHER)?;
        let taken =
            sniffer.wait_for(cut, PATIENCE, |frame| frame.from == NODE && frame.announces(self.address));
        let said = || {
            self.lab.node(NODE).and_then(|node| node.speaker(|it| Ok(it.last_words()))).unwrap_or_default()
        };
        taken.with_context(|| format!("{NODE} never took {} {what}; it says\n{}", self.address, said()))?;
        self.lab.client().http_get_until_ok(self.address, 80, PATIENCE)?;
        self.lab.lan().mend(OTHER)?;
        self.lab.await_holder_is(self.address, NODE)
    }

    /// Takes the first node's interface away by `act` and waits until the other node has the address.
    fn lose(&self, act: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
        let sniffer = Sniffer::start(self.lab.lan())?;
        let lost = Instant::now();
        act(&self.lab.node(NODE)?.host)?;
        sniffer
            .wait_for(lost, PATIENCE, |frame| frame.from == OTHER && frame.announces(self.address))
            .with_context(|| format!("{OTHER} never took {}", self.address))?;
        self.lab.await_holder_is(self.address, OTHER)
    }

    fn still_runs(&self) -> Result<()> {
        self.lab.node(NODE)?.speaker(|speaker| match Process::exited(speaker)? {
            None => Ok(()),
            Some(status) => bail!("the speaker ended with {status}:\n{}", speaker.last_words()),
        })
    }
}

#[test]
fn an_interface_that_goes_down_is_renamed_or_made_anew_is_used_again() -> Result<()> {
    let scene = Scene::new()?;
    scene.move_here("at the beginning")?;

    scene.lose(|node| node.netns.ip(&["link set eth0 down"]))?;
    scene.lab.node(NODE)?.host.configure("eth0")?;
    scene.move_here("after its interface was down and up")?;
    scene.still_runs()?;

    scene.lose(|node| node.netns.ip(&["link set eth0 down", "link set eth0 name lan0"]))?;
    scene.lab.node(NODE)?.host.configure("lan0")?;
    scene.move_here("after its interface was renamed")?;
    scene.still_runs()?;

    let before = scene.lab.node(NODE)?.host.mac;
    scene.lose(|node| node.netns.ip(&["link delete lan0"]))?;
    let host = scene.lab.lan().replug(&scene.lab.node(NODE)?.host)?;
    ensure!(host.mac != before, "the new interface has the old one's MAC");
    scene.move_here("after its interface was deleted and made anew")?;
    scene.still_runs()?;
    let begun = Instant::now();
    while scene.lab.holder_seen_by_client(scene.address)? != NODE {
        ensure!(begun.elapsed() < PATIENCE, "the client's neighbour cache leads elsewhere");
        // The kernel tells nobody that its cache changed in a way a test could wait for cheaply.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}
