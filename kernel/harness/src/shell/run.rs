use kernel::arch::percpu::cpu_index;
use kernel::drivers::console;
use kernel::mm::frames;
use kernel::mm::layout::PAGE_SIZE;
use kernel::{println, smp};

use super::Shell;
use super::command;
use super::parse;
use super::refusal::Refusal;
use crate::measure::Instrument;
use crate::options::{Options, Selection};
use crate::{bench as benches, selftest};

const BENCH_ORDER: usize = 15;
/// And as many again for tables and smaller blocks.
const BENCH_FRAMES: u64 = 2 << BENCH_ORDER;

pub fn test<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let selection = Selection::parse(words[0]).ok_or(Refusal::Word {
        word: words[0],
        expected: "globs separated by commas",
    })?;
    if let Selection::Globs(list) = selection
        && let Some(glob) = list.split(',').find(|glob| !selftest::selects(glob))
    {
        return Err(Refusal::NoMatch(glob));
    }
    let options = Options {
        selftest: selection,
        ..shell.options
    };
    let _listening = console::listen();
    selftest::run_selected(shell.info, &options, &shell.features);
    Ok(())
}

pub fn bench<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    benches::check_page_size().map_err(Refusal::Bench)?;
    let free = (BENCH_ORDER..)
        .zip(frames::free_blocks().into_iter().skip(BENCH_ORDER))
        .map(|(order, nr)| nr << order)
        .sum::<u64>();
    if free < BENCH_FRAMES {
        return Err(Refusal::LittleMemory {
            free: free * PAGE_SIZE as u64,
            needed: BENCH_FRAMES * PAGE_SIZE as u64,
        });
    }
    // Here counts are asked for.
    Instrument::chosen(&shell.options, &shell.features).map_err(Refusal::Bench)?;
    let options = Options {
        bench: words[0],
        bench_walkers: "none",
        ..shell.options
    };
    if !benches::selects(&options, &shell.features).map_err(Refusal::Bench)? {
        return Err(Refusal::NoCase(words[0], smp::nr_online()));
    }
    let _listening = console::listen();
    benches::run(&options, &shell.features).map_err(Refusal::Bench)?;
    if console::interrupted() {
        println!("interrupted: the other cases did not run");
    }
    Ok(())
}

pub fn on_cpu<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let [number, words @ ..] = words else {
        return Ok(());
    };
    let number = parse::number(number)?;
    let cpu = usize::try_from(number).map_err(|_| Refusal::NotOnline(number))?;
    if cpu == cpu_index() {
        return command::execute(shell, words).map(|_| ());
    }
    match smp::run_on(cpu, || command::execute_here(shell, words)) {
        Ok(done) => done,
        Err(smp::NotOnline(_)) => Err(Refusal::NotOnline(number)),
    }
}
