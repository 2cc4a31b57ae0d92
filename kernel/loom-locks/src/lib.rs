//! Nothing: [the tests](../tests/locks.rs) are what this package is for.
