//! The order of locks, checked with debug assertions as each is taken.
//!
//! Taking one class of locks under another fixes their order for good, beside [`LEVELS`].
//! `try_lock` cannot close a cycle, and adds no order.

use core::fmt;

/// As in `docs/LOCKING.md`: under a lock only higher ones. 1 to 3 are gates and bits of `vmalloc`.
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    Recursion {
        class: &'static str,
    },
    Level {
        held: &'static str,
        taken: &'static str,
    },
    /// Directly or through others.
    Inversion {
        held: &'static str,
        taken: &'static str,
    },
    NoRoom {
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

#[derive(Debug)]
pub struct Graph {
    names: [&'static str; MAX_CLASSES],
    nr: usize,
    /// Bit b of word a: b was taken under a.
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

    /// Notes that `class` is waited for under `held`.
    ///
    /// # Errors
    /// It may close a cycle; not noted then.
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

    /// Through others, too.
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
