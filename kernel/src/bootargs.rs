//! The boot arguments: words separated by white space in `/chosen/bootargs`, each `name=value`, or
//! `help`.
//!
//! Each has an [`Argument`] in a table: those of the kernel in `ARGUMENTS`, those of what it runs
//! in [`Options::ARGUMENTS`]. The tables read them, and are the answer to `help` (`make
//! help-bootargs`).
//!
//! A word that neither table has is passed over: a loader's command line is made for Linux
//! (`console=ttyAMA0 root=/dev/vda1 quiet`). One line names all such words ([`PassedOver`]), so
//! that a misspelt argument is seen. An argument of the tables with a value that is not understood
//! is refused. The last of two equal arguments counts, but for `errata=`, which adds up.

mod argument;
mod table;

use core::fmt;
use core::marker::PhantomData;

use log::LevelFilter;

use crate::arch::errata::Errata;
use crate::arch::identity::Override;
use table::ARGUMENTS;

pub use argument::{Argument, Choices, names, number, parse_number, pick};

/// How many registers `id_override=` may name.
pub const NR_OVERRIDES: usize = 4;

/// What the kernel's own boot arguments say. `ARGUMENTS` says how each is written.
#[derive(Clone, Copy, Debug)]
pub struct BootArgs {
    /// `log=`
    pub log: LevelFilter,
    /// `linear=`
    pub linear: LinearLeaves,
    /// `rodata=`
    pub rodata: Rodata,
    /// `errata=`: forced on, beside what MIDR_EL1 says.
    pub errata: Errata,
    /// `id_override=`: what identification registers of one CPU or another are taken to hold where
    /// errata and features are looked up.
    pub overrides: [Option<Override>; NR_OVERRIDES],
    /// `fail_page_alloc=`: one in how many allocations of frames fails, once the kernel is up.
    pub fail_page_alloc: Option<u64>,
    /// `masked=`: sections with interrupts masked are measured.
    pub masked: bool,
}

/// Leaves of the linear map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinearLeaves {
    /// The largest that the tables allow.
    Largest,
    /// 4 KiB pages only.
    Pages,
}

/// Which maps of the image's text and constants are read-only. The image's own always is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rodata {
    /// Their alias in the linear map, too.
    Full,
    /// The alias stays writable.
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
        }
    }
}

/// What boot arguments say to what the kernel runs.
pub trait Options: Default + 'static {
    /// The arguments.
    const ARGUMENTS: &'static [Argument<Self>];

    /// Why it refuses them: the name or all of one, between backquotes, and more.
    type Refusal: fmt::Display;

    /// Looks at all arguments once they are read, and may change how the kernel sets itself up.
    ///
    /// # Errors
    /// They do not go together, or name something that is not there.
    fn check(&mut self, args: &mut BootArgs) -> Result<(), Self::Refusal>;
}

/// There are none.
impl Options for () {
    const ARGUMENTS: &'static [Argument<Self>] = &[];

    type Refusal = core::convert::Infallible;

    fn check(&mut self, _: &mut BootArgs) -> Result<(), Self::Refusal> {
        Ok(())
    }
}

/// Why the boot arguments are refused.
pub enum BadArgument<I: Options> {
    /// The value is not one of those that there are, or there is none.
    Value {
        /// The whole argument.
        argument: &'static str,
        /// What would be understood.
        expected: &'static dyn fmt::Display,
    },
    /// What the kernel runs refuses them.
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

/// The list of all arguments, as lines.
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

/// Reads `line`, for the kernel and for what it runs. `None` if all that is asked for is the list
/// of arguments.
///
/// # Errors
/// The first argument with a value that is not understood.
pub fn parse<I: Options>(line: &'static str) -> Result<Option<(BootArgs, I)>, BadArgument<I>> {
    let mut args = BootArgs::default();
    let mut init = I::default();
    let mut help = false;
    for argument in line.split_ascii_whitespace() {
        if argument == "help" {
            help = true;
            continue;
        }
        // No argument takes an empty value, so a name alone is refused.
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        Argument::set(ARGUMENTS, name, &mut args, value)
            .or_else(|| Argument::set(I::ARGUMENTS, name, &mut init, value))
            .unwrap_or(Ok(()))
            .map_err(|expected| BadArgument::Value { argument, expected })?;
    }
    init.check(&mut args).map_err(BadArgument::Refused)?;
    Ok((!help).then_some((args, init)))
}

/// The words of a line that [`parse`] passed over, as a list.
pub struct PassedOver<I> {
    line: &'static str,
    of: PhantomData<I>,
}

impl<I: Options> PassedOver<I> {
    /// Returns those of `line`, if there are any.
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
