//! The speaker: answers for addresses on this node's LAN.
