//! The controller: gives every Service of type LoadBalancer its address.
