//! `prune`: gives back tables that are empty and still linked.
//!
//! May run beside any other operation, also on the same spans. A link is exchanged for a mark that no walker uses and that
//! `map` waits for; then come the invalidation, at all levels, and its completion; only then the mark goes and the table is
//! given back (DESIGN rules 3, 5 and 6: another link in the same place before that would meet the old one in a walk cache).

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::Descriptor;
use crate::flush::PendingRange;
use crate::granule::{Granule, LAST_LEVEL};
use crate::mmu::Mmu;
use crate::outcome::{Failure, Outcome};
use crate::tables::Tables;
use crate::trace;
use crate::tree::{Node, Tree, part};

/// Links that one round takes out: one flush covers as many.
const ROUND: usize = 16;

/// A link that was exchanged for the mark.
#[derive(Clone, Copy)]
struct Leaving {
    /// The table that it stood in.
    node: Node,
    /// The table that it led to.
    child: Node,
    /// An address that it translated.
    va: VirtAddr,
}

/// One round, as it goes.
struct Round {
    leaving: [Option<Leaving>; ROUND],
    nr: usize,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Unlinks the tables without an occupied descriptor that translate any of `range`, invalidates the links, and gives the
    /// tables back. Upwards: a table whose last link goes is empty itself.
    ///
    /// The outcome counts the tables removed.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty), [`Error::Misaligned`](crate::Error::Misaligned),
    /// [`Error::NonCanonical`](crate::Error::NonCanonical).
    #[cfg_attr(feature = "trace", inline(never))]
    pub fn prune(&self, range: VirtRange) -> Result<Outcome, Failure> {
        self.validate(range)?;
        self.reclaim();
        Ok(self.prune_and(range, |table| self.tables.free_table(table)))
    }

    /// As [`prune`](Self::prune), but hands the tables to `give`: unlinked, and in no walk cache.
    pub(crate) fn prune_and(&self, range: VirtRange, give: impl Fn(PhysAddr) + Copy) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let mut round = Round {
                leaving: [None; ROUND],
                nr: 0,
            };
            // `map` spins on a mark: this CPU must not be kept from clearing it.
            self.mmu.masked(|| {
                self.mark_empty(self.root_node(), range.start, range.size, &mut round);
                self.finish_round(&round, &mut outcome, give);
            });
            if round.nr == 0 {
                return outcome;
            }
        }
    }

    /// Exchanges links to empty tables below `node` for the mark, as many as a round holds.
    fn mark_empty(&self, node: Node, va: VirtAddr, remaining: u64, round: &mut Round) {
        trace::level::<G>(node.level, node.table, va, remaining);
        let (index, nr) = self.slots(node.level, va, remaining);
        let mut va = va;
        let mut remaining = remaining;
        for i in index..index + nr {
            if round.nr == ROUND {
                return;
            }
            let here = part::<G>(node.level, va, remaining);
            let found = self.load(node.table, i);
            if found.is_table(node.level) {
                let child = self.child(&node, i, found);
                if found.occupied::<G>() == 0 {
                    let mark = Descriptor::LEAVING.0;
                    if self.tables.compare_exchange(node.table, i, found.0, mark).is_ok() {
                        round.leaving[round.nr] = Some(Leaving { node, child, va });
                        round.nr += 1;
                    }
                } else if child.level < LAST_LEVEL {
                    self.mark_empty(child, va, here, round);
                }
            }
            va = va.add(here);
            remaining -= here;
        }
    }

    /// Invalidates what the round took out, clears the marks, and hands the tables on.
    fn finish_round(&self, round: &Round, outcome: &mut Outcome, give: impl Fn(PhysAddr)) {
        if round.nr == 0 {
            return;
        }
        // DESIGN rules 3 and 5: the marks are complete before the TLBIs, those before the marks go.
        self.mmu.dsb_ishst();
        self.invalidate_and_wait(round.leaving.iter().flatten().map(|leaving| PendingRange {
            range: VirtRange::new(leaving.va.align_down(G::PAGE_SIZE), G::PAGE_SIZE),
            stride: LAST_LEVEL,
            links: true,
        }));
        self.mmu.isb();
        for Leaving { node, child, .. } in round.leaving.iter().flatten() {
            self.tables.store(node.table, child.index, 0);
            if node.level != G::ROOT_LEVEL {
                self.vacate_if_linked(node, 1);
            }
            give(child.table);
            outcome.levels.insert(node.level);
            outcome.tables_removed += 1;
        }
    }
}
