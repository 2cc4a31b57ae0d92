use kernel::layout;
use kernel::mm::{self, kernel_tree, walk_lock};
use kernel::println;
use paging::{DisplaySize, DumpRun, VirtRange};

use super::Shell;
use super::parse;
use super::refusal::Refusal;

const MAX_LINES: usize = 512;

pub fn walk<'a>(_: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let va = parse::va(words[0])?;
    mm::dump::walk(va.0 as usize, &mut kernel::drivers::console::print);
    Ok(())
}

pub fn ptdump<'a>(_: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let range = match words {
        [] => kernel_tree().range(),
        [start, size] => parse::range(start, size)?,
        [word, ..] => {
            return Err(Refusal::Word {
                word,
                expected: "enough: START and SIZE, or neither",
            });
        }
    };
    dump(range, MAX_LINES);
    Ok(())
}

pub fn dump_all() {
    dump(kernel_tree().range(), usize::MAX);
}

fn dump(range: VirtRange, max_lines: usize) {
    let mut nr = 0;
    // Neighbouring invalid leaves are shown as one.
    let mut idle: Option<(VirtRange, u64)> = None;
    let tell = |idle: &mut Option<(VirtRange, u64)>| {
        if let Some((range, runs)) = idle.take() {
            println!(
                "{:#018x}-{:#018x} not valid: {} in {runs} runs",
                range.start,
                range.end(),
                DisplaySize(range.size)
            );
        }
    };
    let more = for_each_run(range, |run| {
        if nr == max_lines {
            return false;
        }
        if !run.valid {
            match &mut idle {
                Some((range, runs)) if range.end() == run.range.start => {
                    range.size += run.range.size;
                    *runs += 1;
                    return true;
                }
                _ => tell(&mut idle),
            }
            idle = Some((run.range, 1));
        } else {
            tell(&mut idle);
            println!("{run}");
        }
        nr += 1;
        true
    });
    tell(&mut idle);
    match more {
        true => println!("... and more: ptdump START SIZE shows a part"),
        false => println!("{nr} lines"),
    }
}

/// Calls `f` until it returns false; returns whether it did. No lock is held meanwhile.
pub fn for_each_run(range: VirtRange, mut f: impl FnMut(&DumpRun<layout::Granule>) -> bool) -> bool {
    let mut runs = kernel_tree().dump(range);
    loop {
        let run = {
            let _walk = walk_lock().walk();
            runs.next()
        };
        match run {
            None => return false,
            Some(run) if !f(&run) => return true,
            Some(_) => {}
        }
    }
}
