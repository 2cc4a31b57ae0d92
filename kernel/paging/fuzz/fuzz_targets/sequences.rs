//! Bytes decode to a granule, a machine and up to 64 operations. `tests/fuzz_corpus.rs` runs the
//! corpus without the fuzzer.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::machine::run_bytes(bytes));
