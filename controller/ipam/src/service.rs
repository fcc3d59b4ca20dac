//! What is known of one Service: its request, what it is to have, and what its status was last told.

use std::net::IpAddr;
use std::sync::Arc;

use crate::waiting::{Rank, Turn, Wait};
use crate::{Addresses, Family, Ingress, Owner, Publication, Refusal, ServiceRequest, Version};

/// A Service of type LoadBalancer and of our class.
#[derive(Debug)]
pub(crate) struct Service {
    // Shared with who told of it, as there are many.
    pub(crate) request: Arc<ServiceRequest>,
    /// What it is to have. What it has a share in beyond this is given back once its status no longer shows it.
    pub(crate) target: Addresses,
    /// What it asks for and does not get.
    pub(crate) refusal: Option<Box<Refusal>>,
    /// What it waits for, and the rank under which it does.
    pub(crate) waits: Option<Box<(Rank, Vec<Wait>)>>,
    /// The API server refused to record this address for it: not tried again before `Retry` or another request.
    pub(crate) write_refused: Option<Box<Refusal>>,
    /// Its status as last written, at which version.
    published: Option<Box<Publication>>,
    /// The status that is being written.
    publishing: Option<Box<Publication>>,
    /// A status write came to nothing when the Service was at this version.
    stalled_at: Option<Version>,
    /// Nothing was published since: who writes statuses holds on to what came to nothing, until told anew.
    unheeded: bool,
}

impl Service {
    /// A Service that is there, or there again while a status write from before is under way.
    pub(crate) fn new(request: Arc<ServiceRequest>, publishing: Option<Publication>) -> Self {
        Self {
            request,
            target: Addresses::default(),
            refusal: None,
            waits: None,
            write_refused: None,
            published: None,
            publishing: publishing.map(Box::new),
            stalled_at: None,
            unheeded: false,
        }
    }

    /// Its place among those to be served.
    pub(crate) fn rank(&self) -> Rank {
        let requested = self.request.wanted.as_ref().map(|wanted| wanted.addresses).unwrap_or_default();
        let strangers = self.strangers();
        let adopts = requested.is_empty() || strangers.iter().any(|address| requested.contains(address));
        let turn = match () {
            () if self.target.is_empty() && !strangers.is_empty() && adopts => Turn::Adoption,
            () if !requested.is_empty() => Turn::Explicit,
            () => Turn::Rest,
        };
        Rank { turn, created: self.request.created, service: self.request.owner.service.clone() }
    }

    /// A newer state of the same Service.
    pub(crate) fn renew(&mut self, request: Arc<ServiceRequest>) {
        if request.wanted != self.request.wanted || request.families != self.request.families {
            self.write_refused = None;
        }
        self.request = request;
    }

    /// Whether its status may show this address now: then it cannot be given back yet.
    pub(crate) fn may_show(&self, address: IpAddr) -> bool {
        let never_told = self.published.is_none() && self.publishing.is_none();
        self.was_told(address) || (never_told && self.request.shown.contains(&address))
    }

    /// Whether Herald has written this address into its status, or is about to.
    pub(crate) fn was_told(&self, address: IpAddr) -> bool {
        self.published.iter().chain(&self.publishing).any(|publication| match publication.ingress {
            Ingress::Show(addresses) => addresses.contains(address),
            Ingress::Leave => false,
        })
    }

    /// Addresses in its status that Herald has not put there, of families it wants; the first of each counts.
    pub(crate) fn strangers(&self) -> Addresses {
        let mut strangers = Addresses::default();
        for address in self.shown() {
            let family = Family::of(address);
            let first = strangers.of(family).is_none();
            if first && self.request.families.has(family) && !self.was_ours(address) {
                strangers = strangers.with(address);
            }
        }
        strangers
    }

    /// What `ingress` is to be: an address that others have put there stays until there is one of ours.
    pub(crate) fn ingress(&self) -> Ingress {
        let strange = self.shown().into_iter().any(|address| !self.was_ours(address));
        if self.target.is_empty() && strange { Ingress::Leave } else { Ingress::Show(self.target) }
    }

    /// The newest version of the Service that is known: what the watch told, or what our last write made.
    pub(crate) fn version(&self) -> Version {
        let written = self.published.as_ref().map(|publication| publication.version);
        self.request.version.max(written.unwrap_or_default())
    }

    /// Says `publication` unless that is what the status says and what was said last, or a write is under way, or came
    /// to nothing and nothing has changed since.
    pub(crate) fn publish(&mut self, publication: Publication) -> Option<Publication> {
        let stalled = self.stalled_at.is_some_and(|at| self.request.version <= at);
        if self.publishing.is_some() || stalled || !(self.unheeded || self.differs(&publication)) {
            return None;
        }
        self.stalled_at = None;
        self.unheeded = false;
        self.publishing = Some(Box::new(publication.clone()));
        Some(publication)
    }

    /// The status write that was under way is done.
    pub(crate) fn published(&mut self, version: Version) {
        if let Some(mut publication) = self.publishing.take() {
            publication.version = version;
            self.published = Some(publication);
        }
    }

    /// The status write that was under way wrote nothing.
    pub(crate) fn not_published(&mut self) {
        if let Some(publication) = self.publishing.take() {
            self.stalled_at = Some(publication.version);
            self.unheeded = true;
        }
    }

    /// The status write that is under way, with its owner.
    pub(crate) fn into_unfinished(self) -> Option<(Owner, Publication)> {
        self.publishing.map(|publication| (self.request.owner.clone(), *publication))
    }

    /// Forgets what was refused.
    pub(crate) fn retry(&mut self) {
        self.stalled_at = None;
        self.write_refused = None;
    }

    /// What its status shows. What the watch told before our last write is history.
    fn shown(&self) -> Vec<IpAddr> {
        match self.published.as_deref() {
            Some(Publication { ingress: Ingress::Show(addresses), version, .. })
                if self.request.version <= *version =>
            {
                addresses.iter().collect()
            }
            _ => self.request.shown.clone(),
        }
    }

    fn was_ours(&self, address: IpAddr) -> bool {
        self.was_told(address) || self.target.contains(address)
    }

    fn differs(&self, wanted: &Publication) -> bool {
        let Some(published) = &self.published else { return true };
        let said = published.ingress == wanted.ingress
            && published.pool == wanted.pool
            && published.refusal == wanted.refusal;
        let shown = match wanted.ingress {
            Ingress::Leave => true,
            Ingress::Show(addresses) => {
                let shown = self.shown();
                addresses.iter().count() == shown.len()
                    && shown.iter().all(|&address| addresses.contains(address))
            }
        };
        !said || !shown
    }
}
