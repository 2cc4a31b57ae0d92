//! An array of frame numbers into one last-level table that is there.
//!
//! The array is at hand as a whole, so two looks at it say all there is to say: whether a group of pages can begin anywhere, and
//! whether any number is none of an address. What is single pages then goes in one pass, from scalars alone.

use super::leaves_of;
use crate::addr::{Pfn, VirtRange};
use crate::descriptor::{Attributes, CONTIGUOUS};
use crate::granule::{Granule, LAST_LEVEL};
use crate::map::valid_bits;
use crate::mmu::Mmu;
use crate::outcome::{Failure, LeafSet, Outcome};
use crate::source::{PageArray, output};
use crate::tables::Tables;
use crate::tree::Tree;

/// How many of `frames`, the first of which goes to descriptor `index`, come before the first that could be the head of a group:
/// a whole one, whose index and frame number are both multiples of its length.
#[inline(always)]
fn pages_to_group<G: Granule>(frames: &[Pfn], index: usize) -> usize {
    let group = G::cont_entries(LAST_LEVEL);
    let to_boundary = index.wrapping_neg() & (group - 1);
    let behind = frames.get(to_boundary..).unwrap_or_default();
    let is_head = |pages: &[Pfn]| pages.first().is_some_and(|head| head.0 & (group as u64 - 1) == 0);
    let place = behind.chunks_exact(group).position(is_head);
    place.map_or(frames.len(), |place| to_boundary + place * group)
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Maps `range`, of which it is known that one last-level table holds it, to as many `frames`, with its barriers. Nothing else
    /// of it has been checked.
    #[inline(never)]
    pub(crate) fn map_frames(
        &self,
        range: VirtRange,
        frames: &[Pfn],
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        let start = range.start;
        let fits = !frames.is_empty()
            && self.is_plain(range, G::PAGE_SIZE, 0)
            && !attributes.is_writable_and_executable();
        if fits {
            let index = G::index(start.0, LAST_LEVEL);
            let within = allowed.intersection(self.config().leaves);
            // Fewer than a group need no look.
            if frames.len() >= G::cont_entries(LAST_LEVEL)
                && self.groups_allowed(within, LAST_LEVEL)
                && pages_to_group::<G>(frames, index) != frames.len()
            {
                return self.map_frames_in_groups(range, frames, attributes, within);
            }
            // A number that is none of an address goes the general way, which names it.
            let bad = self.unimplemented_pa().rotate_right(G::PAGE_SHIFT);
            if let Some((node, link)) = self.descend::<LAST_LEVEL>(start)
                && self.tables.or_all(node.table, index, frames.len()) == 0
                && self.tables.or_frames(frames) & bad == 0
                && self.occupy_seen(&node, link, frames.len()).is_ok()
            {
                let template = attributes.bits() | valid_bits(LAST_LEVEL);
                self.tables
                    .fill_frames(node.table, index, frames, G::PAGE_SHIFT, template);
                self.publish();
                return Ok(leaves_of(LAST_LEVEL, frames.len(), 0));
            }
        }
        self.map_frames_anywhere(range, frames, attributes, allowed)
    }

    /// The same where there may be groups, of a range that is plain, with attributes that may be.
    #[inline(never)]
    fn map_frames_in_groups(
        &self,
        range: VirtRange,
        frames: &[Pfn],
        attributes: Attributes,
        within: LeafSet,
    ) -> Result<Outcome, Failure> {
        let nr = frames.len();
        let index = G::index(range.start.0, LAST_LEVEL);
        if let Some((node, link)) = self.descend::<LAST_LEVEL>(range.start)
            && self.tables.or_all(node.table, index, nr) == 0
            && self.occupy_seen(&node, link, nr).is_ok()
        {
            let group = G::cont_entries(LAST_LEVEL);
            let template = attributes.bits() | valid_bits(LAST_LEVEL);
            let bad = self.unimplemented_pa();
            let (mut done, mut grouped) = (0, 0);
            while let Some(rest) = frames.get(done..)
                && let Some(head) = rest.first()
            {
                let at = index + done;
                let singles = pages_to_group::<G>(rest, at);
                if let Some(pages) = rest.get(..singles)
                    && singles != 0
                {
                    if self.tables.or_frames(pages) & bad.rotate_right(G::PAGE_SHIFT) != 0 {
                        break;
                    }
                    self.tables
                        .fill_frames(node.table, at, pages, G::PAGE_SHIFT, template);
                    done += singles;
                    continue;
                }
                let run = self.run_of_groups(rest);
                // What is left over behind the last group goes by the page: the next turn sees to it. Without a group, all of it.
                let (run, bit) = if run >= group {
                    (run & !(group - 1), CONTIGUOUS)
                } else {
                    (run, 0)
                };
                let first = output::<G>(head.0).0;
                let last = first.wrapping_add((run as u64 - 1) << G::PAGE_SHIFT);
                if (first | last) & bad != 0 {
                    break;
                }
                self.tables
                    .fill_linear(node.table, at, run, first | template | bit, G::PAGE_SIZE);
                done += run;
                if bit != 0 {
                    grouped += run;
                }
            }
            let groups = grouped >> G::cont_shift(LAST_LEVEL);
            let outcome = leaves_of(LAST_LEVEL, done - grouped, groups);
            if done < nr {
                let mut source = PageArray::new(frames);
                return self.map_rest(range, &mut source, attributes, within, (node, nr, done), outcome);
            }
            self.publish();
            return Ok(outcome);
        }
        self.map_frames_anywhere(range, frames, attributes, within)
    }

    /// How many of `frames`, of which there is a group at least, follow each other. No further than the first group where
    /// what comes behind it does not follow.
    #[inline(always)]
    fn run_of_groups(&self, frames: &[Pfn]) -> usize {
        let group = G::cont_entries(LAST_LEVEL);
        let Some((first, behind)) = frames.split_at_checked(group) else {
            return self.tables.nr_consecutive(frames);
        };
        let follows = |(next, head): (&Pfn, &Pfn)| next.0.wrapping_sub(head.0) == group as u64;
        if behind.first().zip(first.first()).is_some_and(follows) {
            self.tables.nr_consecutive(frames)
        } else {
            self.tables.nr_consecutive(first)
        }
    }

    /// The general way.
    #[inline(never)]
    fn map_frames_anywhere(
        &self,
        range: VirtRange,
        frames: &[Pfn],
        attributes: Attributes,
        allowed: LeafSet,
    ) -> Result<Outcome, Failure> {
        self.map_in_many_tables(range, &mut PageArray::new(frames), attributes, allowed)
    }
}
