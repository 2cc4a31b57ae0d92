use core::fmt;

use kernel::println;

use super::Shell;
use super::refusal::Refusal;
use super::{access, areas, map, run, status, tables};
use crate::selftest;

pub const MAX_WORDS: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    Line,
    Off,
}

type Run = for<'a> fn(&mut Shell, &[&'a str]) -> Result<(), Refusal<'a>>;

#[derive(Clone, Copy)]
pub enum Action {
    Run(Run),
    Help,
    OnCpu,
    Off,
}

pub struct Command {
    pub name: &'static str,
    words: &'static str,
    nr_words: core::ops::RangeInclusive<usize>,
    what: &'static str,
    action: Action,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, words, what, ..
        } = self;
        let blank = if words.is_empty() { "" } else { " " };
        write!(f, "{name}{blank}{words}: {what}")
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn command(
    name: &'static str,
    words: &'static str,
    nr_words: core::ops::RangeInclusive<usize>,
    what: &'static str,
    action: Action,
) -> Command {
    Command {
        name,
        words,
        nr_words,
        what,
        action,
    }
}

pub static COMMANDS: &[Command] = &[
    command(
        "walk",
        "VA",
        1..=1,
        "the walk of an address, level by level",
        Action::Run(tables::walk),
    ),
    command(
        "ptdump",
        "[START SIZE]",
        0..=2,
        "what is mapped, a line a run",
        Action::Run(tables::ptdump),
    ),
    command(
        "ptmap",
        "",
        0..=0,
        "the same for scripts/ptmap, as JSON",
        Action::Run(map::ptmap),
    ),
    command(
        "areas",
        "",
        0..=0,
        "the areas of the vmalloc region, the shell's with their numbers",
        Action::Run(areas::list),
    ),
    command(
        "vmalloc",
        "SIZE",
        1..=1,
        "memory of its own (4K, 2M, 0x3000)",
        Action::Run(areas::vmalloc),
    ),
    command(
        "vmap",
        "ORDERS",
        1..=1,
        "blocks of 2^order pages, one behind the other (8,4,0)",
        Action::Run(areas::vmap),
    ),
    command(
        "ioremap",
        "PA SIZE",
        2..=2,
        "a physical range that is no RAM, as device memory",
        Action::Run(areas::ioremap),
    ),
    command(
        "free",
        "ID",
        1..=1,
        "gives an area of the shell's back",
        Action::Run(areas::free),
    ),
    command(
        "protect",
        "ID RANGE PERM",
        3..=3,
        "`all` or OFFSET+SIZE of an area becomes r, rw or rx",
        Action::Run(areas::protect),
    ),
    command(
        "probe",
        "VA r|w|x",
        2..=2,
        "tries an access, and reports what comes of it",
        Action::Run(access::probe),
    ),
    command(
        "test",
        "GLOB",
        1..=1,
        "runs self-tests, until Ctrl-C; `list` names them (ioremap.*)",
        Action::Run(run::test),
    ),
    command(
        "bench",
        "GLOB",
        1..=1,
        "counts instructions of bench cases, until Ctrl-C (vmap?16*)",
        Action::Run(run::bench),
    ),
    command(
        "stat",
        "",
        0..=0,
        "what is in use, and an audit of the whole tree",
        Action::Run(status::stat),
    ),
    command(
        "purge",
        "",
        0..=0,
        "flushes what is lazy, and frees it",
        Action::Run(status::purge),
    ),
    command(
        "cpu",
        "N CMD",
        2..=MAX_WORDS,
        "runs a command on another CPU",
        Action::OnCpu,
    ),
    command(
        "help",
        "[CMD]",
        0..=1,
        "this list, or one line of it",
        Action::Help,
    ),
    command("off", "", 0..=0, "turns the machine off", Action::Off),
];

fn find(name: &str) -> Result<&'static Command, Refusal<'_>> {
    COMMANDS
        .iter()
        .find(|command| command.name == name)
        .ok_or(Refusal::Unknown(name))
}

/// # Errors
/// Why it was not carried out.
pub fn execute<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<Next, Refusal<'a>> {
    let Some((&name, words)) = words.split_first() else {
        return Ok(Next::Line);
    };
    let command = find(name)?;
    if !command.nr_words.contains(&words.len()) {
        return Err(Refusal::Usage(command));
    }
    match command.action {
        Action::Run(run) => run(shell, words)?,
        Action::Help => help(words)?,
        Action::OnCpu => run::on_cpu(shell, words)?,
        Action::Off => return Ok(Next::Off),
    }
    Ok(Next::Line)
}

/// Carries out a command that does not work on the shell itself.
///
/// # Errors
/// Why it was not carried out.
pub fn execute_here<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let Some((&name, words)) = words.split_first() else {
        return Ok(());
    };
    let command = find(name)?;
    if !command.nr_words.contains(&words.len()) {
        return Err(Refusal::Usage(command));
    }
    match command.action {
        Action::Run(_) if ["test", "bench"].contains(&command.name) => Err(Refusal::OnlyOnCpu0(command.name)),
        Action::Run(run) => run(shell, words),
        Action::Help => help(words),
        Action::OnCpu | Action::Off => Err(Refusal::OnlyOnCpu0(command.name)),
    }
}

/// Returns the last word; `each` gets the names that it may become.
pub fn for_each_candidate(typed: &str, mut each: impl FnMut(&'static str)) -> &str {
    let (before, word) = typed.rsplit_once(' ').unwrap_or(("", typed));
    let mut before = before.split_ascii_whitespace();
    let mut place = [before.next(), before.next(), before.next()];
    while let [Some("cpu"), Some(_), after] = place {
        place = [after, before.next(), before.next()];
    }
    let mut offer = |name: &'static str| {
        if name.starts_with(word) {
            each(name);
        }
    };
    match place {
        [None, ..] | [Some("help"), None, _] => COMMANDS.iter().for_each(|command| offer(command.name)),
        [Some("test"), None, _] => selftest::names().for_each(offer),
        _ => {}
    }
    word
}

fn help<'a>(words: &[&'a str]) -> Result<(), Refusal<'a>> {
    if let Some(name) = words.first() {
        println!("{}", find(name)?);
        return Ok(());
    }
    for Command {
        name, words, what, ..
    } in COMMANDS
    {
        println!("  {name:<8} {words:<14} {what}");
    }
    Ok(())
}
