//! Table memory. A table is **private** until walks reach it, **live** while the root leads to it,
//! **dying** from the removal of a link until no walk cache can hold one, then **out of reach**.

use crate::aliases::Frames;
use crate::clock::{Clock, Clocks, StoreId};
use crate::descriptor::{self as desc, CONTIGUOUS, Entry};
use crate::invalidate::{Ghost, Tlbi};
use crate::stale::{CpuMask, Old, Stale};
use crate::violation::{Event, Journal, Rule};
use crate::words::History;
use crate::{Features, ModelState};
use paging::Granule;
use std::marker::PhantomData;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Reach {
    Private,
    Live,
    Dying,
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) value: u64,
    /// Until this validating store is known, a walk may fault.
    pub(crate) fresh: StoreId,
    pub(crate) stored_at: u32,
    /// What the last invalidating store is ordered behind: an index into [`State::behind_breaks`].
    pub(crate) broken: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) slots: Box<[Slot]>,
    pub(crate) reach: Reach,
    pub(crate) level: i8,
    pub(crate) va: u64,
    pub(crate) zeroed: StoreId,
    /// To a non-zero descriptor while private.
    pub(crate) rewritten: Option<StoreId>,
    /// These removed links above it.
    pub(crate) cuts: Vec<StoreId>,
    /// That may be held.
    pub(crate) stale_links: u32,
    /// At 0, groups are not looked at.
    pub(crate) contiguous: u32,
}

impl Table {
    pub(crate) fn new(entries: usize, zeroed: StoreId, time: u32) -> Self {
        let slot = Slot {
            value: 0,
            fresh: StoreId::default(),
            stored_at: time,
            broken: 0,
        };
        Self {
            slots: vec![slot; entries].into_boxed_slice(),
            reach: Reach::Private,
            level: 0,
            va: 0,
            zeroed,
            rewritten: None,
            cuts: Vec::new(),
            stale_links: 0,
            contiguous: 0,
        }
    }
}

/// With no DSB since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Touched {
    pub(crate) store: StoreId,
    pub(crate) table: u32,
    pub(crate) first: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine<G> {
    pub(crate) features: Features,
    pub(crate) s: State,
    pub(crate) journal: Journal,
    /// `None` if out of date.
    pub(crate) frames: Option<Frames>,
    pub(crate) granule: PhantomData<G>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) time: u32,
    pub(crate) tables: Vec<Option<Box<Table>>>,
    pub(crate) nr_tables: usize,
    pub(crate) roots: Vec<(u32, u64)>,
    pub(crate) clocks: Clocks,
    pub(crate) stale: Stale,
    pub(crate) pending: Vec<Tlbi>,
    pub(crate) ghosts: Vec<Ghost>,
    pub(crate) touched: Vec<Touched>,
    /// Of all leaves ever reached, a bit each.
    pub(crate) kinds: u32,
    pub(crate) words: Vec<History>,
    pub(crate) behind_breaks: Vec<Clock>,
    pub(crate) last_dsb: [u32; crate::MAX_CPUS],
    pub(crate) last_seen_store: [u32; crate::MAX_CPUS],
    /// Reached by another way than the linear map.
    pub(crate) breaking: Vec<(u8, u64)>,
    pub(crate) fail_alloc: Option<u64>,
}

impl From<State> for ModelState {
    fn from(state: State) -> Self {
        Self(state)
    }
}

impl<G: Granule> Machine<G> {
    pub(crate) fn new(features: Features) -> Self {
        assert!(
            (1..=crate::MAX_CPUS).contains(&features.cpus),
            "{} CPUs",
            features.cpus
        );
        assert!(features.pool_base.is_multiple_of(G::PAGE_SIZE));
        Self {
            journal: Journal {
                log_events: features.log_events,
                ..Journal::default()
            },
            features,
            s: State::default(),
            frames: None,
            granule: PhantomData,
        }
    }

    pub(crate) fn all_cpus(&self) -> CpuMask {
        (!0u8) >> (8 - self.features.cpus)
    }

    pub(crate) fn event(&mut self, cpu: usize, event: Event) {
        assert!(cpu < self.features.cpus, "no CPU {cpu}");
        self.s.time += 1;
        self.journal.record(self.s.time, cpu, event);
    }

    pub(crate) fn violate(&mut self, rule: Rule, story: impl FnOnce() -> String) {
        self.journal.violate(self.s.time, rule, story);
    }

    pub(crate) fn table_at(&self, pa: u64) -> Option<u32> {
        let offset = pa.checked_sub(self.features.pool_base)?;
        let number = offset >> G::PAGE_SHIFT;
        let used = offset & (G::PAGE_SIZE - 1) == 0
            && matches!(self.s.tables.get(usize::try_from(number).ok()?), Some(Some(_)));
        used.then_some(number as u32)
    }

    pub(crate) fn address_of(&self, table: u32) -> u64 {
        self.features.pool_base + (u64::from(table) << G::PAGE_SHIFT)
    }

    pub(crate) fn table(&self, table: u32) -> &Table {
        self.s.tables[table as usize]
            .as_ref()
            .unwrap_or_else(|| panic!("table {table} is not in use"))
    }

    pub(crate) fn table_mut(&mut self, table: u32) -> &mut Table {
        self.s.tables[table as usize]
            .as_mut()
            .unwrap_or_else(|| panic!("table {table} is not in use"))
    }

    pub(crate) fn read(&self, table: u32, index: usize) -> u64 {
        let table = self.table(table);
        desc::normalise::<G>(table.level, table.slots[index].value)
    }

    pub(crate) fn slot_va(&self, table: u32, index: usize) -> u64 {
        let table = self.table(table);
        table
            .va
            .wrapping_add((index as u64) << desc::shift::<G>(table.level))
    }

    pub(crate) fn linked_table(&self, level: i8, value: u64) -> Option<u32> {
        match desc::decode::<G>(level, value) {
            Entry::Table(pa) => self.table_at(pa),
            _ => None,
        }
    }

    pub(crate) fn store(&mut self, cpu: usize, pa: u64, index: usize, raw: u64, release: bool) {
        let number = self.table_at(pa).filter(|_| index < 1 << G::INDEX_BITS);
        let Some(number) = number else {
            self.event(
                cpu,
                Event::Store {
                    table: pa,
                    index,
                    nr: 1,
                    old: 0,
                    new: raw,
                    release,
                },
            );
            self.violate(Rule::BadTable, || {
                format!("CPU {cpu} stores {raw:#x} at index {index} of {pa:#x}, which is no table in use")
            });
            return;
        };
        let id = self.s.clocks.store(cpu, release);
        let slot = self.table(number).slots[index];
        self.event(
            cpu,
            Event::Store {
                table: pa,
                index,
                nr: 1,
                old: slot.value,
                new: raw,
                release,
            },
        );
        let time = self.s.time;
        let table = self.table_mut(number);
        table.slots[index].value = raw;
        let (reach, level) = (table.reach, table.level);
        if matches!(reach, Reach::Private | Reach::Gone) {
            table.slots[index].stored_at = time;
            table.slots[index].fresh = id;
            if slot.value != raw && slot.value != 0 {
                table.rewritten = Some(id);
            }
            return;
        }
        if index >= desc::entries::<G>(level) {
            return;
        }
        let old = desc::normalise::<G>(level, slot.value);
        let new = desc::normalise::<G>(level, raw);
        if let Some(defect) = desc::defect::<G>(level, raw, self.features.table_res0_ignored) {
            self.violate(Rule::MalformedDescriptor, || {
                format!("CPU {cpu} stores {raw:#018x} at level {level}: {defect}")
            });
        }
        if old == new {
            return;
        }
        self.s.last_seen_store[cpu] = id.number;
        let table = self.table_mut(number);
        table.slots[index].stored_at = time;
        if !desc::cacheable::<G>(level, old) {
            table.slots[index].fresh = id;
        }
        if G::cont_shift(level) != 0 {
            let contiguous = |value: u64| u32::from(is_group::<G>(level, value));
            table.contiguous = table.contiguous + contiguous(new) - contiguous(old);
            if table.contiguous != 0 || contiguous(old) != 0 {
                self.touch(cpu, number, level, index);
            }
        }
        if new == 0 {
            let behind = self.behind_break(cpu, release);
            self.table_mut(number).slots[index].broken = behind;
        }
        self.take_out(number, level, index, old, slot.stored_at, id);
        self.update_frames(number, index, old, new);
        if new != 0 {
            self.put_in(cpu, number, index, new, release);
        }
    }

    pub(crate) fn touch(&mut self, cpu: usize, table: u32, level: i8, index: usize) {
        let store = StoreId {
            cpu: cpu as u8,
            release: false,
            number: self.s.clocks.last(cpu),
        };
        let first = (index & !(desc::group_entries::<G>(level) - 1)) as u32;
        match self.s.touched.last_mut() {
            Some(last) if (last.store.cpu, last.table, last.first) == (store.cpu, table, first) => {
                last.store = store;
            }
            _ => self.s.touched.push(Touched { store, table, first }),
        }
    }

    /// By the last number if equal.
    fn behind_break(&mut self, cpu: usize, release: bool) -> u32 {
        let behind = self.s.clocks.before(cpu, release);
        let behinds = &mut self.s.behind_breaks;
        if behinds.last() != Some(&behind) {
            behinds.push(behind);
        }
        behinds.len() as u32
    }

    fn take_out(&mut self, number: u32, level: i8, index: usize, old: u64, stored_at: u32, id: StoreId) {
        let va = self.slot_va(number, index);
        let time = self.s.time;
        let all = self.all_cpus();
        let mut known_already = false;
        for (_, entry) in self.s.stale.range_mut(level, va, va) {
            if entry.table != number {
                continue;
            }
            if entry.value == old {
                // The later end counts.
                if entry.held == all {
                    known_already = true;
                    entry.held_as_group = if is_group::<G>(level, old) { all } else { 0 };
                }
                entry.gone = Some(id);
                entry.gone_at = time;
                entry.last = None;
                entry.miss = None;
            } else if entry.gone.is_some() {
                entry.last = Some(id);
            }
        }
        if !desc::cacheable::<G>(level, old) {
            return;
        }
        let child = self.linked_table(level, old);
        if !known_already {
            self.remember(number, level, va, old, stored_at, Some(id));
        }
        if let Some(child) = child {
            self.cut(child, id);
        }
    }

    pub(crate) fn remember(
        &mut self,
        number: u32,
        level: i8,
        va: u64,
        value: u64,
        stored_at: u32,
        gone: Option<StoreId>,
    ) {
        let held = self.all_cpus();
        let as_group = is_group::<G>(level, value);
        if let Some(child) = self.linked_table(level, value) {
            self.table_mut(child).stale_links += 1;
        }
        self.s.stale.insert(
            level,
            va,
            Old {
                value,
                table: number,
                gone,
                last: None,
                cut: None,
                dead_at: None,
                held,
                held_as_group: if as_group { held } else { 0 },
                stored_at,
                gone_at: self.s.time,
                miss: None,
            },
        );
    }

    fn put_in(&mut self, cpu: usize, number: u32, index: usize, new: u64, release: bool) {
        let level = self.table(number).level;
        let va = self.slot_va(number, index);
        match desc::decode::<G>(level, new) {
            Entry::Invalid => return,
            Entry::Leaf(leaf) => self.judge_leaf(cpu, number, index, va, leaf),
            Entry::Table(pa) => {
                self.judge_link(cpu, number, index, va, new);
                match self.table_at(pa) {
                    Some(child) => self.link(cpu, number, child, va, release),
                    None => self.violate(Rule::NotATable, || {
                        format!(
                            "CPU {cpu} links {pa:#x} at level {level} for {va:#x}, which is no table in use"
                        )
                    }),
                }
            }
        }
        if self.table(number).reach == Reach::Dying && desc::cacheable::<G>(level, new) {
            let time = self.s.time;
            self.remember(number, level, va, new, time, None);
        }
    }
}

pub(crate) fn is_group<G: Granule>(level: i8, value: u64) -> bool {
    matches!(desc::decode::<G>(level, value), Entry::Leaf(leaf)
        if leaf & CONTIGUOUS != 0 && G::cont_shift(level) != 0)
}
