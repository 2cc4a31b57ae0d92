use paging::mmu::MmuCounts;
use paging::{Attributes, LeafCounts, LeafSet, LeafSize, Outcome, VirtAddr, VirtRange, Visit};

use super::context::Context;
use super::failure::{Failure, TestResult, expect_leaves, expect_value};
use super::fault_injection::{Work, invalidate_all, plant_in_mapping};
use super::live::TestTree;
use super::memory::{Block, Window};
use super::source::{PAGE, Source, Walker};
use super::verify::{Expected, Memory, verify_pages};

/// Runs `test` on `nr` pages, a power of two, with a TLB entry each.
pub fn with_pages(ctx: &Context, nr: u64, test: impl FnOnce(&Mapping<'_>) -> TestResult) -> TestResult {
    let block = Block::allocate(ctx, nr.ilog2() as u8)?;
    let window = Window::reserve(nr * PAGE, 2 << 20, 0)?;
    let source = Source::Range {
        start: block.start(),
        pages: nr,
        walker: Walker::Array,
    };
    test(&Mapping::map_data(ctx, window.start, &source, LeafSet::PAGES)?)
}

/// A mapped source. Declare it after its window and frames, so that it is unmapped before they are
/// freed.
#[derive(Debug)]
pub struct Mapping<'a> {
    ctx: &'a Context,
    pub tree: TestTree,
    pub va: VirtAddr,
    pub source: &'a Source,
    pub attributes: Attributes,
    memory: Memory,
    allowed: LeafSet,
}

impl<'a> Mapping<'a> {
    /// Maps, and checks leaves and barriers.
    ///
    /// # Errors
    /// The engine refused, or did something else.
    /// The engine refused, or did something else.
    pub fn map(
        ctx: &'a Context,
        va: VirtAddr,
        source: &'a Source,
        attributes: Attributes,
        memory: Memory,
    ) -> Result<Self, Failure> {
        Self::map_with(ctx, va, source, attributes, memory, LeafSet::ALL)
    }

    pub fn map_with(
        ctx: &'a Context,
        va: VirtAddr,
        source: &'a Source,
        attributes: Attributes,
        memory: Memory,
        allowed: LeafSet,
    ) -> Result<Self, Failure> {
        ctx.prune(VirtRange::new(va, source.pages() * PAGE))?;
        let tree = ctx.tree();
        tree.mmu().begin(Work::Map);
        let outcome = source.map(&tree, va, attributes, allowed)?;
        let counts = tree.mmu().take();
        tree.mmu().begin(Work::Other);
        let mapping = Self {
            ctx,
            tree,
            va,
            source,
            attributes,
            memory,
            allowed: allowed.intersection(ctx.leaves()),
        };
        expect_leaves(outcome.leaves, mapping.expected_leaves())?;
        expect_leaves(mapping.leaves()?, outcome.leaves)?;
        expect_fresh(&counts)?;
        plant_in_mapping(
            ctx.planted,
            mapping.tree.root(),
            va,
            mapping.first_group(),
            !attributes.is_writable(),
        );
        Ok(mapping)
    }

    /// Maps frames of the test.
    pub fn map_data(
        ctx: &'a Context,
        va: VirtAddr,
        source: &'a Source,
        allowed: LeafSet,
    ) -> Result<Self, Failure> {
        Self::map_with(ctx, va, source, Attributes::KERNEL_DATA, ctx.owned(), allowed)
    }

    /// Maps a device, never accessed.
    pub fn map_untouched(
        ctx: &'a Context,
        va: VirtAddr,
        source: &'a Source,
        allowed: LeafSet,
    ) -> Result<Self, Failure> {
        Self::map_with(ctx, va, source, Attributes::DEVICE, Memory::Untouched, allowed)
    }

    #[must_use]
    pub fn expected_leaves(&self) -> LeafCounts {
        self.source
            .expected_leaves(self.va, 0, self.source.pages(), self.allowed)
    }

    #[must_use]
    pub fn range(&self) -> VirtRange {
        VirtRange::new(self.va, self.source.size())
    }

    #[must_use]
    pub fn part(&self, page: u64, pages: u64) -> VirtRange {
        VirtRange::new(self.va.add(page * PAGE), pages * PAGE)
    }

    pub fn leaves(&self) -> Result<LeafCounts, Failure> {
        let mut counts = LeafCounts::default();
        self.tree.visit(self.range(), |leaf| {
            counts.add(leaf.size, 1);
            Visit::Continue
        })?;
        Ok(counts)
    }

    fn first_group(&self) -> Option<VirtAddr> {
        let mut group = None;
        let _ = self.tree.visit(self.range(), |leaf| {
            if leaf.size == LeafSize::PAGE_GROUP {
                group = Some(leaf.va);
                Visit::Stop
            } else {
                Visit::Continue
            }
        });
        group
    }

    #[must_use]
    pub fn expected(&self, page: u64) -> Expected {
        Expected {
            pa: self.source.pa(page),
            attributes: self.attributes,
        }
    }

    pub fn verify(&self) -> Result<(), Failure> {
        self.verify_as(|page| Some(self.expected(page)))
    }

    /// Verifies one page in 512 and the last: another test verifies all.
    pub fn verify_sampled(&self) -> Result<(), Failure> {
        let pages = self.source.pages();
        for page in (0..pages)
            .step_by(512)
            .map(|page| page + page / 512 % 512)
            .filter(|page| *page < pages)
            .chain([pages - 1])
        {
            let va = self.va.add(page * PAGE);
            verify_pages(&self.tree, va, 1, |_| Some(self.expected(page)), self.memory)?;
        }
        Ok(())
    }

    pub fn verify_as(&self, expected: impl Fn(u64) -> Option<Expected>) -> Result<(), Failure> {
        verify_pages(&self.tree, self.va, self.source.pages(), expected, self.memory)
    }

    pub fn verify_gone(&self) -> Result<(), Failure> {
        verify_pages(
            &self.tree,
            self.va,
            self.source.pages(),
            |_| None,
            Memory::Untouched,
        )
    }

    pub fn unmap_part(&self, page: u64, pages: u64) -> Result<(Outcome, MmuCounts), Failure> {
        self.tree.mmu().begin(Work::Unmap);
        let mut batch = self.tree.batch();
        let outcome = self.tree.unmap(self.part(page, pages), &mut batch);
        batch.flush();
        let counts = self.tree.mmu().take();
        self.tree.mmu().begin(Work::Other);
        Ok((outcome?, counts))
    }

    pub fn protect_part(
        &self,
        page: u64,
        pages: u64,
        change: impl Fn(Attributes) -> Attributes + Copy,
    ) -> Result<(Outcome, MmuCounts), Failure> {
        self.tree.mmu().begin(Work::Protect);
        let mut batch = self.tree.batch();
        let outcome = self.tree.protect(self.part(page, pages), change, &mut batch);
        batch.flush();
        let counts = self.tree.mmu().take();
        self.tree.mmu().begin(Work::Other);
        Ok((outcome?, counts))
    }

    pub fn verify_and_unmap(self) -> Result<(), Failure> {
        self.verify()?;
        self.unmap()
    }

    pub fn unmap(self) -> Result<(), Failure> {
        let mapped = self.leaves()?;
        let (outcome, _) = self.unmap_part(0, self.source.pages())?;
        expect_leaves(outcome.leaves, mapped)?;
        self.verify_gone()
    }
}

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        self.tree.mmu().begin(Work::Other);
        let mut batch = self.tree.batch();
        let left = self.tree.unmap(self.range(), &mut batch);
        batch.flush();
        if left.is_err() || self.ctx.planted.is_some() {
            // After a planted fault, TLBs may hold what the tables do not show.
            invalidate_all();
        }
    }
}

/// Checks the barriers of a fresh map (DESIGN rule 2).
pub fn expect_fresh(counts: &MmuCounts) -> Result<(), Failure> {
    expect_value("DSB ISHST of a fresh map", counts.dsb_ishst, 1)?;
    expect_value("DSBs of a fresh map", counts.dsb, 1)?;
    expect_value("ISBs of a fresh map", counts.isb, 1)?;
    expect_value("TLBIs of a fresh map", counts.tlbi, 0)
}
