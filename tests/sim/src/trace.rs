//! The history of one run, for people: virtual milliseconds, who, what. Written only when somebody will read it.

use std::fmt::Write;

use herald_l2::{Cause, Event, Gone, PeerId};
use herald_wire::arp::{self, Arp};
use herald_wire::hello::Message::Hello;
use herald_wire::hello::{Sealed, Verifier};
use herald_wire::ndp::{Message, Ndp};
use herald_wire::{Boot, Frame, MacAddr, NodeId, Payload};

use crate::Moment;

/// How much is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    #[default]
    Off,
    /// Faults, transitions, moves.
    Events,
    /// Every frame as well.
    Frames,
}

/// The lines so far.
#[derive(Debug, Default)]
pub struct Trace {
    detail: Detail,
    lines: Vec<String>,
}

impl Trace {
    /// Nothing yet.
    pub fn new(detail: Detail) -> Self {
        Self { detail, lines: Vec::new() }
    }

    /// Something happened to somebody.
    pub fn event(&mut self, now: Moment, who: &str, what: impl FnOnce() -> String) {
        if self.detail >= Detail::Events {
            self.line(now, who, &what());
        }
    }

    /// Are frames wanted?
    pub fn shows_frames(&self) -> bool {
        self.detail == Detail::Frames
    }

    /// A frame leaves somebody.
    pub fn frame(&mut self, now: Moment, who: &str, frame: Option<&Frame<'_>>) {
        if self.detail == Detail::Frames
            && let Some(frame) = frame
        {
            self.line(now, who, &format!("  {}", describe(frame)));
        }
    }

    fn line(&mut self, now: Moment, who: &str, what: &str) {
        let (ms, us) = (now.as_millis(), now.subsec_micros() % 1_000);
        let mut line = String::new();
        if write!(line, "{ms:>7}.{us:03} ms  {who:<8} {what}").is_ok() {
            self.lines.push(line);
        }
    }

    /// Everything, in order.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

fn describe(frame: &Frame<'_>) -> String {
    let to = frame.ethernet.destination;
    match &frame.payload {
        Payload::Arp(Arp { operation, sha, spa, tpa, .. }) => match operation {
            arp::Operation::Request => format!("arp who-has {tpa} tell {spa} ({sha}) -> {to}"),
            arp::Operation::Reply => format!("arp {spa} is-at {sha} -> {to}"),
        },
        Payload::Ndp(Ndp { source, message, .. }) => match message {
            Message::Solicitation { target, .. } => format!("ns who-has {target} from {source} -> {to}"),
            Message::Advertisement { target, overrides, solicited, .. } => {
                format!("na {target} O={} S={} -> {to}", u8::from(*overrides), u8::from(*solicited))
            }
        },
        Payload::Echo(echo) => format!("echo {:?} -> {to}", echo.operation),
        Payload::Hello(sealed) => hello(sealed, to),
    }
}

fn hello(sealed: &Sealed<'_>, to: MacAddr) -> String {
    let counter = sealed.claimed_header().counter;
    let keys = &crate::node::keys();
    let nobody = Verifier { cluster: crate::node::CLUSTER, node: NodeId(u64::MAX), boot: Boot(0), keys };
    let message = nobody.verify(sealed).map(|verified| verified.message());
    match message {
        Ok(Ok(Hello(hello))) => format!("#{counter} {} -> {to}", describe_hello(&hello)),
        Ok(Ok(message)) => format!("#{counter} {message:?} -> {to}"),
        Ok(Err(error)) => format!("#{counter} {error} -> {to}"),
        Err(error) => format!("#{counter} {error} -> {to}"),
    }
}

fn describe_hello(hello: &herald_wire::hello::Hello) -> String {
    let mut text = format!(
        "hello {:?} able={} next<={} ms table={}",
        hello.state,
        u8::from(hello.able),
        hello.interval_ms,
        hello.table_version
    );
    let mut list = |name: &str, entries: Vec<String>| {
        if !entries.is_empty() {
            let _ = write!(text, " {name}[{}]", entries.join(", "));
        }
    };
    list("suspect", hello.suspects.iter().map(|suspect| suspect.node.to_string()).collect());
    list("claim", hello.claims.iter().map(|c| format!("{} r{} e{}", c.vip, c.revision, c.epoch)).collect());
    list("drop", hello.drops.iter().map(|drop| format!("{} for {:?}", drop.vip, drop.winner)).collect());
    list("echo", hello.echoes.iter().map(ToString::to_string).collect());
    text
}

/// A speaker's event in a few words.
pub fn describe_event(event: &Event) -> String {
    let name = |peer: &PeerId| peer.name.as_ref().map_or(peer.node.to_string(), ToString::to_string);
    let fate = |how: &Gone| match how {
        Gone::Dead { silence, evidence, loss } => {
            format!("dead, silent for {} ms, evidence {evidence:.0} at loss {loss:.2}", silence.as_millis())
        }
        Gone::Left => "left".into(),
        Gone::Overdue => "overdue".into(),
        Gone::Replaced => "restarted".into(),
    };
    match event {
        Event::Claimed { vip, epoch, revision, cause, .. } => {
            let why = match cause {
                Cause::NeverHeld => "never held".into(),
                Cause::Takeover { from, how, .. } => format!("{} is {}", name(from), fate(how)),
                Cause::Freed => "free".into(),
                Cause::Override { from } => format!("{} is excluded", name(from)),
                Cause::Alone => "alone".into(),
            };
            format!("CLAIMS {vip} (epoch {epoch}, revision {revision}): {why}")
        }
        Event::Released { vip, reason, .. } => format!("RELEASES {vip}: {reason:?}"),
        Event::PeerUp { peer, .. } => format!("knows {} (boot {})", name(peer), peer.boot),
        Event::Suspected { peer, silence, .. } => {
            format!("suspects {}, silent for {} ms", name(peer), silence.as_millis())
        }
        Event::Unsuspected { peer, silence, .. } => {
            format!("hears {} again after {} ms", name(peer), silence.as_millis())
        }
        Event::Grace { peer, hold, .. } => format!("keeps what {} held for {hold:?}", name(peer)),
        Event::PeerDown { peer, how, .. } => format!("{} is {}", name(peer), fate(how)),
        other => format!("{other:?}"),
    }
}
