//! `mode=shell`: a command line on the console, to look at the tables and to make areas by hand.
//!
//! # What it promises
//! Nothing that is typed ends the kernel. Numbers are checked, accesses go through probes, and each
//! command is bounded in what it takes and prints:
//! - it holds at most [`held::MAX_HELD`] areas, and at most a quarter of the frames, so that
//!   everything else finds memory;
//! - it changes only areas that it holds itself, and never makes anything writable and executable
//!   (DESIGN rule 10: the engine refuses);
//! - it stores and executes only in areas that it holds, which it fills with zeros, and 0 is an
//!   undefined instruction; of everything else it asks the MMU.
//!
//! A line that is not understood gets one line that says why.

mod access;
mod areas;
mod command;
mod editor;
mod held;
mod keys;
mod line;
pub mod map;
mod parse;
mod refusal;
mod run;
mod status;
mod tables;

use kernel::BootInfo;
use kernel::arch::features::Features;
use kernel::println;

use crate::options::Options;
use editor::Editor;
use held::Held;
use status::InUse;

pub use tables::dump_all;

/// What the commands work on.
pub struct Shell {
    info: &'static BootInfo,
    options: Options<'static>,
    features: Features,
    held: Held,
    /// What was in use when the shell began.
    before: InUse,
}

/// Reads commands from the console until `off`.
pub fn run(info: &'static BootInfo, options: &Options<'static>, features: &Features) {
    // What takes room on the heap has it before anything is counted.
    let held = Held::new();
    let mut editor = Editor::new();
    let mut shell = Shell {
        info,
        options: *options,
        features: *features,
        held,
        before: InUse::now(),
    };
    println!("vmwalk: shell: `help` lists the commands, TAB completes, the arrows recall, `off` ends");
    editor.run(&mut shell);
    println!("vmwalk: off");
}
