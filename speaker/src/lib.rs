//! The speaker: answers for addresses on this node's LAN.
//!
//! Two worlds that share nothing but two queues ([`link`]):
//!
//! - the **L2 thread** ([`l2_thread`]): sockets and the protocol core, in a loop that nothing else may delay;
//! - the **API side** (a single-threaded tokio runtime): [`observer`] watches LoadBalancerIPs and this node's own
//!   Node object, [`writer`] writes status and events, the admin endpoints answer.
//!
//! What must always hold: no API call is on the failover path; whatever the API side meets, the L2 thread goes on.

pub mod flags;
pub mod groups;
pub mod interfaces;
pub mod keys;
pub mod l2_thread;
pub mod lbip;
pub mod link;
pub mod metrics;
pub mod node;
pub mod node_news;
pub mod observer;
pub mod ports;
pub mod start;
pub mod state;
pub mod status;
pub mod users;
pub mod writer;
