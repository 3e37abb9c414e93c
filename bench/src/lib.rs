//! Oilskin's bench.
