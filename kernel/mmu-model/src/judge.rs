//! The verdict on a descriptor when it is stored: it must agree with all that may be held for its
//! addresses, in output and memory attributes, and in leaf size unless
//! [`Features::tolerates_size_change`].

use crate::Features;
use crate::descriptor::{self as desc, CONTIGUOUS, Entry, PERMISSIONS, show};
use crate::machine::{Machine, Reach, Touched, is_group};
use crate::stale::{Miss, Old};
use crate::violation::Rule;
use paging::Granule;

#[derive(Clone, Copy)]
struct Leaf {
    level: i8,
    va: u64,
    value: u64,
}

impl Leaf {
    fn agrees<G: Granule>(&self, other: &Self, features: &Features) -> bool {
        let offset = |leaf: &Self| desc::output::<G>(leaf.level, leaf.value).wrapping_sub(leaf.va);
        let same_size = self.level == other.level && (self.value ^ other.value) & CONTIGUOUS == 0;
        let attributes = !(desc::address_bits::<G>() | PERMISSIONS | CONTIGUOUS | 0b11);
        offset(self) == offset(other)
            && (self.value ^ other.value) & attributes == 0
            && (same_size || features.tolerates_size_change)
    }
}

fn overlaps(first: u64, last: u64, va: u64, size: u64) -> bool {
    va <= last && first <= va.wrapping_add(size - 1)
}

impl<G: Granule> Machine<G> {
    pub(crate) fn judge_leaf(&mut self, cpu: usize, number: u32, index: usize, va: u64, value: u64) {
        let level = self.table(number).level;
        let leaf = Leaf { level, va, value };
        let end = desc::output::<G>(level, value) + (desc::size::<G>(level) - 1);
        if end >> self.features.pa_bits != 0 {
            let bits = self.features.pa_bits;
            self.violate(Rule::OutputTooLarge, || {
                format!(
                    "CPU {cpu} maps {va:#x}: {}, beyond {bits} bits",
                    show::<G>(level, value)
                )
            });
        }
        if G::cont_shift(level) != 0 {
            if is_group::<G>(level, value) {
                self.judge_group_alignment(cpu, index, leaf);
            }
            if self.table(number).contiguous != 0 {
                self.judge_group_members(cpu, number, index, leaf);
            }
        }
        if desc::cacheable::<G>(level, value) {
            if !self.s.stale.is_empty() {
                self.judge_against_held(cpu, leaf);
            }
            self.judge_aliases(cpu, number, index, value);
        }
    }

    fn judge_group_alignment(&mut self, cpu: usize, index: usize, leaf: Leaf) {
        let Leaf { level, va, value } = leaf;
        let member = (index & (desc::group_entries::<G>(level) - 1)) as u64;
        let base = desc::output::<G>(level, value).wrapping_sub(member << desc::shift::<G>(level));
        if base & (desc::group_size::<G>(level) - 1) != 0 {
            self.violate(Rule::MisalignedGroup, || {
                format!(
                    "CPU {cpu} stores member {member} of a level {level} group at {va:#x}: {}; the group would begin at \
                     pa {base:#x}",
                    show::<G>(level, value)
                )
            });
        }
    }

    /// Missing members and differing permissions are judged at the next DSB.
    fn judge_group_members(&mut self, cpu: usize, number: u32, index: usize, leaf: Leaf) {
        let Leaf { level, value, .. } = leaf;
        let entries = desc::group_entries::<G>(level);
        let first = index & !(entries - 1);
        for other in (first..first + entries).filter(|other| *other != index) {
            let there = self.read(number, other);
            let contradicts = match desc::decode::<G>(level, there) {
                Entry::Invalid => false,
                Entry::Table(_) => value & CONTIGUOUS != 0 && !self.features.tolerates_size_change,
                Entry::Leaf(member) => {
                    let either = (value | member) & CONTIGUOUS != 0;
                    let member = Leaf {
                        level,
                        va: self.slot_va(number, other),
                        value: member,
                    };
                    either && !leaf.agrees::<G>(&member, &self.features)
                }
            };
            if contradicts {
                self.violate_mixed(cpu, leaf, other - first, there);
                return;
            }
        }
    }

    fn violate_mixed(&mut self, cpu: usize, stored: Leaf, other: usize, there: u64) {
        let Leaf { level, va, value } = stored;
        self.violate(Rule::MixedGroup, || {
            format!(
                "CPU {cpu} stores at level {level} for {va:#x}: {}, but member {other} of the same group is: {}",
                show::<G>(level, value),
                show::<G>(level, there)
            )
        });
    }

    fn judge_against_held(&mut self, cpu: usize, leaf: Leaf) {
        let Leaf { level, va, value } = leaf;
        let (first, size) = if is_group::<G>(level, value) {
            let size = desc::group_size::<G>(level);
            (va & !(size - 1), size)
        } else {
            (va, desc::size::<G>(level))
        };
        let last = first.wrapping_add(size - 1);
        let mut conflict = None;
        'levels: for at in G::ROOT_LEVEL..=3 {
            let group = desc::group_size::<G>(at) - 1;
            for (old_va, old) in self.s.stale.range(at, first & !group, last | group) {
                let as_group = old.held_as_group != 0 && overlaps(first, last, old_va & !group, group + 1);
                if !as_group && !overlaps(first, last, old_va, desc::size::<G>(at)) {
                    continue;
                }
                let agrees = match desc::decode::<G>(at, old.value) {
                    Entry::Leaf(held) => {
                        let held = Leaf {
                            level: at,
                            va: old_va,
                            value: held,
                        };
                        leaf.agrees::<G>(&held, &self.features)
                    }
                    // Links above were judged when stored; those below lead to leaves that are
                    // listed.
                    _ => at < level || self.features.tolerates_size_change,
                };
                if !agrees {
                    conflict = Some((at, old_va, *old));
                    break 'levels;
                }
            }
        }
        if let Some((at, old_va, old)) = conflict {
            let why = self.why_held(at, old_va, &old);
            self.violate(Rule::BreakBeforeMake, || {
                format!(
                    "CPU {cpu} stores at level {level} for {va:#x}: {}; what may be held at the same time: {why}",
                    show::<G>(level, value)
                )
            });
        }
    }

    pub(crate) fn judge_link(&mut self, cpu: usize, number: u32, index: usize, va: u64, value: u64) {
        let level = self.table(number).level;
        let tolerant = self.features.tolerates_size_change;
        let entries = desc::group_entries::<G>(level);
        if self.table(number).contiguous != 0 && !tolerant {
            let first = index & !(entries - 1);
            for other in first..first + entries {
                let there = self.read(number, other);
                if is_group::<G>(level, there) {
                    self.violate_mixed(cpu, Leaf { level, va, value }, other - first, there);
                    return;
                }
            }
        }
        if self.s.stale.is_empty() {
            return;
        }
        let group = desc::group_size::<G>(level) - 1;
        let conflict = self
            .s
            .stale
            .range(level, va & !group, va | group)
            .find(|(old_va, old)| {
                let here = *old_va == va;
                match desc::decode::<G>(level, old.value) {
                    Entry::Leaf(_) => !tolerant && (here || old.held_as_group != 0),
                    _ => here && old.value != value,
                }
            })
            .map(|(old_va, old)| (old_va, *old));
        if let Some((old_va, old)) = conflict {
            let why = self.why_held(level, old_va, &old);
            self.violate(Rule::BreakBeforeMake, || {
                format!(
                    "CPU {cpu} stores at level {level} for {va:#x}: {}; what may be held at the same time: {why}",
                    show::<G>(level, value)
                )
            });
        }
    }

    /// They must be whole and uniform, or have no contiguous member.
    pub(crate) fn judge_touched_groups(&mut self, cpu: usize) {
        if self.s.touched.is_empty() {
            return;
        }
        let certain = *self.s.clocks.certain();
        let (done, rest): (Vec<Touched>, Vec<Touched>) = std::mem::take(&mut self.s.touched)
            .into_iter()
            .partition(|touched| certain.has(touched.store));
        self.s.touched = rest;
        for touched in done {
            self.judge_group(cpu, touched.table, touched.first as usize);
        }
    }

    fn judge_group(&mut self, cpu: usize, number: u32, first: usize) {
        let table = self.table(number);
        // An unlinked table's rest is listed as stale.
        if table.reach != Reach::Live || table.contiguous == 0 {
            return;
        }
        let level = table.level;
        let entries = desc::group_entries::<G>(level);
        let members = first..first + entries;
        let Some(model) = members
            .clone()
            .find(|member| is_group::<G>(level, self.read(number, *member)))
        else {
            return;
        };
        let value = self.read(number, model);
        for member in members {
            let steps = (member as u64).wrapping_sub(model as u64);
            let expected = value.wrapping_add(steps << desc::shift::<G>(level));
            let there = self.read(number, member);
            if there != expected {
                let va = self.slot_va(number, first);
                self.violate(Rule::MixedGroup, || {
                    format!(
                        "the DSB of CPU {cpu} leaves a mixed level {level} group at {va:#x}: member {} is: {}; member {} is: {}",
                        model - first,
                        show::<G>(level, value),
                        member - first,
                        show::<G>(level, there)
                    )
                });
                return;
            }
        }
    }

    pub(crate) fn frame_reused(&mut self, pa: u64, size: u64) {
        let last = pa + (size - 1);
        let found = self
            .s
            .stale
            .iter()
            .find(|(level, _, old)| match desc::decode::<G>(*level, old.value) {
                Entry::Table(table) => overlaps(pa, last, table, G::PAGE_SIZE),
                _ => {
                    let frames = old.frames::<G>(*level);
                    frames.is_some_and(|(first, bytes)| overlaps(pa, last, first, bytes))
                }
            })
            .map(|(level, va, old)| (level, va, *old));
        if let Some((level, va, old)) = found {
            let why = self.why_held(level, va, &old);
            self.violate(Rule::FrameReused, || {
                format!("{size:#x} bytes at pa {pa:#x} are reused; what may still lead there: {why}")
            });
        }
    }

    pub(crate) fn va_reused(&mut self, va: u64, size: u64) {
        let last = va.wrapping_add(size - 1);
        let mut found = None;
        for level in G::ROOT_LEVEL..=3 {
            let group = desc::group_size::<G>(level) - 1;
            found = self
                .s
                .stale
                .range(level, va & !group, last | group)
                .find(|(at, old)| {
                    overlaps(va, last, *at, desc::size::<G>(level))
                        || old.held_as_group != 0 && overlaps(va, last, at & !group, group + 1)
                })
                .map(|(at, old)| (level, at, *old));
            if found.is_some() {
                break;
            }
        }
        if let Some((level, at, old)) = found {
            let why = self.why_held(level, at, &old);
            self.violate(Rule::VaReused, || {
                format!("{size:#x} bytes at va {va:#x} are reused; what may still be held: {why}")
            });
        }
    }

    pub(crate) fn why_held(&self, level: i8, va: u64, old: &Old) -> String {
        let holders: Vec<_> = (0..self.features.cpus)
            .filter(|cpu| old.held & 1 << cpu != 0)
            .collect();
        let mut story = format!(
            "level {level}, va {va:#x}: {} (stored in event #{}, ",
            show::<G>(level, old.value),
            old.stored_at
        );
        let tlbi = self
            .s
            .pending
            .iter()
            .find(|tlbi| overlaps(tlbi.first, tlbi.last, va, desc::size::<G>(level)));
        let reason = match (old.gone, old.miss) {
            (Some(gone), _) if !self.s.clocks.certain().has(gone) && tlbi.is_none() => format!(
                "taken out by CPU {} in event #{}, which no DSB has completed)",
                gone.cpu, old.gone_at
            ),
            (_, None) if tlbi.is_some() => {
                let tlbi = tlbi.map_or((0, 0), |tlbi| (tlbi.issued_at, tlbi.cpu));
                format!(
                    "taken out in event #{}; the TLBI of event #{} waits for a DSB ISH of CPU {})",
                    old.gone_at, tlbi.0, tlbi.1
                )
            }
            (_, Some((miss, event))) => {
                let what = match miss {
                    Miss::NotComplete => {
                        "came before a DSB of its CPU had completed the store that took it out"
                    }
                    Miss::LastLevelOnly => {
                        "was for the last level only: links stay held, and what they lead to comes back"
                    }
                    Miss::Local => "was local to its CPU",
                };
                format!(
                    "taken out in event #{}; the TLBI of event #{event} {what})",
                    old.gone_at
                )
            }
            _ => format!("taken out in event #{}; no TLBI has matched it)", old.gone_at),
        };
        story += &reason;
        if holders.len() != self.features.cpus || holders.len() > 1 {
            story += &format!(" by CPUs {holders:?}");
        }
        story
    }

    pub(crate) fn why_link_is_held(&self, table: u32) -> String {
        let link = self.address_of(table) | desc::TABLE_OR_PAGE;
        self.s
            .stale
            .iter()
            .find(|(level, _, old)| *level < 3 && old.value == link)
            .map_or_else(
                || String::from("no link is held"),
                |(level, va, old)| self.why_held(level, va, old),
            )
    }
}
