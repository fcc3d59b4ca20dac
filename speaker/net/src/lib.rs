//! Sockets, packet filters and netlink: the only crate that may hold unsafe code.
