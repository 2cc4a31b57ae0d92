//! Memory types of frames (Arm ARM B2.8, "Mismatched memory attributes"; DESIGN rule 12). A frame
//! counts as mapped if a walk finds it or a TLB may hold it.

use crate::descriptor::{self as desc, Entry, show};
use crate::machine::{Machine, Reach};
use crate::violation::Rule;
use paging::Granule;
use std::collections::BTreeSet;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Memory {
    /// The attribute byte.
    Device(u8),
    /// Outer and inner cacheability, and SH\[1:0\].
    Normal(Cache, Cache, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Cache {
    None,
    Through,
    Back,
}

impl Cache {
    /// Arm ARM, MAIR_EL1: 0b0100 is Non-cacheable, else bit 2 means Write-Back.
    fn of(nibble: u8) -> Self {
        match nibble {
            0b0100 => Self::None,
            _ if nibble & 0b0100 != 0 => Self::Back,
            _ => Self::Through,
        }
    }
}

impl Memory {
    pub(crate) fn of<G: Granule>(mair: u64, leaf: u64) -> Self {
        let index = (leaf & desc::ATTR_INDEX) >> 2;
        let byte = (mair >> (8 * index)) as u8;
        if byte & 0xf0 == 0 {
            return Self::Device(byte);
        }
        let (outer, inner) = (Cache::of(byte >> 4), Cache::of(byte & 0xf));
        let cacheable = (outer, inner) != (Cache::None, Cache::None);
        // Non-cacheable memory is Outer Shareable with any SH (Arm ARM D8.6, "Shareability").
        let shareability = if cacheable {
            desc::shareability::<G>(leaf)
        } else {
            0b10
        };
        Self::Normal(outer, inner, shareability as u8)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(byte) => write!(f, "Device {byte:#04x}"),
            Self::Normal(outer, inner, shareability) => {
                write!(f, "Normal, outer {outer:?}, inner {inner:?}, SH {shareability}")
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Mapped {
    memory: Memory,
    level: i8,
    first: u64,
    va: u64,
    value: u64,
}

impl Mapped {
    fn last<G: Granule>(&self) -> u64 {
        self.first + (desc::size::<G>(self.level) - 1)
    }
}

/// A cache of what the tables say.
#[derive(Clone, Debug)]
pub(crate) struct Frames(BTreeSet<Mapped>);

impl Frames {
    fn mismatched<G: Granule>(&self, memory: Memory, first: u64, last: u64) -> Option<Mapped> {
        let ours = memory;
        let mut from = LOWEST;
        while let Some(Mapped { memory, .. }) = self.0.range(from..).next().copied() {
            let at = |level, first, va| Mapped {
                memory,
                level,
                first,
                va,
                value: va,
            };
            let mut levels = (G::ROOT_LEVEL..=3).filter(|_| memory != ours);
            let found = levels.find_map(|level| {
                let first = first & !(desc::size::<G>(level) - 1);
                let mut there = self.0.range(at(level, first, 0)..=at(level, last, u64::MAX));
                there.next().copied()
            });
            if found.is_some() {
                return found;
            }
            from = at(i8::MAX, 0, 0);
        }
        None
    }
}

const LOWEST: Mapped = Mapped {
    memory: Memory::Device(0),
    level: i8::MIN,
    first: 0,
    va: 0,
    value: 0,
};

impl<G: Granule> Machine<G> {
    fn mapped(&self, number: u32, index: usize, value: u64) -> Option<Mapped> {
        let level = self.table(number).level;
        match desc::decode::<G>(level, value) {
            Entry::Leaf(leaf) if desc::cacheable::<G>(level, value) => Some(Mapped {
                memory: Memory::of::<G>(self.features.mair, leaf),
                level,
                first: desc::output::<G>(level, leaf),
                va: self.slot_va(number, index),
                value: leaf,
            }),
            _ => None,
        }
    }

    pub(crate) fn update_frames(&mut self, number: u32, index: usize, old: u64, new: u64) {
        if self.frames.is_none() || self.table(number).reach != Reach::Live {
            return;
        }
        let [old, new] = [old, new].map(|value| self.mapped(number, index, value));
        if let Some(Frames(frames)) = &mut self.frames {
            old.map(|old| frames.remove(&old));
            frames.extend(new);
        }
    }

    fn frames(&self) -> Frames {
        let live = self.s.tables.iter().zip(0..).filter_map(|(table, number)| {
            let table = table.as_ref()?;
            (table.reach == Reach::Live).then_some((number, desc::entries::<G>(table.level)))
        });
        let leaves = live.flat_map(|(number, entries)| {
            (0..entries).filter_map(move |index| self.mapped(number, index, self.read(number, index)))
        });
        Frames(leaves.collect())
    }

    pub(crate) fn judge_aliases(&mut self, cpu: usize, number: u32, index: usize, value: u64) {
        let kind = kind::<G>(value);
        self.s.kinds |= kind;
        if self.s.kinds == kind {
            return;
        }
        let Some(new) = self.mapped(number, index, value) else {
            return;
        };
        let ram = &self.features.one_memory_type;
        let (first, last) = (
            new.first.max(ram.start),
            new.last::<G>().min(ram.end.saturating_sub(1)),
        );
        if ram.is_empty() || first > last {
            return;
        }
        let frames = self.frames.take().unwrap_or_else(|| self.frames());
        let standing = frames.mismatched::<G>(new.memory, first, last).map(|other| {
            let what = show::<G>(other.level, other.value);
            (
                other.va,
                other.memory,
                format!("level {}: {what}, in the tables", other.level),
            )
        });
        self.frames = Some(frames);
        if let Some((va, memory, why)) = standing.or_else(|| self.held_alias(&new, first, last)) {
            self.violate(Rule::MismatchedAlias, || {
                format!(
                    "CPU {cpu} stores at level {} for {:#x}: {}, which is {}; at {va:#x} the same frame is {memory}: {why}",
                    new.level,
                    new.va,
                    show::<G>(new.level, new.value),
                    new.memory,
                )
            });
        }
    }

    /// Of another type elsewhere. At the same address it would be a missing break.
    fn held_alias(&self, new: &Mapped, first: u64, last: u64) -> Option<(u64, Memory, String)> {
        self.s.stale.iter().find_map(|(level, va, old)| {
            let (pa, bytes) = old.frames::<G>(level)?;
            let memory = Memory::of::<G>(self.features.mair, old.value);
            let elsewhere = (va ^ new.va) & !(bytes - 1) != 0;
            let overlaps = pa <= last && first <= pa + (bytes - 1);
            (memory != new.memory && elsewhere && overlaps)
                .then(|| (va, memory, self.why_held(level, va, old)))
        })
    }
}

/// With a single bit ever set, no mappings differ.
fn kind<G: Granule>(leaf: u64) -> u32 {
    1 << ((leaf & desc::ATTR_INDEX) | desc::shareability::<G>(leaf))
}
