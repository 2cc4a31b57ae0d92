//! Prints device trees as the kernel reads them, for `scripts/device-trees`.

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
