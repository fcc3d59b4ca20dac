//! Going: BYE RESTART, after which everything stays where it is, or BYE LEAVE and answering until everything is
//! claimed (rule A44). OFFER comes with the failover work (rule A43).

use std::time::Duration;

use herald_wire::hello::{Bye, GROUP, Message, Reason};

use crate::context::Context;
use crate::output::ReleaseReason;
use crate::segment::Segment;
use crate::snapshot::Lifecycle;
use crate::time::Instant;

/// A leaver answers until everything is claimed, at most this long.
const LEAVE_WITHIN: Duration = Duration::from_millis(250);
/// A restart may take this long, in seconds: a pod is made anew, perhaps its image is fetched.
const RESTART_WITHIN_S: u16 = 60;
const BYES: u8 = 3;
/// Between two of them.
const BYE_EVERY: Duration = Duration::from_millis(5);

/// What a speaker that ends does with what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It will be back: nothing moves while its node's kernel answers (rule A23).
    Restart,
    /// It hands over.
    Leave,
}

/// How far a segment has come with leaving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    parting: Parting,
    since: Instant,
    byes: u8,
    next: Option<Instant>,
}

impl Leaving {
    /// When there is something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Segment {
    /// Rule A44: peers claim at once, or keep everything for it; meanwhile this node goes on answering.
    pub(crate) fn leave(&mut self, cx: &Context, parting: Parting) {
        if self.leaving.is_none() {
            self.state = Lifecycle::Leaving;
            self.leaving = Some(Leaving { parting, since: cx.now, byes: 0, next: Some(cx.now) });
        }
    }

    /// Whoever wants what this node holds may have it.
    pub(crate) fn hands_over(&self) -> bool {
        self.leaving.is_some_and(|leaving| leaving.parting == Parting::Leave)
    }

    pub(crate) fn leaving_tick(&mut self, cx: &mut Context) {
        let Some(mut leaving) =
            self.leaving.filter(|leaving| leaving.next.is_some_and(|next| next <= cx.now))
        else {
            return;
        };
        if leaving.byes < BYES {
            let bye = match leaving.parting {
                Parting::Restart => Bye { reason: Reason::Restart, hold_s: RESTART_WITHIN_S },
                Parting::Leave => Bye { reason: Reason::Leave, hold_s: 0 },
            };
            self.send(cx, GROUP, &Message::Bye(bye));
            leaving.byes += 1;
        }
        leaving.next = Some(cx.now + BYE_EVERY);
        let alone = !self.peers.any_present();
        let over = leaving.byes >= BYES
            && (leaving.parting == Parting::Restart
                || self.vips.held() == 0
                || alone
                || cx.now.since(leaving.since) >= LEAVE_WITHIN);
        if over {
            leaving.byes = BYES + 1;
            leaving.next = None;
            // Before a restart nothing is given up: status goes on naming this node, too.
            let given_up = if leaving.parting == Parting::Leave { self.vips.ids() } else { Vec::new() };
            for id in given_up {
                if self.vips.get(id).is_some_and(|vip| vip.mine.is_some()) {
                    self.release(cx, id, ReleaseReason::Shutdown);
                }
            }
        }
        self.leaving = Some(leaving);
    }

    /// Has [`Self::leave`] come to its end?
    pub(crate) fn has_left(&self) -> bool {
        self.leaving.is_some_and(|leaving| leaving.byes > BYES)
    }
}
