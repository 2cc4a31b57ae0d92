//! What TLBs and walk caches may hold besides the current tables: every CPU holds all that a walk
//! could read, until an invalidation reaches it.

use crate::clock::{Clock, StoreId};
use crate::descriptor::{self as desc, Entry};
use paging::Granule;
use std::collections::BTreeMap;

pub(crate) type CpuMask = u8;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Miss {
    NotComplete,
    /// A link, or a leaf that a held link could bring back.
    LastLevelOnly,
    Local,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Old {
    pub(crate) value: u64,
    /// `u32::MAX` once out of reach.
    pub(crate) table: u32,
    /// `None`: only a link above was removed.
    pub(crate) gone: Option<StoreId>,
    pub(crate) last: Option<StoreId>,
    /// Removed a link above.
    pub(crate) cut: Option<StoreId>,
    pub(crate) dead_at: Option<u32>,
    pub(crate) held: CpuMask,
    pub(crate) held_as_group: CpuMask,
    pub(crate) stored_at: u32,
    pub(crate) gone_at: u32,
    pub(crate) miss: Option<(Miss, u32)>,
}

impl Old {
    /// Of its group if it may be held as that.
    pub(crate) fn frames<G: Granule>(&self, level: i8) -> Option<(u64, u64)> {
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

    /// For good: once `known` is complete no walk can read it. `since` is the last DSB before the
    /// TLBI. `cuts` removed links above, and count for the all-levels form only.
    pub(crate) fn removable(&self, known: &Clock, since: u32, all_levels: bool, cuts: &[StoreId]) -> bool {
        let has = |store: Option<StoreId>| store.is_some_and(|store| known.has(store));
        has(self.gone)
            || has(self.last)
            || self.dead_at.is_some_and(|dead| dead <= since)
            || all_levels && (has(self.cut) || cuts.iter().any(|cut| known.has(*cut)))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Stale {
    /// Level -1 first.
    levels: [BTreeMap<(u64, u32), Old>; 5],
    numbered: u32,
    nr: usize,
}

fn place(level: i8) -> usize {
    (level + 1) as usize
}

impl Stale {
    pub(crate) fn is_empty(&self) -> bool {
        self.nr == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.nr
    }

    pub(crate) fn insert(&mut self, level: i8, va: u64, old: Old) {
        self.numbered += 1;
        self.nr += 1;
        self.levels[place(level)].insert((va, self.numbered), old);
    }

    pub(crate) fn range(&self, level: i8, first: u64, last: u64) -> impl Iterator<Item = (u64, &Old)> {
        self.levels[place(level)]
            .range((first, 0)..=(last, u32::MAX))
            .map(|((va, _), old)| (*va, old))
    }

    pub(crate) fn range_mut(
        &mut self,
        level: i8,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = (u64, &mut Old)> {
        self.levels[place(level)]
            .range_mut((first, 0)..=(last, u32::MAX))
            .map(|((va, _), old)| (*va, old))
    }

    pub(crate) fn remove_if(
        &mut self,
        level: i8,
        first: u64,
        last: u64,
        mut drop_it: impl FnMut(u64, &mut Old) -> bool,
    ) {
        let map = &mut self.levels[place(level)];
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i8, u64, &Old)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, map)| map.iter().map(move |((va, _), old)| (level as i8 - 1, *va, old)))
    }
}
