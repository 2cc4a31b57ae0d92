//! KTAP version 1 on the console.

use core::fmt;

use kernel::println;

use super::failure::Stop;

#[derive(Debug, Default)]
pub struct Report {
    planned: usize,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    #[must_use]
    pub fn begin(nr: usize) -> Self {
        println!("KTAP version 1");
        println!("1..{nr}");
        Self {
            planned: nr,
            ..Self::default()
        }
    }

    pub fn say(args: fmt::Arguments<'_>) {
        println!("# {args}");
    }

    pub fn result(&mut self, name: &str, result: &Result<(), Stop>) {
        let number = self.nr() + 1;
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok {number} {name}");
            }
            Err(Stop::Skip(reason)) => {
                self.skipped += 1;
                println!("ok {number} {name} # SKIP {reason}");
            }
            Err(Stop::Fail(failure)) => {
                self.failed += 1;
                Self::say(format_args!("{name}: {failure}"));
                println!("not ok {number} {name}");
            }
        }
    }

    pub fn bail_out(self) {
        let (ran, planned) = (self.nr(), self.planned);
        println!("Bail out! interrupted after {ran} of {planned} tests");
        self.end();
    }

    fn nr(&self) -> u32 {
        self.passed + self.failed + self.skipped
    }

    pub fn end(self) {
        let Self {
            passed,
            failed,
            skipped,
            ..
        } = self;
        println!("# Totals: pass:{passed} fail:{failed} skip:{skipped}");
    }
}
