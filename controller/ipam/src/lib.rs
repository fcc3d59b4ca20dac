//! The allocator core: pools, free space, requests, owners. No Kubernetes, no clock, no I/O.
