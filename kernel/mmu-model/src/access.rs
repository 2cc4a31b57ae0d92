//! What an access may do.

use crate::descriptor::{self as desc, Entry, PERMISSIONS, show};
use crate::machine::{Machine, Reach};
use crate::violation::{Event, Rule};
use paging::Granule;

/// An access at EL1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// Why the current tables refuse an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fault {
    /// No valid descriptor at this level.
    Translation(i8),
    /// AF is clear.
    AccessFlag(i8),
    /// Not permitted.
    Permission(i8),
}

/// A leaf as the model's walker finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Translation {
    /// The output address for the one asked for.
    pub pa: u64,
    /// The descriptor's level.
    pub level: i8,
    /// The contiguous bit.
    pub contiguous: bool,
    /// The descriptor in memory.
    pub descriptor: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum May {
    Reach { pa: u64, attributes: u64 },
    Fault(Fault),
}

impl May {
    fn result(self) -> Result<u64, Fault> {
        match self {
            Self::Reach { pa, .. } => Ok(pa),
            Self::Fault(fault) => Err(fault),
        }
    }

    fn same(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Fault(_), Self::Fault(_)))
    }
}

fn through<G: Granule>(level: i8, slot_va: u64, leaf: u64, va: u64, access: Access) -> May {
    if leaf & desc::ACCESS_FLAG == 0 {
        return May::Fault(Fault::AccessFlag(level));
    }
    let read_only = leaf & desc::AP_READ_ONLY != 0;
    let permitted = match access {
        Access::Read => true,
        Access::Write => !read_only,
        // EL1 never executes what EL0 may write (Arm ARM D8.4.1.2).
        Access::Execute => leaf & desc::PXN == 0 && (read_only || leaf & desc::AP_EL0 == 0),
    };
    if !permitted {
        return May::Fault(Fault::Permission(level));
    }
    May::Reach {
        pa: desc::output::<G>(level, leaf).wrapping_add(va.wrapping_sub(slot_va)),
        attributes: leaf & !(desc::address_bits::<G>() | PERMISSIONS | desc::CONTIGUOUS | 0b11),
    }
}

impl<G: Granule> Machine<G> {
    fn root_of(&self, va: u64) -> Option<u32> {
        self.s
            .roots
            .iter()
            .find(|(_, base)| va.wrapping_sub(*base) >> G::VA_BITS == 0)
            .map(|(root, _)| *root)
    }

    fn walk_from(&self, table: u32, va: u64, access: Access, mut step: impl FnMut(u32, usize)) -> May {
        let mut number = table;
        loop {
            let level = self.table(number).level;
            let index = desc::index::<G>(level, va);
            step(number, index);
            let value = self.read(number, index);
            match desc::decode::<G>(level, value) {
                Entry::Invalid => return May::Fault(Fault::Translation(level)),
                Entry::Leaf(leaf) => {
                    let slot_va = va & !(desc::size::<G>(level) - 1);
                    return through::<G>(level, slot_va, leaf, va, access);
                }
                Entry::Table(pa) => match self.table_at(pa) {
                    Some(child) if self.table(child).level == level + 1 => number = child,
                    _ => return May::Fault(Fault::Translation(level)),
                },
            }
        }
    }

    /// And why.
    fn other_ways(&self, cpu: usize, va: u64, access: Access, path: &[(u32, usize)]) -> Vec<(May, String)> {
        let mut ways = Vec::new();
        for (number, index) in path {
            let slot = self.table(*number).slots[*index];
            if self.read(*number, *index) != 0 && !self.s.clocks.context(cpu).has(slot.fresh) {
                let why = if self.s.clocks.certain().has(slot.fresh) {
                    format!(
                        "the valid descriptor stored in event #{} by CPU {} is complete, but CPU {cpu} has had no ISB \
                         since: the access may have been translated ahead",
                        slot.stored_at, slot.fresh.cpu
                    )
                } else {
                    format!(
                        "the valid descriptor stored in event #{} by CPU {} is not complete (no DSB): a walk may find \
                         the invalid one",
                        slot.stored_at, slot.fresh.cpu
                    )
                };
                let level = self.table(*number).level;
                ways.push((May::Fault(Fault::Translation(level)), why));
            }
        }
        if !self.s.stale.is_empty() {
            for level in G::ROOT_LEVEL..=3 {
                let group = desc::group_size::<G>(level) - 1;
                let here = va & !(desc::size::<G>(level) - 1);
                for (at, old) in self.s.stale.range(level, va & !group, va | group) {
                    let held = if at == here { old.held } else { old.held_as_group };
                    if held & 1 << cpu == 0 {
                        continue;
                    }
                    if let Some(may) = self.by(level, at, old.value, va, access, path) {
                        ways.push((may, self.why_held(level, at, old)));
                    }
                }
            }
        }
        for ghost in &self.s.ghosts {
            let size = if ghost.as_group {
                desc::group_size::<G>(ghost.level)
            } else {
                desc::size::<G>(ghost.level)
            };
            let ours = usize::from(ghost.cpu) == cpu
                && (va ^ ghost.va) & !(size - 1) == 0
                && (!ghost.fetch_only || access == Access::Execute);
            if !ours {
                continue;
            }
            if let Some(may) = self.by(ghost.level, ghost.va, ghost.value, va, access, path) {
                let what = show::<G>(ghost.level, ghost.value);
                ways.push((
                    may,
                    format!(
                        "level {}, va {:#x}: {what}: invalidated, but CPU {cpu} has had no ISB since",
                        ghost.level, ghost.va
                    ),
                ));
            }
        }
        ways
    }

    /// `None` if the held `value` is on the way anyhow.
    fn by(
        &self,
        level: i8,
        at: u64,
        value: u64,
        va: u64,
        access: Access,
        path: &[(u32, usize)],
    ) -> Option<May> {
        match desc::decode::<G>(level, value) {
            Entry::Leaf(leaf) => Some(through::<G>(level, at, leaf, va, access)),
            Entry::Table(pa) => match self.table_at(pa) {
                Some(child) if path.iter().any(|(table, _)| *table == child) => None,
                Some(child) if self.table(child).level == level + 1 => {
                    Some(self.walk_from(child, va, access, |_, _| ()))
                }
                _ => Some(May::Fault(Fault::Translation(level))),
            },
            Entry::Invalid => None,
        }
    }

    pub(crate) fn access(
        &mut self,
        cpu: usize,
        va: u64,
        access: Access,
        retries: bool,
    ) -> Result<u64, Fault> {
        self.event(cpu, Event::Access { va });
        let (now, other) = self.judge_access(cpu, va, access, retries);
        if let Some((may, why)) = other {
            self.violate(Rule::StaleAccess, || {
                format!(
                    "CPU {cpu} {access:?} at {va:#x}: by the tables {now:x?}, but it may be {may:x?}: {why}"
                )
            });
        }
        now.result()
    }

    fn judge_access(
        &self,
        cpu: usize,
        va: u64,
        access: Access,
        retries: bool,
    ) -> (May, Option<(May, String)>) {
        let mut path = Vec::with_capacity(4);
        let now = match self.root_of(va) {
            Some(root) => self.walk_from(root, va, access, |table, index| path.push((table, index))),
            None => May::Fault(Fault::Translation(G::ROOT_LEVEL)),
        };
        let other = self
            .other_ways(cpu, va, access, &path)
            .into_iter()
            .find(|(may, _)| {
                // A handler that asks and retries makes an undue fault harmless.
                let forgiven = retries && matches!((now, *may), (May::Reach { .. }, May::Fault(_)));
                !now.same(*may) && !forgiven
            });
        (now, other)
    }

    pub(crate) fn possible(&self, cpu: usize, va: u64, access: Access) -> Vec<Result<u64, Fault>> {
        let mut path = Vec::with_capacity(4);
        let now = match self.root_of(va) {
            Some(root) => self.walk_from(root, va, access, |table, index| path.push((table, index))),
            None => May::Fault(Fault::Translation(G::ROOT_LEVEL)),
        };
        let mut all = vec![now.result()];
        for (may, _) in self.other_ways(cpu, va, access, &path) {
            if !all.contains(&may.result()) {
                all.push(may.result());
            }
        }
        all
    }

    /// AT misses what it may. An invalid descriptor has been observed.
    pub(crate) fn ask(&mut self, cpu: usize, va: u64, access: Access) -> Result<u64, Fault> {
        self.event(cpu, Event::At { va });
        let mut path = Vec::with_capacity(4);
        let Some(root) = self.root_of(va) else {
            return Err(Fault::Translation(G::ROOT_LEVEL));
        };
        let now = self.walk_from(root, va, access, |table, index| path.push((table, index)));
        let missed = path.into_iter().find(|(table, index)| {
            let fresh = self.table(*table).slots[*index].fresh;
            self.read(*table, *index) == 0 || !self.s.clocks.context(cpu).has(fresh)
        });
        let answer = match missed {
            Some((table, index)) => {
                let broken = self.table(table).slots[index].broken;
                if let Some(number) = broken.checked_sub(1) {
                    let behind = self.s.behind_breaks[number as usize];
                    self.s.clocks.acquire(cpu, &behind, self.features.ets2);
                }
                Err(Fault::Translation(self.table(table).level))
            }
            None => now.result(),
        };
        self.synchronise_context(cpu);
        answer
    }

    /// The linear map is whole at `pa`.
    pub(crate) fn reach_table(&mut self, cpu: usize, pa: u64, access: Access) {
        let Some(base) = self.features.linear_map else {
            return;
        };
        let page = pa & !(G::PAGE_SIZE - 1);
        if self.s.breaking.contains(&(cpu as u8, page)) || self.s.roots.is_empty() {
            return;
        }
        let va = base.wrapping_add(pa);
        let (now, other) = self.judge_access(cpu, va, access, false);
        let right = matches!(now, May::Reach { pa: there, .. } if there == pa);
        if !right {
            self.violate(Rule::TableOutOfReach, || {
                format!(
                    "CPU {cpu} {access:?} of table memory {pa:#x} through the linear map at {va:#x}: {now:x?}"
                )
            });
        } else if let Some((may, why)) = other {
            self.violate(Rule::TableOutOfReach, || {
                format!(
                    "CPU {cpu} {access:?} of table memory {pa:#x} through the linear map at {va:#x} may be {may:x?}: {why}"
                )
            });
        }
    }

    pub(crate) fn translate(&self, va: u64) -> Option<Translation> {
        let mut at = None;
        self.walk_from(self.root_of(va)?, va, Access::Read, |table, index| {
            at = Some((table, index));
        });
        let (table, index) = at?;
        let level = self.table(table).level;
        let Entry::Leaf(leaf) = desc::decode::<G>(level, self.read(table, index)) else {
            return None;
        };
        Some(Translation {
            pa: desc::output::<G>(level, leaf) + (va & (desc::size::<G>(level) - 1)),
            level,
            contiguous: leaf & desc::CONTIGUOUS != 0,
            descriptor: self.table(table).slots[index].value,
        })
    }

    pub(crate) fn leaves(&self) -> Vec<(u64, Translation)> {
        let mut found = Vec::new();
        for (root, _) in &self.s.roots {
            self.leaves_below(*root, &mut found);
        }
        found
    }

    fn leaves_below(&self, number: u32, found: &mut Vec<(u64, Translation)>) {
        let level = self.table(number).level;
        for index in 0..desc::entries::<G>(level) {
            match desc::decode::<G>(level, self.read(number, index)) {
                Entry::Invalid => {}
                Entry::Leaf(leaf) => found.push((
                    self.slot_va(number, index),
                    Translation {
                        pa: desc::output::<G>(level, leaf),
                        level,
                        contiguous: leaf & desc::CONTIGUOUS != 0,
                        descriptor: self.table(number).slots[index].value,
                    },
                )),
                Entry::Table(pa) => {
                    if let Some(child) = self.table_at(pa) {
                        self.leaves_below(child, found);
                    }
                }
            }
        }
    }

    pub(crate) fn nr_linked_tables(&self) -> usize {
        self.s
            .tables
            .iter()
            .flatten()
            .filter(|table| table.reach == Reach::Live)
            .count()
    }
}
