//! Frames on the LAN: Ethernet, ARP, ICMPv6 neighbour discovery, echo, and the speakers' hello.
