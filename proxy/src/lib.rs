//! Oilskin, a sidecar proxy that encrypts chosen fields of an app's HTTP traffic.
