use kernel::layout;
use kernel::mm::frames::fail_page_alloc;
use paging::{Attributes, LeafCounts, LeafSize, VirtRange};

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect, expect_leaves, expect_value};
use crate::selftest::fault_injection::Work;
use crate::selftest::mapping::Mapping;
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK, BLOCK_SIZE, BLOCKS_SPAN, GROUP, PAGE, Source, Walker};
use crate::selftest::verify::{Memory, verify_pages};

struct Setup {
    window: Window,
    source: Source,
    attributes: Attributes,
    memory: Memory,
    _block: Option<Block>,
}

impl Setup {
    fn leaf(ctx: &Context, size: LeafSize) -> Result<Self, Failure> {
        Self::of(
            ctx,
            size.bytes::<layout::Granule>(),
            size.bytes::<layout::Granule>(),
        )
    }

    fn of(ctx: &Context, bytes: u64, align: u64) -> Result<Self, Failure> {
        let block = if bytes <= BLOCK_SIZE.clamp(8 << 20, 128 << 20) {
            Some(Block::allocate(ctx, (bytes / PAGE).ilog2() as u8)?)
        } else {
            None
        };
        let (start, attributes, memory) = match &block {
            Some(block) => (block.start(), Attributes::KERNEL_DATA, ctx.owned()),
            None => (
                ctx.untouched(bytes, align, 0)?,
                Attributes::DEVICE,
                Memory::Untouched,
            ),
        };
        Ok(Self {
            window: Window::reserve(bytes, align, 0)?,
            source: Source::Range {
                start,
                pages: bytes / PAGE,
                walker: Walker::Range,
            },
            attributes,
            memory,
            _block: block,
        })
    }

    fn map<'a>(&'a self, ctx: &'a Context) -> Result<Mapping<'a>, Failure> {
        Mapping::map(ctx, self.window.start, &self.source, self.attributes, self.memory)
    }
}

fn greedy(ctx: &Context, mapping: &Mapping<'_>, from: u64, to: u64) -> LeafCounts {
    let va = mapping.va.add(from * PAGE);
    mapping.source.expected_leaves(va, from, to, ctx.leaves())
}

fn sum(parts: &[LeafCounts]) -> LeafCounts {
    parts.iter().fold(LeafCounts::default(), |mut all, part| {
        all.merge(part);
        all
    })
}

fn unmap_from(ctx: &Context, size: LeafSize, first: u64, nr: u64) -> TestResult {
    ctx.needs_leaf_by_page(size)?;
    let setup = Setup::leaf(ctx, size)?;
    let mapping = setup.map(ctx)?;
    let pages = setup.source.pages();
    mapping.verify()?;
    mapping.unmap_part(first, nr)?;
    mapping.verify_as(|page| (!(first..first + nr).contains(&page)).then(|| mapping.expected(page)))?;
    let parts = [
        greedy(ctx, &mapping, 0, first),
        greedy(ctx, &mapping, first + nr, pages),
    ];
    expect_leaves(mapping.leaves()?, sum(&parts))?;
    mapping.unmap_part(0, pages)?;
    mapping.verify_gone()?;
    Ok(())
}

pub fn unmap_page_of_page_group(ctx: &Context) -> TestResult {
    unmap_from(ctx, LeafSize::PAGE_GROUP, 5, 1)
}

pub fn unmap_page_of_block(ctx: &Context) -> TestResult {
    unmap_from(ctx, LeafSize::BLOCK2, 300, 1)
}

pub fn unmap_across_groups_of_block(ctx: &Context) -> TestResult {
    unmap_from(ctx, LeafSize::BLOCK2, 10, 20)
}

pub fn unmap_edges_of_block(ctx: &Context) -> TestResult {
    unmap_from(ctx, LeafSize::BLOCK2, 0, 1)?;
    unmap_from(ctx, LeafSize::BLOCK2, BLOCK - 1, 1)
}

pub fn unmap_page_of_block_group(ctx: &Context) -> TestResult {
    unmap_from(ctx, LeafSize::BLOCK2_GROUP, 4000, 1)
}

pub fn unmap_block_of_block_group(ctx: &Context) -> TestResult {
    unmap_from(ctx, LeafSize::BLOCK2_GROUP, 3 * BLOCK, BLOCK)
}

pub fn unmap_page_of_1g_block(ctx: &Context) -> TestResult {
    unmap_from(ctx, LeafSize::BLOCK1, 100_000, 1)
}

fn protect_from(ctx: &Context, size: LeafSize, first: u64, nr: u64) -> TestResult {
    ctx.needs_leaf_by_page(size)?;
    let setup = Setup::leaf(ctx, size)?;
    let mapping = setup.map(ctx)?;
    let pages = setup.source.pages();
    mapping.verify()?;
    mapping.protect_part(first, nr, Attributes::read_only)?;
    let changed = |page| {
        let mut expected = mapping.expected(page);
        if (first..first + nr).contains(&page) {
            expected.attributes = expected.attributes.read_only();
        }
        Some(expected)
    };
    mapping.verify_as(changed)?;
    let parts = [
        greedy(ctx, &mapping, 0, first),
        greedy(ctx, &mapping, first, first + nr),
        greedy(ctx, &mapping, first + nr, pages),
    ];
    expect_leaves(mapping.leaves()?, sum(&parts))?;
    mapping.protect_part(first, nr, Attributes::writable)?;
    mapping.verify()?;
    coalesce(&mapping)?;
    expect_leaves(mapping.leaves()?, mapping.expected_leaves())?;
    mapping.verify_and_unmap()?;
    Ok(())
}

fn coalesce(mapping: &Mapping<'_>) -> Result<(), Failure> {
    mapping.tree.mmu().begin(Work::Other);
    let mut batch = mapping.tree.batch();
    let outcome = mapping.tree.coalesce(mapping.range(), &mut batch);
    batch.flush();
    outcome?;
    Ok(())
}

pub fn protect_page_of_page_group(ctx: &Context) -> TestResult {
    protect_from(ctx, LeafSize::PAGE_GROUP, 7, 1)
}

pub fn protect_page_of_block(ctx: &Context) -> TestResult {
    protect_from(ctx, LeafSize::BLOCK2, 77, 1)
}

pub fn protect_slice_of_block(ctx: &Context) -> TestResult {
    protect_from(ctx, LeafSize::BLOCK2, 100, 333)
}

pub fn protect_page_of_block_group(ctx: &Context) -> TestResult {
    protect_from(ctx, LeafSize::BLOCK2_GROUP, 1000, 1)
}

pub fn protect_page_of_1g_block(ctx: &Context) -> TestResult {
    protect_from(ctx, LeafSize::BLOCK1, 1000, 1)
}

pub fn protect_whole_leaves(ctx: &Context) -> TestResult {
    for size in [
        LeafSize::PAGE,
        LeafSize::PAGE_GROUP,
        LeafSize::BLOCK2,
        LeafSize::BLOCK2_GROUP,
        LeafSize::BLOCK1,
    ] {
        if ctx.needs_leaf_by_page(size).is_err() {
            continue;
        }
        let setup = Setup::leaf(ctx, size)?;
        let mapping = setup.map(ctx)?;
        let before = mapping.leaves()?;
        let pages = setup.source.pages();
        mapping.verify()?;
        let (outcome, _) = mapping.protect_part(0, pages, Attributes::read_only)?;
        expect_leaves(outcome.leaves, before)?;
        expect_leaves(mapping.leaves()?, before)?;
        expect_value("tables added", u64::from(outcome.tables_added), 0)?;
        mapping.verify_as(|page| {
            let mut expected = mapping.expected(page);
            expected.attributes = expected.attributes.read_only();
            Some(expected)
        })?;
    }
    Ok(())
}

pub fn split_cuts_where_it_is_told(ctx: &Context) -> TestResult {
    let setup = Setup::of(ctx, 2 * BLOCK_SIZE, BLOCK_SIZE)?;
    let mapping = setup.map(ctx)?;
    for (first, nr) in [(0, BLOCK), (BLOCK, BLOCK), (0, 2 * BLOCK)] {
        let mut batch = mapping.tree.batch();
        let outcome = mapping.tree.split(mapping.part(first, nr), &mut batch)?;
        batch.flush();
        expect(
            "a split at a block's edge changed something",
            first,
            outcome.levels.is_empty(),
        )?;
    }
    expect_leaves(mapping.leaves()?, mapping.expected_leaves())?;
    let (first, nr) = (21, BLOCK + 188);
    let mut batch = mapping.tree.batch();
    mapping.tree.split(mapping.part(first, nr), &mut batch)?;
    batch.flush();
    drop(batch);
    let parts = [
        greedy(ctx, &mapping, 0, first),
        greedy(ctx, &mapping, first, first + nr),
        greedy(ctx, &mapping, first + nr, 2 * BLOCK),
    ];
    expect_leaves(mapping.leaves()?, sum(&parts))?;
    // Linux once took the group apart.
    let mut batch = mapping.tree.batch();
    let outcome = mapping.tree.split(mapping.part(2 * GROUP, GROUP), &mut batch)?;
    batch.flush();
    drop(batch);
    expect(
        "a split at a group's edges changed something",
        64,
        outcome.levels.is_empty(),
    )?;
    mapping.verify()?;
    coalesce(&mapping)?;
    expect_leaves(mapping.leaves()?, mapping.expected_leaves())?;
    mapping.verify_and_unmap()?;
    Ok(())
}

pub fn coalesce_pages(ctx: &Context) -> TestResult {
    let setup = Setup::of(ctx, 2 * BLOCK_SIZE, BLOCK_SIZE)?;
    let mapping = Mapping::map_with(
        ctx,
        setup.window.start,
        &setup.source,
        setup.attributes,
        setup.memory,
        paging::LeafSet::PAGES,
    )?;
    mapping.verify()?;
    coalesce(&mapping)?;
    let blocks = setup
        .source
        .expected_leaves(mapping.va, 0, setup.source.pages(), ctx.leaves());
    expect_leaves(mapping.leaves()?, blocks)?;
    mapping.verify_and_unmap()?;
    Ok(())
}

pub fn invalid_and_valid_again(ctx: &Context) -> TestResult {
    let setup = Setup::leaf(ctx, LeafSize::BLOCK2)?;
    let mapping = setup.map(ctx)?;
    mapping.verify()?;
    let part = mapping.part(40, 100);
    for valid in [false, true] {
        mapping
            .tree
            .mmu()
            .begin(if valid { Work::Other } else { Work::Unmap });
        let mut batch = mapping.tree.batch();
        mapping.tree.set_valid(part, valid, &mut batch)?;
        batch.flush();
        mapping.verify_as(|page| (valid || !(40..140).contains(&page)).then(|| mapping.expected(page)))?;
    }
    mapping.verify_and_unmap()?;
    Ok(())
}

pub fn occupied_range_is_refused(ctx: &Context) -> TestResult {
    const TAKEN: u64 = BLOCK + 265;
    let setup = Setup::of(ctx, 2 * BLOCK_SIZE, BLOCK_SIZE)?;
    let block = Block::allocate(ctx, 0)?;
    let taken = Source::Range {
        start: block.start(),
        pages: 1,
        walker: Walker::Range,
    };
    let there = setup.window.start.add(TAKEN * PAGE);
    let one = Mapping::map(ctx, there, &taken, Attributes::KERNEL_DATA, ctx.owned())?;
    let tree = ctx.tree();
    match setup
        .source
        .map(&tree, setup.window.start, setup.attributes, ctx.leaves())
    {
        Ok(_) => return Err(Failure::NotRefused("a map over a page that is taken").into()),
        Err(failure) => match failure.error {
            paging::Error::Occupied { va, .. } if va == there => {}
            error => return Err(error.into()),
        },
    }
    one.verify()?;
    verify_pages(
        &tree,
        setup.window.start,
        setup.source.pages(),
        |page| (page == TAKEN).then(|| one.expected(0)),
        Memory::Untouched,
    )?;
    Ok(())
}

pub fn writable_and_executable_is_refused(ctx: &Context) -> TestResult {
    let setup = Setup::leaf(ctx, LeafSize::BLOCK2)?;
    let tree = ctx.tree();
    let both = Attributes::KERNEL_DATA.executable();
    for walker in Walker::ALL {
        let source = Source::Range {
            start: setup.source.pa(0),
            pages: BLOCK,
            walker,
        };
        match source.map(&tree, setup.window.start, both, ctx.leaves()) {
            Err(failure) if failure.error == paging::Error::WritableExecutable(setup.window.start) => {}
            Err(failure) => return Err(failure.into()),
            Ok(_) => return Err(Failure::NotRefused("a writable and executable mapping").into()),
        }
    }
    let mapping = setup.map(ctx)?;
    match mapping.protect_part(3, 1, Attributes::executable) {
        Err(Failure::Paging(paging::Error::WritableExecutable(_))) => {}
        Err(failure) => return Err(failure.into()),
        Ok(_) => return Err(Failure::NotRefused("a page made writable and executable").into()),
    }
    mapping.verify_and_unmap()?;
    Ok(())
}

pub fn every_table_may_be_missing(ctx: &Context) -> TestResult {
    // Tables of levels 1, 2, 2, 3 and 3, or of the last two of these.
    let span = BLOCKS_SPAN;
    let window = Window::reserve(2 * span, span, 0)?;
    let va = window.start.add(span - 20 * PAGE);
    let block = Block::allocate(ctx, 6)?;
    let source = Source::Range {
        start: block.start(),
        pages: 40,
        walker: Walker::Array,
    };
    let tree = ctx.tree();
    let mut nr_failed = 0;
    loop {
        let injection = fail_page_alloc::fail_nth(nr_failed + 1);
        let result = source.map(&tree, va, Attributes::KERNEL_DATA, ctx.leaves());
        let fired = injection.fired();
        drop(injection);
        match result {
            Err(failure) if fired && matches!(failure.error, paging::Error::OutOfTables(_)) => {
                nr_failed += 1;
                verify_pages(&tree, va, 40, |_| None, Memory::Untouched)?;
            }
            Err(failure) => return Err(failure.into()),
            Ok(_) if fired => return Err(Failure::NotRefused("a map without a table that it needs").into()),
            Ok(_) => break,
        }
    }
    let mut batch = tree.batch();
    tree.unmap(VirtRange::new(va, 40 * PAGE), &mut batch)?;
    batch.flush();
    verify_pages(&tree, va, 40, |_| None, Memory::Untouched)?;
    expect(
        "fewer tables were missing than the map needs",
        nr_failed,
        nr_failed >= 2,
    )?;
    Ok(())
}
