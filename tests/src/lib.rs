//! Oilskin's tests.
