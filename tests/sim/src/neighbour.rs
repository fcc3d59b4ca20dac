//! A neighbour cache that behaves as Linux's does, for IPv4 and IPv6: which frame moves, creates or confirms an entry,
//! and when an unconfirmed one is given up.
//!
//! As measured on Linux 6.18 and read in net/core/neighbour.c, net/ipv4/arp.c and net/ipv6/ndisc.c, with the default
//! sysctls: `locktime` 1 s, `delay_first_probe_time` 5 s, `retrans_time` 1 s, 3 probes of each kind, `arp_accept` 0.
//! What it does not model: garbage collection, and confirmation by TCP's progress.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herald_wire::MacAddr;

use crate::Moment;

/// An IPv4 entry younger than this moves only for frames that override.
const LOCKTIME: Duration = Duration::from_secs(1);
const REACHABLE_TIME: Duration = Duration::from_secs(30);
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
const RETRANS: Duration = Duration::from_secs(1);
const PROBES: u32 = 3;

/// State of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has answered yet.
    Incomplete {
        asked: u32,
        next: Moment,
    },
    Reachable {
        until: Moment,
    },
    Stale,
    /// Used while stale: probed after a while.
    Delay {
        until: Moment,
    },
    Probe {
        asked: u32,
        next: Moment,
    },
    Failed,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Option<MacAddr>,
    state: State,
    /// When its state or address last changed.
    updated: Moment,
}

/// What a frame says about a neighbour, and how strongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// What it does to an entry that names another MAC.
    pub strength: Strength,
    /// An answer to this host: confirms.
    pub solicited: bool,
    /// Makes an entry where there is none.
    pub creates: bool,
}

/// What a frame does to an entry that names another MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Moves it, whatever its age.
    Overrides,
    /// Moves it if it is older than locktime.
    Ordinary,
    /// IPv6 without O: makes it stale, however old.
    Weak,
}

/// What has to be sent so that a packet can go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Send the packet there.
    Send(MacAddr),
    /// Send the packet there, and ask that very host whether it is still the one.
    SendAndProbe(MacAddr),
    /// Ask everybody; the packet is lost.
    Ask,
    /// Asked already; the packet is lost.
    Wait,
}

/// The cache of one host.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: BTreeMap<IpAddr, Entry>,
}

impl Cache {
    /// Where packets to this address go now, if anywhere.
    pub(crate) fn lookup(&self, ip: IpAddr) -> Option<MacAddr> {
        let entry = self.entries.get(&ip)?;
        entry.mac.filter(|_| !matches!(entry.state, State::Incomplete { .. } | State::Failed))
    }

    /// The link is down: the kernel forgets everybody behind it.
    pub(crate) fn flush(&mut self) {
        self.entries.clear();
    }

    /// A packet is to be sent.
    pub(crate) fn send(&mut self, now: Moment, ip: IpAddr) -> Use {
        let entry = self.entries.entry(ip).or_insert(Entry { mac: None, state: State::Failed, updated: now });
        if let State::Reachable { until } = entry.state
            && now >= until
        {
            entry.set(now, State::Stale);
        }
        if entry.state == State::Stale {
            entry.set(now, State::Delay { until: now + DELAY_FIRST_PROBE });
        }
        if let State::Delay { until } = entry.state
            && now >= until
        {
            entry.set(now, State::Probe { asked: 0, next: now });
        }
        match (entry.state, entry.mac) {
            (State::Probe { asked, next }, Some(mac)) if now >= next => {
                if asked == PROBES {
                    entry.set(now, State::Failed);
                    return self.send(now, ip);
                }
                entry.state = State::Probe { asked: asked + 1, next: now + RETRANS };
                Use::SendAndProbe(mac)
            }
            (State::Incomplete { asked, next }, _) if now >= next => {
                if asked == PROBES {
                    entry.set(now, State::Failed);
                    return Use::Wait;
                }
                entry.state = State::Incomplete { asked: asked + 1, next: now + RETRANS };
                Use::Ask
            }
            (State::Incomplete { .. }, _) => Use::Wait,
            (State::Failed, _) | (_, None) => {
                entry.set(now, State::Incomplete { asked: 1, next: now + RETRANS });
                Use::Ask
            }
            (_, Some(mac)) => Use::Send(mac),
        }
    }

    /// A frame says that this address is at this MAC. True if packets now go somewhere else than before.
    pub(crate) fn hear(&mut self, now: Moment, ip: IpAddr, mac: MacAddr, hint: Hint) -> bool {
        let before = self.lookup(ip);
        if hint.creates {
            self.entries.entry(ip).or_insert(Entry { mac: None, state: State::Failed, updated: now });
        }
        let Some(entry) = self.entries.get_mut(&ip) else { return false };
        let reachable = State::Reachable { until: now + REACHABLE_TIME };
        match (entry.state, entry.mac) {
            // Nothing valid yet: any word will do, but only who was asked or creates may wake a failed entry.
            (State::Incomplete { .. } | State::Failed, _) | (_, None) => {
                if matches!(entry.state, State::Failed) && !hint.creates {
                    return false;
                }
                entry.mac = Some(mac);
                entry.set(now, if hint.solicited { reachable } else { State::Stale });
            }
            (state, Some(known)) if known == mac => {
                if hint.solicited {
                    // A refresh changes nothing that locktime looks at.
                    if matches!(state, State::Reachable { .. }) {
                        entry.state = reachable;
                    } else {
                        entry.set(now, reachable);
                    }
                } else if hint.strength == Strength::Overrides
                    && !matches!(state, State::Reachable { .. } | State::Stale)
                {
                    entry.set(now, State::Stale);
                }
            }
            (state, Some(_)) => {
                let old = now.saturating_sub(entry.updated) > LOCKTIME;
                match hint.strength {
                    Strength::Ordinary if !old => {}
                    Strength::Overrides | Strength::Ordinary => {
                        entry.mac = Some(mac);
                        entry.set(now, if hint.solicited { reachable } else { State::Stale });
                    }
                    Strength::Weak if matches!(state, State::Reachable { .. }) => {
                        entry.set(now, State::Stale);
                    }
                    Strength::Weak => {}
                }
            }
        }
        let after = self.lookup(ip);
        after != before
    }
}

impl Entry {
    fn set(&mut self, now: Moment, state: State) {
        self.state = state;
        self.updated = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNOUNCED: Hint = Hint { strength: Strength::Overrides, solicited: false, creates: false };
    const ANSWERED: Hint = Hint { strength: Strength::Ordinary, solicited: true, creates: false };

    fn mac(n: u8) -> MacAddr {
        MacAddr::new(2, 0, 0, 0, 0, n)
    }

    fn vip() -> IpAddr {
        [10, 0, 1, 1].into()
    }

    fn at(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    /// A cache that has just had its question answered.
    fn resolved(now: Moment) -> Cache {
        let mut cache = Cache::default();
        assert_eq!(cache.send(now, vip()), Use::Ask);
        assert!(cache.hear(now, vip(), mac(1), ANSWERED));
        assert_eq!(cache.send(now, vip()), Use::Send(mac(1)));
        cache
    }

    #[test]
    fn an_answer_is_ignored_within_locktime_and_an_announcement_is_not() {
        let mut cache = resolved(at(0));
        assert!(!cache.hear(at(900), vip(), mac(2), ANSWERED));
        assert_eq!(cache.lookup(vip()), Some(mac(1)));
        assert!(cache.hear(at(900), vip(), mac(2), ANNOUNCED));
        assert_eq!(cache.lookup(vip()), Some(mac(2)));
        assert!(cache.hear(at(2_000), vip(), mac(3), ANSWERED));
    }

    #[test]
    fn announcements_create_nothing_and_a_question_in_the_vips_name_does() {
        let mut cache = Cache::default();
        assert!(!cache.hear(at(0), vip(), mac(1), ANNOUNCED));
        assert_eq!(cache.lookup(vip()), None);
        assert!(cache.hear(at(0), vip(), mac(1), Hint { creates: true, ..ANNOUNCED }));
        assert_eq!(cache.lookup(vip()), Some(mac(1)));
    }

    #[test]
    fn an_advertisement_without_o_only_makes_the_entry_stale_and_probed_to_its_end() {
        let mut cache = resolved(at(0));
        let weak = Hint { strength: Strength::Weak, solicited: false, creates: false };
        assert!(!cache.hear(at(9_000), vip(), mac(2), weak));
        assert_eq!(cache.send(at(9_000), vip()), Use::Send(mac(1)));
        assert_eq!(cache.send(at(13_900), vip()), Use::Send(mac(1)));
        for second in [14_000, 15_000, 16_000] {
            assert_eq!(cache.send(at(second), vip()), Use::SendAndProbe(mac(1)), "{second}");
        }
        assert_eq!(cache.send(at(17_000), vip()), Use::Ask, "the dead MAC is given up after about 8 s");
    }

    #[test]
    fn an_unanswered_question_is_asked_three_times_a_second_apart() {
        let mut cache = Cache::default();
        let asked = (0..60).filter(|n| cache.send(at(n * 50), vip()) == Use::Ask).count();
        assert_eq!(asked, 3);
        assert_eq!(cache.send(at(3_000), vip()), Use::Wait);
        assert_eq!(cache.send(at(3_050), vip()), Use::Ask, "then from the start again");
    }
}
