//! `mode=shell`: a command line. It changes only areas that it holds, never to writable and
//! executable (DESIGN rule 10), and stores and executes only in these, which hold zeros, undefined
//! instructions.

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

pub struct Shell {
    info: &'static BootInfo,
    options: Options<'static>,
    features: Features,
    held: Held,
    before: InUse,
}

pub fn run(info: &'static BootInfo, options: &Options<'static>, features: &Features) {
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
