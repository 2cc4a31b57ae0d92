//! The order of locks, checked in builds with debug assertions whenever one is taken.
//!
//! Locks of one kind are a class. Taking a class while another is held is remembered for good; the
//! reverse is then refused, even without contention. The order in [`sync`](super) holds from the
//! start, by [`LEVELS`].
//!
//! A `try_lock` cannot close a cycle, so it adds no edge. Locks mask interrupts, so handlers need
//! no check.

use core::fmt;

/// Classes and their levels, as `docs/LOCKING.md` numbers them. Only higher levels may be taken
/// while one is held. Levels 1 to 3 are gates and bits of the `vmalloc` crate, held with interrupts
/// enabled.
pub const LEVELS: [(&str, u8); 7] = [
    ("vmalloc gate", 4),
    ("vmalloc shard", 5),
    ("vmalloc common shard", 6),
    ("walks", 7),
    ("heap", 8),
    ("frames", 9),
    ("console", 10),
];

const MAX_CLASSES: usize = 32;

/// Why a lock must not be waited for here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// This CPU holds this class already.
    Recursion { class: &'static str },
    /// Against the documented order.
    Level { held: &'static str, taken: &'static str },
    /// They were taken the other way round before, directly or through others.
    Inversion { held: &'static str, taken: &'static str },
    /// More classes, or locks held at once, than there is room for.
    NoRoom { class: &'static str },
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
    #[must_use]
    pub const fn new() -> Self {
        Self {
            names: [""; MAX_CLASSES],
            nr: 0,
            after: [0; MAX_CLASSES],
        }
    }

    /// Returns the number of a class, new or known.
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

    /// Notes that `class` is waited for while `held` are held: numbers from [`class`](Self::class).
    ///
    /// # Errors
    /// It may close a cycle. Nothing is noted then.
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

    /// Returns whether `to` was taken after `from`, directly or through others.
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

fn level(class: &str) -> Option<u8> {
    LEVELS
        .into_iter()
        .find(|(name, _)| *name == class)
        .map(|(_, level)| level)
}
