//! Deterministic simulation of a LAN of speakers.
