//! The lab: a real control plane and a LAN of network namespaces, for the demo, the tests and the benchmarks.
