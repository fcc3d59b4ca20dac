//! Leaving: BYE, and answering until everything is claimed (rule A44). OFFER and BYE RESTART come
//! with the failover work (rule A43).

use std::time::Duration;

use herald_wire::hello::{Bye, GROUP, Message, Reason};

use crate::context::Context;
use crate::output::ReleaseReason;
use crate::segment::Segment;
use crate::snapshot::Lifecycle;
use crate::time::Instant;

/// A leaver answers until everything is claimed, at most this long.
const LEAVE_WITHIN: Duration = Duration::from_millis(250);
const BYES: u8 = 3;
/// Between two of them.
const BYE_EVERY: Duration = Duration::from_millis(5);

/// How far a segment has come with leaving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
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
    /// Rule A44: peers claim at once; meanwhile this node goes on answering.
    pub(crate) fn leave(&mut self, cx: &Context) {
        if self.leaving.is_none() {
            self.state = Lifecycle::Leaving;
            self.leaving = Some(Leaving { since: cx.now, byes: 0, next: Some(cx.now) });
        }
    }

    pub(crate) fn leaving_tick(&mut self, cx: &mut Context) {
        let Some(mut leaving) =
            self.leaving.filter(|leaving| leaving.next.is_some_and(|next| next <= cx.now))
        else {
            return;
        };
        if leaving.byes < BYES {
            self.send(cx, GROUP, &Message::Bye(Bye { reason: Reason::Leave, hold_s: 0 }));
            leaving.byes += 1;
        }
        leaving.next = Some(cx.now + BYE_EVERY);
        let alone = !self.peers.any_present();
        let over = leaving.byes >= BYES
            && (self.vips.held() == 0 || alone || cx.now.since(leaving.since) >= LEAVE_WITHIN);
        if over {
            leaving.byes = BYES + 1;
            leaving.next = None;
            for id in self.vips.ids() {
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
