//! The fuzzer's entry on its corpus, mutations of it, and seeds (see `fuzz/`).

use crate::support;

use std::fs;
use support::Rng;
use support::machine::{RawOp, run_bytes};

fn run(bytes: &[u8], what: &str) {
    struct Named<'a>(&'a [u8], &'a str);
    impl Drop for Named<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("input {}: {:02x?}", self.1, self.0);
            }
        }
    }
    let _named = Named(bytes, what);
    run_bytes(bytes);
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/sequences");
    let mut corpus: Vec<_> = fs::read_dir(dir)
        .expect("the corpus is kept beside the fuzzer")
        .map(|entry| {
            let path = entry.expect("a directory entry").path();
            let bytes = fs::read(&path).expect("a file of the corpus");
            (
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                bytes,
            )
        })
        .collect();
    corpus.sort();
    corpus
}

#[test]
fn the_kept_corpus_breaks_no_rule() {
    let corpus = corpus();
    assert!(corpus.len() >= 16, "a corpus of {} inputs", corpus.len());
    for (name, bytes) in &corpus {
        assert!(bytes.len() > RawOp::BYTES, "{name} holds an operation");
        run(bytes, name);
    }
}

#[test]
fn neighbours_of_the_corpus_break_no_rule() {
    let mut rng = Rng(0x1234_5678_9abc);
    for (name, bytes) in corpus() {
        for _ in 0..soak(2) {
            let mut bytes = bytes.clone();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next() as u8;
            }
            run(&bytes, &name);
        }
    }
}

#[test]
fn inputs_from_seeds_break_no_rule() {
    for seed in 1..=soak(60) {
        let mut rng = Rng(seed * 0x9e37_79b9);
        let nr = 2 + RawOp::BYTES as u64 * (1 + rng.below(16));
        let bytes: Vec<_> = (0..nr).map(|_| rng.next() as u8).collect();
        run(&bytes, &format!("from seed {seed}"));
    }
}

fn soak(nr: u64) -> u64 {
    let factor = std::env::var("SOAK")
        .ok()
        .and_then(|factor| factor.parse().ok())
        .unwrap_or(1);
    nr * factor
}
