//! The layer-2 protocol core: liveness, election, ownership, announcing and answering. No sockets, no clock.
