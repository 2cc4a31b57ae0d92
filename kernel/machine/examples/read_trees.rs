//! Reads device trees as the kernel does and prints what it makes of each: one JSON object a line.
//! `scripts/device-trees` holds that against another reading.

#[path = "../tests/support/described.rs"]
mod described;

use std::process::ExitCode;

use described::described;
use serde_json::json;

fn main() -> ExitCode {
    for file in std::env::args_os().skip(1) {
        let blob = match std::fs::read(&file) {
            Ok(blob) => blob,
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        };
        let read = described(&blob).unwrap_or_else(|error| json!({ "error": error }));
        println!("{read}");
    }
    ExitCode::SUCCESS
}
