//! What `map` writes: runs, groups and single pages, into a table that is pinned.

use super::Mapping;
use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::descriptor::{Attributes, Descriptor};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::leaf::choose_leaf;
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSet, LeafSize, Outcome};
use crate::source::{PhysSource, Run, output};
use crate::tables::Tables;
use crate::trace;
use crate::tree::Tree;

/// Output addresses that are gathered before they are checked and written: a group of 4 KiB pages.
const BATCH: usize = 16;

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Fills `nr` descriptors of a last-level table from `index` on. On failure says how many were written.
    #[inline(always)]
    pub(super) fn fill_pages<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        index: usize,
        nr: usize,
    ) -> Result<(), (usize, Error)> {
        let group = G::cont_entries(LAST_LEVEL);
        let groups = self.groups_allowed(mapping.allowed, LAST_LEVEL);
        let mut done = 0;
        while done < nr {
            let at = index + done;
            let left = nr - done;
            // A group can begin only at an index that is a multiple of its length: nowhere else does an array have to
            // be looked at for contiguity.
            let mut singles = left;
            if S::RUNS_ARE_FREE {
                singles = 0;
            } else if groups {
                let to_boundary = group - (at & (group - 1));
                singles = left.min(to_boundary);
                if to_boundary == group && left >= group {
                    singles = match mapping.source.pfns(mapping.page, left as u64) {
                        Some(frames) => pages_to_head(frames, group),
                        None => {
                            let (head, _) = self.run_at(mapping, 1).map_err(|error| (done, error))?;
                            let grouped = head.0 & (G::cont_size(LAST_LEVEL) - 1) == 0;
                            if grouped { 0 } else { singles }
                        }
                    };
                }
            }
            if singles != 0 {
                self.fill_singles(mapping, table, at, singles)
                    .map_err(|(some, error)| (done + some, error))?;
                done += singles;
            } else {
                let (pa, run) = self.run_at(mapping, left as u64).map_err(|error| (done, error))?;
                // What is left over of a run that an array had to be asked for goes by the page; the next turn finds out.
                let whole = if !S::RUNS_ARE_FREE && run as usize >= group {
                    run as usize & !(group - 1)
                } else {
                    run as usize
                };
                let va = mapping.va::<G>();
                self.fill_run(mapping, table, LAST_LEVEL, at, va, pa, whole);
                done += whole;
            }
        }
        Ok(())
    }

    /// Fills `nr` single pages without a look at contiguity.
    #[inline(always)]
    fn fill_singles<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        index: usize,
        nr: usize,
    ) -> Result<(), (usize, Error)> {
        let template = Descriptor::leaf(LAST_LEVEL, PhysAddr(0), mapping.attributes, false).0;
        let bad = self.unimplemented_pa();
        // A trace tells each page; and what is wrong with one of them, the other way finds out.
        if !cfg!(feature = "trace")
            && let Some(frames) = mapping.source.pfns(mapping.page, nr as u64)
            && self.tables.or_frames(frames) & bad.rotate_right(G::PAGE_SHIFT) == 0
        {
            self.tables
                .fill_frames(table, index, frames, G::PAGE_SHIFT, template);
            mapping.outcome.levels.insert(LAST_LEVEL);
            mapping.page += nr as u64;
            mapping.outcome.leaves.add(LeafSize::PAGE, nr as u32);
            return Ok(());
        }
        let mut done = 0;
        while done < nr {
            let mut outputs = [PhysAddr(0); BATCH];
            let outputs = &mut outputs[..BATCH.min(nr - done)];
            let read = mapping.source.outputs_at(mapping.page, outputs);
            let whole = match read {
                Ok(()) => outputs.len(),
                Err(page) => (page - mapping.page) as usize,
            };
            let outputs = &outputs[..whole];
            if outputs.iter().fold(0, |all, pa| all | pa.0) & bad != 0 {
                // Which? The ones before it are written, so that `done` tells the truth.
                let good = outputs.iter().take_while(|pa| pa.0 & bad == 0).count();
                self.write_singles(mapping, table, index + done, &outputs[..good], template);
                return Err((done + good, Error::PhysicalRange(outputs[good])));
            }
            self.write_singles(mapping, table, index + done, outputs, template);
            done += whole;
            if let Err(page) = read {
                return Err((done, Error::NoFrame { page }));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn write_singles<S>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        index: usize,
        outputs: &[PhysAddr],
        template: u64,
    ) {
        let (va, remaining) = (mapping.va::<G>(), mapping.remaining::<G>());
        trace::singles::<G>(va, outputs, remaining, mapping.allowed);
        if outputs.is_empty() {
            return;
        }
        self.tables.fill_outputs(table, index, outputs, template);
        mapping.outcome.levels.insert(LAST_LEVEL);
        mapping.page += outputs.len() as u64;
        mapping.outcome.leaves.add(LeafSize::PAGE, outputs.len() as u32);
    }

    /// Fills `nr` descriptors of `level` with consecutive outputs: singles up to a group's boundary, groups, singles.
    #[inline(always)]
    #[allow(
        clippy::too_many_arguments,
        reason = "the place and the run, all of them scalars in registers"
    )]
    pub(super) fn fill_run<S>(
        &self,
        mapping: &mut Mapping<'_, S>,
        table: PhysAddr,
        level: Level,
        index: usize,
        va: VirtAddr,
        pa: PhysAddr,
        nr: usize,
    ) {
        debug_assert!(
            self.agrees(mapping, level, va, pa, nr),
            "level {level} leaf at {va:?} for {pa:?} is not the one that choose_leaf chooses"
        );
        let size = (nr as u64) << G::shift(level);
        trace::leaves::<G>(va, pa, size, mapping.remaining::<G>(), mapping.allowed);
        let filled = self.write_run(
            table,
            level,
            index,
            pa,
            nr,
            mapping.attributes.bits() | valid_bits(level),
            mapping.allowed,
        );
        mapping.outcome.levels.insert(level);
        filled.count::<G>(level, &mut mapping.outcome);
        mapping.page += (nr as u64) << (G::shift(level) - G::PAGE_SHIFT);
    }

    /// In debug builds: the first leaf of this run is the one that [`choose_leaf`] chooses.
    fn agrees<S>(
        &self,
        mapping: &Mapping<'_, S>,
        level: Level,
        va: VirtAddr,
        pa: PhysAddr,
        nr: usize,
    ) -> bool {
        let run = (nr as u64) << G::shift(level);
        let chosen = choose_leaf::<G>(va, pa, run, mapping.remaining::<G>(), mapping.allowed);
        let size = G::cont_size(level);
        let grouped =
            self.groups_allowed(mapping.allowed, level) && (va.0 | pa.0) & (size - 1) == 0 && run >= size;
        chosen == LeafSize::new(level, grouped)
    }

    #[inline(always)]
    pub(crate) fn groups_allowed(&self, allowed: LeafSet, level: Level) -> bool {
        G::cont_shift(level) != 0 && allowed.contains(LeafSize::new(level, true))
    }

    /// Writes `nr` descriptors of `level` for the consecutive outputs from `pa` on; groups where index and output allow.
    #[inline(always)]
    #[allow(
        clippy::too_many_arguments,
        reason = "the place and the run, all of them scalars in registers"
    )]
    pub(crate) fn write_run(
        &self,
        table: PhysAddr,
        level: Level,
        index: usize,
        pa: PhysAddr,
        nr: usize,
        template: u64,
        allowed: LeafSet,
    ) -> Shape {
        let shift = G::shift(level);
        let step = 1 << shift;
        let first = pa.0 | template;
        let shape = self.shape_run(level, index, pa, nr, allowed);
        if nr == 1 {
            self.tables.store(table, index, first);
            return shape;
        }
        if shape.grouped == 0 {
            self.tables.fill_linear(table, index, nr, first, step);
            return shape;
        }
        let Shape { head, grouped, tail } = shape;
        if head != 0 {
            self.tables.fill_linear(table, index, head, first, step);
        }
        let middle = first + ((head as u64) << shift);
        self.tables.fill_linear(
            table,
            index + head,
            grouped,
            middle | crate::descriptor::CONTIGUOUS,
            step,
        );
        if tail != 0 {
            let last = middle + ((grouped as u64) << shift);
            self.tables
                .fill_linear(table, index + head + grouped, tail, last, step);
        }
        shape
    }

    /// How [`write_run`](Self::write_run) divides a run.
    #[inline(always)]
    pub(crate) fn shape_run(
        &self,
        level: Level,
        index: usize,
        pa: PhysAddr,
        nr: usize,
        allowed: LeafSet,
    ) -> Shape {
        let group = G::cont_entries(level);
        let head = index.wrapping_neg() & (group - 1);
        // Congruent: where the index is a multiple of the group, the output is one too.
        let congruent = ((pa.0 >> G::shift(level)) as usize ^ index) & (group - 1) == 0;
        if !self.groups_allowed(allowed, level) || !congruent || nr < head + group {
            return Shape {
                head: nr,
                grouped: 0,
                tail: 0,
            };
        }
        let grouped = (nr - head) & !(group - 1);
        Shape {
            head,
            grouped,
            tail: nr - head - grouped,
        }
    }

    /// The run at the current page, checked against the implemented physical addresses.
    #[inline(always)]
    pub(super) fn run_at<S: PhysSource<G>>(
        &self,
        mapping: &mut Mapping<'_, S>,
        limit: u64,
    ) -> Result<(PhysAddr, u64), Error> {
        let page = mapping.page;
        let here = limit.min(mapping.remaining::<G>() >> G::PAGE_SHIFT);
        let run = match mapping.source.pfns(page, here) {
            Some(frames) if let Some(first) = frames.first() => Some(Run {
                pa: output::<G>(first.0),
                pages: if limit == 1 {
                    1
                } else {
                    let (from, pages, ended) = mapping.known;
                    // Before `from` this wraps, and is no part of it.
                    let left = pages.wrapping_sub(page.wrapping_sub(from));
                    if left.wrapping_sub(1) < pages && (ended || left >= here) {
                        left.min(here)
                    } else {
                        let found = self.tables.nr_consecutive(frames) as u64;
                        mapping.known = (page, found, found < here);
                        found
                    }
                },
            }),
            _ => mapping.source.run_at(page, limit),
        };
        let Some(run) = run else {
            return Err(Error::NoFrame { page });
        };
        let last = run.pa.0.wrapping_add((run.pages - 1) << G::PAGE_SHIFT);
        let bad = self.unimplemented_pa();
        if run.pa.0 & bad != 0 {
            return Err(Error::PhysicalRange(run.pa));
        }
        if last & bad != 0 {
            // Up to the first address that is not implemented: the next turn names it, whatever the source.
            let implemented = (1u64 << self.config().pa_bits) - run.pa.0;
            return Ok((run.pa, implemented >> G::PAGE_SHIFT));
        }
        Ok((run.pa, run.pages))
    }
}

/// How many of `frames` come before the first that could be the head of a group of `group` pages, where the first of them is
/// at a group's boundary.
#[inline(always)]
fn pages_to_head(frames: &[Pfn], group: usize) -> usize {
    let mut heads = frames.iter().step_by(group);
    let place = heads.position(|head| head.0 & (group as u64 - 1) == 0);
    place.map_or(frames.len(), |place| place * group)
}

/// A run of descriptors, divided: single ones, whole groups, single ones.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    head: usize,
    grouped: usize,
    tail: usize,
}

impl Shape {
    /// How many descriptors are in no group.
    #[inline(always)]
    pub(crate) fn singles(self) -> usize {
        self.head + self.tail
    }

    /// How many groups there are.
    #[inline(always)]
    pub(crate) fn groups<G: Granule>(self, level: Level) -> usize {
        self.grouped >> G::cont_shift(level)
    }

    /// Counts the leaves of `level` in `outcome`.
    #[inline(always)]
    pub(crate) fn count<G: Granule>(self, level: Level, outcome: &mut Outcome) {
        let (groups, singles) = (self.groups::<G>(level), self.singles());
        outcome.leaves.add(LeafSize::new(level, true), groups as u32);
        outcome.leaves.add(LeafSize::new(level, false), singles as u32);
    }
}

/// The type bits of a valid leaf of `level`.
#[inline(always)]
pub(crate) const fn valid_bits(level: Level) -> u64 {
    Descriptor::leaf(level, PhysAddr(0), Attributes::from_bits(0), false).0
}
