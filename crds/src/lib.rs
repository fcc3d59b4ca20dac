//! The API kinds of heraldlb.io as Rust types, and the CRD manifests made from them.
