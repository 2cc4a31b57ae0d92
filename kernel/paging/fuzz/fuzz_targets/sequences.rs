//! Any bytes are a granule, a machine and up to 64 operations; none of them breaks a rule of the
//! architecture.
//!
//! From this directory's parent: `cargo +nightly fuzz run sequences`. The entry is the one of
//! `tests/fuzz_corpus.rs`, which runs the kept corpus and seeded inputs without a fuzzer.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::machine::run_bytes(bytes));
