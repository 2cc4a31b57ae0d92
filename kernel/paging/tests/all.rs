//! One test program, so that the engine is compiled once.

mod support;

mod aliases;
mod alignments;
mod check;
#[path = "concurrent/main.rs"]
mod concurrent;
mod deferred_tables;
mod differential;
mod dump;
mod executable;
#[path = "faults/main.rs"]
mod faults;
#[path = "flush/main.rs"]
mod flush;
mod fold;
mod frames_in_one_table;
mod fuzz_corpus;
mod golden_counts;
#[path = "interleaved/main.rs"]
mod interleaved;
mod leaf_choice;
mod links;
mod linux_bugs;
mod memory;
mod on_the_model;
mod one_batch;
mod outcomes;
mod own_rule;
mod peers;
mod protect_pages;
mod reads_once;
#[path = "reference/main.rs"]
mod reference;
mod sequences;
mod shortest_ways;
mod tables_left;
mod words;
