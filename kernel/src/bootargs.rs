//! Boot arguments: words in `/chosen/bootargs`, `name=value` or `help`, parsed by the tables
//! `ARGUMENTS` and [`Options::ARGUMENTS`].
//!
//! Unknown words are passed over and reported ([`PassedOver`]), as the command line may be Linux's.
//! Bad values are refused. The last of equal arguments counts; `errata=` adds up.

mod argument;
mod table;

use core::fmt;
use core::marker::PhantomData;

use log::LevelFilter;

use crate::arch::errata::Errata;
use crate::arch::identity::Override;
use table::ARGUMENTS;

pub use argument::{Argument, Choices, names, number, parse_number, pick};

pub const NR_OVERRIDES: usize = 4;

#[derive(Clone, Copy, Debug)]
pub struct BootArgs {
    pub log: LevelFilter,
    pub linear: LinearLeaves,
    pub rodata: Rodata,
    pub errata: Errata,
    pub overrides: [Option<Override>; NR_OVERRIDES],
    pub fail_page_alloc: Option<u64>,
    pub masked: bool,
    /// Counters of instructions are of time instead.
    pub timed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinearLeaves {
    Largest,
    Pages,
}

/// Which maps of text and constants are read-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rodata {
    /// The linear map's, too.
    Full,
    On,
}

impl Default for BootArgs {
    fn default() -> Self {
        Self {
            log: LevelFilter::Info,
            linear: LinearLeaves::Largest,
            rodata: Rodata::Full,
            errata: Errata::default(),
            overrides: [None; NR_OVERRIDES],
            fail_page_alloc: None,
            masked: false,
            timed: false,
        }
    }
}

pub trait Options: Default + 'static {
    const ARGUMENTS: &'static [Argument<Self>];

    /// Begins with the name or argument in backquotes.
    type Refusal: fmt::Display;

    /// Checks all arguments together, and may change the kernel's.
    ///
    /// # Errors
    /// They conflict, or name what does not exist.
    fn check(&mut self, args: &mut BootArgs) -> Result<(), Self::Refusal>;
}

impl Options for () {
    const ARGUMENTS: &'static [Argument<Self>] = &[];

    type Refusal = core::convert::Infallible;

    fn check(&mut self, _: &mut BootArgs) -> Result<(), Self::Refusal> {
        Ok(())
    }
}

pub enum BadArgument<I: Options> {
    /// Not understood, or missing.
    Value {
        argument: &'static str,
        expected: &'static dyn fmt::Display,
    },
    Refused(I::Refusal),
}

impl<I: Options> fmt::Display for BadArgument<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { argument, expected } => {
                write!(f, "bad boot argument `{argument}`: expected {expected}")
            }
            Self::Refused(refusal) => write!(f, "bad boot argument {refusal}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Help<I>(PhantomData<I>);

impl<I> Default for Help<I> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<I: Options> fmt::Display for Help<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Boot arguments, separated by blanks:")?;
        for argument in ARGUMENTS {
            write!(f, "\n  {argument}")?;
        }
        for argument in I::ARGUMENTS {
            write!(f, "\n  {argument}")?;
        }
        f.write_str("\n  help: this list")
    }
}

/// Parses `line`. `None` if it asks for help.
///
/// # Errors
/// The first bad value.
pub fn parse<I: Options>(line: &'static str) -> Result<Option<(BootArgs, I)>, BadArgument<I>> {
    let mut args = BootArgs::default();
    let mut init = I::default();
    let mut help = false;
    for argument in line.split_ascii_whitespace() {
        if argument == "help" {
            help = true;
            continue;
        }
        // No argument takes an empty value.
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        Argument::set(ARGUMENTS, name, &mut args, value)
            .or_else(|| Argument::set(I::ARGUMENTS, name, &mut init, value))
            .unwrap_or(Ok(()))
            .map_err(|expected| BadArgument::Value { argument, expected })?;
    }
    init.check(&mut args).map_err(BadArgument::Refused)?;
    Ok((!help).then_some((args, init)))
}

pub struct PassedOver<I> {
    line: &'static str,
    of: PhantomData<I>,
}

impl<I: Options> PassedOver<I> {
    #[must_use]
    pub fn of(line: &'static str) -> Option<Self> {
        let words = Self {
            line,
            of: PhantomData,
        };
        words.iter().next().is_some().then_some(words)
    }

    fn iter(&self) -> impl Iterator<Item = &'static str> + use<I> {
        let is_known = |word: &&str| {
            let name = word.split('=').next().unwrap_or(word);
            *word == "help"
                || ARGUMENTS.iter().any(|known| known.name == name)
                || I::ARGUMENTS.iter().any(|known| known.name == name)
        };
        self.line
            .split_ascii_whitespace()
            .filter(move |word| !is_known(word))
    }
}

impl<I: Options> fmt::Display for PassedOver<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for word in self.iter() {
            write!(f, "{separator}{word}")?;
            separator = " ";
        }
        Ok(())
    }
}
