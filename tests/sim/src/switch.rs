//! A learning switch and the cables into it.
//!
//! Owns: ports (link, forwarding, which half of a split network), the forwarding database with ageing, flooding of
//! broadcast, multicast and unknown unicast, loss and latency per path, and paths that are cut in one direction.
//! Must always hold: a frame never leaves by the port it came in by, and frames of one port leave it in order.
//! Looks into frames no further than the EtherType: some filter that of hellos (rule A48).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use herald_wire::MacAddr;

use crate::Moment;
use herald_seeds::Dice;

/// A socket of the switch, and whatever is plugged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port(pub usize);

/// One port.
#[derive(Clone, Copy, Debug)]
struct PortState {
    /// Light on the cable: both ends see it.
    link: bool,
    /// Frames pass. A port with a link may not forward yet: spanning tree, or a broken uplink behind it.
    forwarding: bool,
    /// Frames pass only between ports of one side: two switches whose uplink is cut.
    side: u8,
    /// When the last frame queued for this port has left it.
    busy_until: Moment,
}

/// The switch.
#[derive(Debug)]
pub(crate) struct Switch {
    ports: Vec<PortState>,
    learned: BTreeMap<MacAddr, (Port, Moment)>,
    /// Entries not refreshed for this long are forgotten.
    ageing: Duration,
    /// Probability that a copy of a frame is lost, independent for each path.
    loss: f64,
    cut: BTreeSet<(Port, Port)>,
    /// Hellos do not pass, everything else does.
    filters_hellos: bool,
    bursts: Option<Bursts>,
    /// From the sender's loop to the receiver's network card.
    latency: (Duration, Duration),
}

impl Switch {
    /// With so many ports, all up.
    pub(crate) fn new(ports: usize, ageing: Duration) -> Self {
        let port = PortState { link: true, forwarding: true, side: 0, busy_until: Moment::ZERO };
        Self {
            ports: vec![port; ports],
            learned: BTreeMap::new(),
            ageing,
            loss: 0.0,
            cut: BTreeSet::new(),
            filters_hellos: false,
            bursts: None,
            latency: (Duration::from_micros(15), Duration::from_micros(60)),
        }
    }

    /// Every path loses this share of its frames from now on.
    pub(crate) fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    /// Are frames lost?
    pub(crate) fn loses(&self) -> bool {
        self.loss > 0.0
    }

    /// Every path loses this share of its time, each time for about as long.
    pub(crate) fn set_bursts(&mut self, share: f64, length: Duration) {
        self.bursts =
            Some(Bursts { length, pause: length.mul_f64((1.0 - share) / share), paths: BTreeMap::new() });
    }

    /// Lets hellos pass no longer, or again.
    pub(crate) fn set_filter(&mut self, filters_hellos: bool) {
        self.filters_hellos = filters_hellos;
    }

    /// Plugs a cable in or out. The switch forgets what it learned at a port that goes down.
    pub(crate) fn set_link(&mut self, port: Port, link: bool) {
        if let Some(state) = self.ports.get_mut(port.0) {
            state.link = link;
        }
        if !link {
            self.forget(port);
        }
    }

    /// Lets frames through a port, or not, without a change of its link.
    pub(crate) fn set_forwarding(&mut self, port: Port, forwarding: bool) {
        if let Some(state) = self.ports.get_mut(port.0) {
            state.forwarding = forwarding;
        }
    }

    /// Which half of the network a port is in.
    pub(crate) fn set_side(&mut self, port: Port, side: u8) {
        if let Some(state) = self.ports.get_mut(port.0) {
            state.side = side;
        }
    }

    /// Cuts or restores the path from one port to another, in this direction only.
    pub(crate) fn set_cut(&mut self, from: Port, to: Port, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// Does the device at this port see a link?
    pub(crate) fn link(&self, port: Port) -> bool {
        self.ports.get(port.0).is_some_and(|state| state.link)
    }

    /// Would a frame get through, were it not lost?
    pub(crate) fn passes(&self, from: Port, to: Port) -> bool {
        let usable = |port: Port| {
            self.ports.get(port.0).filter(|state| state.link && state.forwarding).map(|state| state.side)
        };
        usable(from).is_some() && usable(from) == usable(to) && !self.cut.contains(&(from, to))
    }

    fn forget(&mut self, port: Port) {
        self.learned.retain(|_, (learned, _)| *learned != port);
    }

    /// Takes a frame in, and says when it comes out where.
    pub(crate) fn forward(
        &mut self,
        now: Moment,
        from: Port,
        frame: &[u8],
        dice: &mut Dice,
    ) -> Vec<(Port, Moment)> {
        let Some((destination, source)) = addresses(frame) else { return Vec::new() };
        if !self.ports.get(from.0).is_some_and(|state| state.link && state.forwarding) {
            return Vec::new();
        }
        if self.filters_hellos && frame.get(12..14) == Some(&herald_wire::hello::ETHERTYPE.0.to_be_bytes()) {
            return Vec::new();
        }
        if !is_group(source) {
            self.learned.insert(source, (from, now));
        }
        let known = self
            .learned
            .get(&destination)
            .filter(|(_, seen)| !is_group(destination) && now.saturating_sub(*seen) < self.ageing)
            .map(|(port, _)| *port);
        let out = match known {
            Some(port) => port.0..port.0 + 1,
            None => 0..self.ports.len(),
        };
        let mut deliveries = Vec::with_capacity(out.len());
        for to in out.map(Port) {
            let in_burst = |bursts: &mut Bursts| bursts.lose(now, (from, to), dice);
            if to == from || !self.passes(from, to) || self.bursts.as_mut().is_some_and(in_burst) {
                continue;
            }
            if dice.chance(self.loss) {
                continue;
            }
            let arrival = now + dice.time(self.latency.0, self.latency.1);
            if let Some(state) = self.ports.get_mut(to.0) {
                // A wire keeps the order of what goes over it; 1 us is 125 octets at 1 Gbit/s.
                state.busy_until = arrival.max(state.busy_until + Duration::from_micros(1));
                deliveries.push((to, state.busy_until));
            }
        }
        deliveries
    }
}

/// Loss that comes in bursts, independent for each path.
#[derive(Debug)]
struct Bursts {
    length: Duration,
    pause: Duration,
    /// Whether each path is in a burst, and until when that is so.
    paths: BTreeMap<(Port, Port), (bool, Moment)>,
}

impl Bursts {
    fn lose(&mut self, now: Moment, path: (Port, Port), dice: &mut Dice) -> bool {
        let (losing, until) = self.paths.entry(path).or_insert((false, Moment::ZERO));
        while *until <= now {
            *losing = !*losing;
            let mean = if *losing { self.length } else { self.pause };
            *until += mean.mul_f64(dice.exponential()).max(Duration::from_micros(1));
        }
        *losing
    }
}

/// Destination and source.
pub(crate) fn addresses(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let mac = |octets: &[u8; 6]| MacAddr::from(*octets);
    let destination = frame.first_chunk::<6>()?;
    let source = frame.get(6..)?.first_chunk::<6>()?;
    Some((mac(destination), mac(source)))
}

/// Broadcast or multicast.
pub(crate) fn is_group(mac: MacAddr) -> bool {
    mac.0 & 1 == 1
}

#[cfg(test)]
mod tests {
    use herald_wire::Ethernet;
    use herald_wire::arp::Arp;

    use super::*;

    fn mac(n: usize) -> MacAddr {
        MacAddr::new(2, 0, 0, 0, 0, u8::try_from(n).unwrap())
    }

    fn frame(to: MacAddr, from: usize) -> Vec<u8> {
        Arp::who_has([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), mac(from))
            .to_frame(Ethernet::new(to, mac(from)))
    }

    fn out(switch: &mut Switch, now: Moment, from: usize, to: MacAddr) -> Vec<usize> {
        let mut dice = Dice::new("switch", 1);
        let deliveries = switch.forward(now, Port(from), &frame(to, from), &mut dice);
        deliveries.into_iter().map(|(port, _)| port.0).collect()
    }

    fn switch() -> Switch {
        Switch::new(4, Duration::from_mins(5))
    }

    #[test]
    fn floods_what_it_does_not_know_and_learns_where_it_came_from() {
        let mut switch = switch();
        assert_eq!(out(&mut switch, Moment::ZERO, 0, mac(2)), [1, 2, 3]);
        assert_eq!(out(&mut switch, Moment::ZERO, 2, mac(0)), [0]);
        assert_eq!(out(&mut switch, Moment::ZERO, 0, mac(2)), [2]);
        assert_eq!(out(&mut switch, Moment::ZERO, 0, MacAddr::broadcast()), [1, 2, 3]);
        assert_eq!(out(&mut switch, Moment::ZERO, 0, herald_wire::hello::GROUP), [1, 2, 3]);
    }

    #[test]
    fn forgets_what_is_silent_for_the_ageing_time_and_what_was_behind_a_port_that_went_down() {
        let mut switch = switch();
        out(&mut switch, Moment::ZERO, 2, mac(9));
        assert_eq!(out(&mut switch, Duration::from_secs(299), 0, mac(2)), [2]);
        assert_eq!(out(&mut switch, Duration::from_mins(5), 0, mac(2)), [1, 2, 3]);
        out(&mut switch, Duration::from_secs(301), 2, mac(9));
        switch.set_link(Port(2), false);
        switch.set_link(Port(2), true);
        assert_eq!(out(&mut switch, Duration::from_secs(302), 0, mac(2)), [1, 2, 3]);
    }

    #[test]
    fn nothing_passes_a_port_that_is_down_or_blocked_or_a_cut_path_or_the_middle_of_a_split() {
        let mut switch = switch();
        switch.set_link(Port(1), false);
        assert_eq!(out(&mut switch, Moment::ZERO, 0, MacAddr::broadcast()), [2, 3]);
        assert_eq!(out(&mut switch, Moment::ZERO, 1, MacAddr::broadcast()), [0; 0]);
        switch.set_link(Port(1), true);
        switch.set_forwarding(Port(1), false);
        assert_eq!(out(&mut switch, Moment::ZERO, 0, MacAddr::broadcast()), [2, 3]);
        switch.set_forwarding(Port(1), true);
        switch.set_cut(Port(0), Port(1), true);
        assert_eq!(out(&mut switch, Moment::ZERO, 0, MacAddr::broadcast()), [2, 3]);
        assert_eq!(out(&mut switch, Moment::ZERO, 1, MacAddr::broadcast()), [0, 2, 3]);
        switch.set_side(Port(3), 1);
        assert_eq!(out(&mut switch, Moment::ZERO, 0, MacAddr::broadcast()), [2]);
        assert_eq!(out(&mut switch, Moment::ZERO, 3, MacAddr::broadcast()), [0; 0]);
    }

    #[test]
    fn bursts_lose_their_share_in_one_piece() {
        let mut switch = switch();
        switch.set_bursts(0.05, Duration::from_millis(20));
        let mut dice = Dice::new("switch", 3);
        let mut delivered = Vec::new();
        for ms in 0..100_000 {
            let out = switch.forward(Duration::from_millis(ms), Port(0), &frame(mac(9), 0), &mut dice);
            delivered.push(out.iter().any(|(port, _)| *port == Port(1)));
        }
        let lost = delivered.iter().filter(|got| !**got).count();
        let bursts = delivered.windows(2).filter(|pair| pair[0] && !pair[1]).count();
        assert!((4_000..6_000).contains(&lost), "{lost} of 100,000 lost");
        assert!((15..25).contains(&(lost / bursts)), "{lost} lost in {bursts} bursts");
    }

    #[test]
    fn a_third_of_the_copies_is_lost_independently_and_the_rest_keeps_its_order() {
        let mut switch = switch();
        switch.set_loss(0.3);
        let mut dice = Dice::new("switch", 2);
        let mut arrivals: BTreeMap<Port, Vec<Moment>> = BTreeMap::new();
        for n in 0..10_000 {
            let now = Duration::from_micros(n * 5);
            for (port, at) in switch.forward(now, Port(0), &frame(MacAddr::broadcast(), 0), &mut dice) {
                arrivals.entry(port).or_default().push(at);
            }
        }
        for list in arrivals.values() {
            assert!((6_800..7_200).contains(&list.len()), "{}", list.len());
            assert!(list.is_sorted());
        }
    }
}
