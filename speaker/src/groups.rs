//! Joins solicited-node groups on a thread of its own: the kernel may take long over it, as it holds a lock that a
//! busy CNI holds too, and every join walks the device's list.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv6Addr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use herald_net::groups::SolicitedNodeGroups;

/// What is to be done, in order.
#[derive(Debug)]
pub enum Membership {
    /// Join a group on an interface of this name.
    Join(u32, Arc<str>, Ipv6Addr),
    /// Leave it.
    Leave(u32, Ipv6Addr),
    /// The interface is gone.
    Forget(u32),
    /// The interface lost its memberships, or may have.
    Rejoin(u32, Arc<str>),
}

/// Starts the thread; it ends with the sender.
pub fn spawn() -> io::Result<Sender<Membership>> {
    let (sender, receiver) = channel();
    thread::Builder::new().name("groups".to_owned()).stack_size(128 * 1024).spawn(move || work(&receiver))?;
    Ok(sender)
}

fn work(queue: &Receiver<Membership>) {
    let mut groups = SolicitedNodeGroups::new();
    // Interfaces on which joining fails: thousands of groups fail alike, one line tells it.
    let mut failing = BTreeSet::new();
    for membership in queue {
        let (ifindex, name, result) = match membership {
            Membership::Join(ifindex, name, group) => (ifindex, name, groups.join(ifindex, group)),
            Membership::Rejoin(ifindex, name) => (ifindex, name, groups.rejoin(ifindex)),
            Membership::Leave(ifindex, group) => {
                groups.leave(ifindex, group);
                continue;
            }
            Membership::Forget(ifindex) => {
                groups.forget_interface(ifindex);
                failing.remove(&ifindex);
                continue;
            }
        };
        match result {
            Ok(()) => {
                failing.remove(&ifindex);
            }
            Err(error) => {
                if failing.insert(ifindex) {
                    tracing::warn!(
                        interface = %name,
                        %error,
                        "can't join solicited-node groups: switches with MLD snooping may not forward neighbour solicitations to this node"
                    );
                }
            }
        }
    }
}
