//! A segment's specs: their arrival, change and end (rules A29, A42), the multicast groups and the packet filter that
//! follow from them.
//!
//! Must always hold: a solicited-node group is joined exactly while an address of it is held here or has a spec: whoever
//! it names, this node may have to answer for it as a deputy (rule A45).

use std::net::IpAddr;
use std::sync::Arc;

use crate::context::Context;
use crate::input::VipSpec;
use crate::output::{Output, ReleaseReason};
use crate::ownership::Eligibility;
use crate::segment::Segment;
use crate::vips::{Mine, VipId};

impl Segment {
    /// The node takes nothing here, whatever the spec: nobody has to wait for it (rule A32).
    pub(crate) fn node_is_excluded(&self, cx: &Context) -> bool {
        cx.node.out_of_service || (cx.node.excluded && self.ignoring_exclusion == 0)
    }

    /// A spec is new or has changed; `eligible`: it, the node and the interface let this node hold the address;
    /// `doubted`: it may be gone.
    pub(crate) fn set_spec(&mut self, cx: &mut Context, spec: &Arc<VipSpec>, eligible: bool, doubted: bool) {
        let Some(id) = self.vips.find_or_insert(spec.vip, cx.now) else {
            cx.counters.table_full += 1;
            return;
        };
        let Some(vip) = self.vips.get_mut(id) else { return };
        let before = vip.spec.replace(Arc::clone(spec));
        if before.is_none() {
            vip.spec_since = cx.now;
            self.interest_stale = true;
        }
        vip.eligibility = match vip.eligibility {
            _ if eligible && doubted => Eligibility::Doubted,
            _ if eligible => Eligibility::Eligible,
            Eligibility::Excluded(since) => Eligibility::Excluded(since),
            _ => Eligibility::Excluded(cx.now),
        };
        let raised = vip.mine.filter(|mine| eligible && mine.revision < spec.revision);
        if let Some(mine) = raised {
            vip.max_revision = vip.max_revision.max(spec.revision);
            self.vips.set_mine(id, Some(Mine { revision: spec.revision, ..mine }));
            self.changed(id, None, 3);
        }
        self.count_named(&cx.config.name.clone(), before.as_deref(), Some(spec));
        self.ignoring_exclusion += usize::from(spec.ignore_exclusion);
        self.ignoring_exclusion -= usize::from(before.is_some_and(|before| before.ignore_exclusion));
        self.join_or_leave(cx, id);
        self.evaluate(cx, id);
    }

    /// A spec is gone: `reason` says whether the address may come back in a moment (rule A42) or went elsewhere.
    pub(crate) fn remove_spec(&mut self, cx: &mut Context, addr: IpAddr, moved: bool) {
        let Some(id) = self.vips.find(addr) else { return };
        let Some(vip) = self.vips.get_mut(id) else { return };
        let Some(before) = vip.spec.take() else { return };
        vip.eligibility = Eligibility::NoSpec(cx.now);
        let held = vip.mine.is_some();
        self.count_named(&cx.config.name.clone(), Some(&before), None);
        self.ignoring_exclusion -= usize::from(before.ignore_exclusion);
        if held && moved {
            self.release(cx, id, ReleaseReason::InterfaceChanged);
        }
        self.interest_stale = true;
        self.join_or_leave(cx, id);
        self.evaluate(cx, id);
    }

    /// The solicited-node group of an IPv6 address follows whether there is anything to answer for it.
    pub(crate) fn join_or_leave(&mut self, cx: &mut Context, id: VipId) {
        let ifindex = self.ifindex();
        let Some(vip) = self.vips.get_mut(id) else { return };
        let IpAddr::V6(addr) = vip.addr else { return };
        let want = vip.spec.is_some() || vip.mine.is_some();
        if want == vip.joined {
            return;
        }
        vip.joined = want;
        let group = herald_wire::ndp::solicited_node(addr);
        let users = self.groups.entry(group).or_default();
        if want {
            *users += 1;
            if *users == 1 {
                cx.outputs.push_back(Output::JoinGroup { ifindex, group });
            }
        } else {
            *users = users.saturating_sub(1);
            if *users == 0 {
                self.groups.remove(&group);
                cx.outputs.push_back(Output::LeaveGroup { ifindex, group });
            }
        }
    }

    /// See [`crate::Core::interest`].
    pub(crate) fn interest(&self) -> Vec<IpAddr> {
        let mut vips: Vec<IpAddr> = self
            .vips
            .iter()
            .filter(|(_, vip)| vip.spec.is_some() || vip.mine.is_some())
            .map(|(_, vip)| vip.addr)
            .collect();
        vips.sort_unstable();
        vips
    }

    /// An address without a spec was given up: nothing about it is of interest any more.
    pub(crate) fn interest_changed(&mut self) {
        self.interest_stale = true;
    }
}
