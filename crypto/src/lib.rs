//! Ciphers, field tokens, keysets, root keys and key stores of Oilskin. Knows nothing of HTTP or configuration.
