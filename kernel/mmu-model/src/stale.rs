//! What a TLB or walk cache may hold besides what the tables say now.
//!
//! A walk may fill a TLB at any time, so every value that a walk could read is held, by every CPU.
//! What the tables say now need not be written down. What they said earlier must be, until an
//! invalidation reaches it: one [`Old`] for each such value, kept by level and address, because
//! that is how a TLBI finds it. Its table may be gone long before.

use crate::clock::{Clock, StoreId};
use crate::descriptor::{self as desc, Entry};
use paging::Granule;
use std::collections::BTreeMap;

/// CPUs, one bit each.
pub(crate) type CpuMask = u8;

/// Why an invalidation that matched an entry did not remove it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Miss {
    /// The store that took the entry out was not complete when the TLBI was issued.
    NotComplete,
    /// The entry is a link, and the TLBI a last-level one; or a leaf that a link still held could
    /// bring back.
    LastLevelOnly,
    /// Not inner-shareable: other CPUs keep theirs.
    Local,
}

/// A value that was readable by walks and is no longer what the tables say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Old {
    /// The descriptor, normalised.
    pub(crate) value: u64,
    /// The table it stands or stood in; `u32::MAX` once that table is out of reach.
    pub(crate) table: u32,
    /// The store that overwrote it. None: it still stands there, but a link above it was taken out.
    pub(crate) gone: Option<StoreId>,
    /// A later store to the same place.
    pub(crate) last: Option<StoreId>,
    /// A store that took out a link above it: remembered when the table went out of reach.
    pub(crate) cut: Option<StoreId>,
    /// Since this event, no walk reaches the table at all.
    pub(crate) dead_at: Option<u32>,
    /// Who may hold it.
    pub(crate) held: CpuMask,
    /// Who may hold it as one entry for its whole contiguous group.
    pub(crate) held_as_group: CpuMask,
    /// Events, for the story: when it was stored, and when taken out.
    pub(crate) stored_at: u32,
    pub(crate) gone_at: u32,
    pub(crate) miss: Option<(Miss, u32)>,
}

impl Old {
    /// Returns the first address and the number of bytes that it leads to, if it is a leaf: those
    /// of the group if it may be held as one entry for that.
    pub(crate) fn frames<G: Granule>(&self, level: u8) -> Option<(u64, u64)> {
        let Entry::Leaf(leaf) = desc::decode::<G>(level, self.value) else {
            return None;
        };
        let bytes = if self.held_as_group != 0 {
            desc::group_size::<G>(level)
        } else {
            desc::size::<G>(level)
        };
        Some((desc::output::<G>(level, leaf) & !(bytes - 1), bytes))
    }

    /// Returns whether no walk can read it again once the stores in `known` are complete, so that
    /// an invalidation removes it for good. `since`: the event of the last DSB before the TLBI.
    /// `cuts`: what took out links above it; they help only if the same TLBI removes the links held
    /// for its address, which the all-levels form does.
    pub(crate) fn removable(&self, known: &Clock, since: u32, all_levels: bool, cuts: &[StoreId]) -> bool {
        let has = |store: Option<StoreId>| store.is_some_and(|store| known.has(store));
        has(self.gone)
            || has(self.last)
            || self.dead_at.is_some_and(|dead| dead <= since)
            || all_levels && (has(self.cut) || cuts.iter().any(|cut| known.has(*cut)))
    }
}

/// All [`Old`] values, by level, address and number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stale {
    levels: [BTreeMap<(u64, u32), Old>; 4],
    numbered: u32,
    nr: usize,
}

impl Stale {
    pub(crate) fn is_empty(&self) -> bool {
        self.nr == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.nr
    }

    pub(crate) fn insert(&mut self, level: u8, va: u64, old: Old) {
        self.numbered += 1;
        self.nr += 1;
        self.levels[usize::from(level)].insert((va, self.numbered), old);
    }

    /// Entries of `level` whose address lies in `first..=last`.
    pub(crate) fn range(&self, level: u8, first: u64, last: u64) -> impl Iterator<Item = (u64, &Old)> {
        self.levels[usize::from(level)]
            .range((first, 0)..=(last, u32::MAX))
            .map(|((va, _), old)| (*va, old))
    }

    pub(crate) fn range_mut(
        &mut self,
        level: u8,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = (u64, &mut Old)> {
        self.levels[usize::from(level)]
            .range_mut((first, 0)..=(last, u32::MAX))
            .map(|((va, _), old)| (*va, old))
    }

    /// Removes what `drop_it` says of the entries of `level` in `first..=last`.
    pub(crate) fn remove_if(
        &mut self,
        level: u8,
        first: u64,
        last: u64,
        mut drop_it: impl FnMut(u64, &mut Old) -> bool,
    ) {
        let map = &mut self.levels[usize::from(level)];
        if map.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        for (key, old) in map.range_mut((first, 0)..=(last, u32::MAX)) {
            if drop_it(key.0, old) {
                gone.push(*key);
            }
        }
        self.nr -= gone.len();
        if gone.len() == map.len() {
            map.clear();
        } else {
            for key in gone {
                map.remove(&key);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, u64, &Old)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, map)| map.iter().map(move |((va, _), old)| (level as u8, *va, old)))
    }
}
