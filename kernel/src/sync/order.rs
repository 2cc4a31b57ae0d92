//! The order of locks, checked when one is taken and not when two CPUs wait for each other: in
//! builds with debug assertions.
//!
//! Locks of one kind are a class, named as the lock is. Every time a class is taken while another
//! is held, that is remembered for good; to take two the other way round is then refused, whether
//! or not another CPU happens to be in the way. What the documentation of [`sync`](super) says
//! about the order holds from the start, by [`LEVELS`].
//!
//! A lock that is tried and not waited for cannot close a circle, so it adds nothing; but it is
//! held. Locks mask interrupts, so an interrupt never finds its own CPU's lock taken, and there is
//! no more to check than the order.

use core::fmt;

/// Classes and their levels, as `docs/LOCKING.md` numbers them. A class may be taken while one of a
/// lower level is held. Two of one level may not be held together. Levels 1 to 3 are not locks of
/// this module: they are gates and bits of the `vmalloc` crate, held with interrupts enabled.
pub const LEVELS: [(&str, u8); 7] = [
    ("vmalloc gate", 4),
    ("vmalloc shard", 5),
    ("vmalloc common shard", 6),
    ("walks", 7),
    ("heap", 8),
    ("frames", 9),
    ("console", 10),
];

/// Classes that there is room for.
const MAX_CLASSES: usize = 32;

/// Why a lock must not be waited for here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A lock of this class is held by this CPU already.
    Recursion {
        /// The class.
        class: &'static str,
    },
    /// The documented order has it the other way round, or not at all.
    Level {
        /// The class that is held.
        held: &'static str,
        /// The class to be taken.
        taken: &'static str,
    },
    /// The two were taken the other way round before, directly or by way of others.
    Inversion {
        /// The class that is held.
        held: &'static str,
        /// The class to be taken.
        taken: &'static str,
    },
    /// More classes, or more locks held at once, than there is room for.
    NoRoom {
        /// The class to be taken.
        class: &'static str,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recursion { class } => write!(f, "'{class}' is taken where it is held already"),
            Self::Level { held, taken } => {
                write!(
                    f,
                    "'{taken}' is taken while '{held}' is held, against the documented order"
                )
            }
            Self::Inversion { held, taken } => {
                write!(
                    f,
                    "'{taken}' is taken while '{held}' is held; they were taken the other way round before"
                )
            }
            Self::NoRoom { class } => write!(f, "no room to note '{class}'"),
        }
    }
}

/// Which class was taken while which was held.
#[derive(Debug)]
pub struct Graph {
    names: [&'static str; MAX_CLASSES],
    nr: usize,
    /// Bit b of word a: b was taken while a was held.
    after: [u32; MAX_CLASSES],
}

impl Graph {
    /// Nothing was taken yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            names: [""; MAX_CLASSES],
            nr: 0,
            after: [0; MAX_CLASSES],
        }
    }

    /// Returns the number of a class, which is new the first time it is seen.
    ///
    /// # Errors
    /// [`Violation::NoRoom`].
    pub fn class(&mut self, name: &'static str) -> Result<u8, Violation> {
        if let Some(known) = self.names[..self.nr].iter().position(|known| *known == name) {
            return Ok(known as u8);
        }
        let slot = self
            .names
            .get_mut(self.nr)
            .ok_or(Violation::NoRoom { class: name })?;
        *slot = name;
        self.nr += 1;
        Ok((self.nr - 1) as u8)
    }

    /// Notes that `class` is waited for by one who holds `held`, all of them numbers that
    /// [`class`](Self::class) gave.
    ///
    /// # Errors
    /// It could end in a circle. Nothing is noted then.
    pub fn wait_for(&mut self, class: u8, held: &[u8]) -> Result<(), Violation> {
        let taken = self.names[usize::from(class)];
        for &before in held {
            let held = self.names[usize::from(before)];
            if before == class {
                return Err(Violation::Recursion { class: taken });
            }
            if let (Some(low), Some(high)) = (level(held), level(taken))
                && low >= high
            {
                return Err(Violation::Level { held, taken });
            }
            if self.reaches(class, before) {
                return Err(Violation::Inversion { held, taken });
            }
        }
        for &before in held {
            self.after[usize::from(before)] |= 1 << class;
        }
        Ok(())
    }

    /// Returns whether `to` was taken after `from`, directly or by way of others.
    fn reaches(&self, from: u8, to: u8) -> bool {
        let mut reached = 1u32 << from;
        loop {
            let next = (0..self.nr)
                .filter(|class| reached >> class & 1 != 0)
                .fold(reached, |reached, class| reached | self.after[class]);
            if next == reached {
                return reached >> to & 1 != 0;
            }
            reached = next;
        }
    }
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the level of `class`, if it is written down.
fn level(class: &str) -> Option<u8> {
    LEVELS
        .into_iter()
        .find(|(name, _)| *name == class)
        .map(|(_, level)| level)
}
