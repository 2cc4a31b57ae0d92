use super::barriers::published;
use super::leaves::census;
use super::memory::Memory;
use super::{Counted, DATA, G, K, M, VA, chunks, counter, for_both, on_tree};
use paging::mmu::MmuCounts;
use paging::reference::{Context, Error, Walker};
use paging::{Descriptor, Granule4K, LAST_LEVEL, LeafSize, Pfn, PhysAddr, VirtAddr, VirtRange};

#[test]
fn what_is_mapped_is_not_mapped_over() {
    for_both!(|walker| {
        on_tree::<Granule4K>(|ctx| {
            let page = VA.add(2 * M + 8 * K);
            walker
                .map_range(ctx, page, PhysAddr(4 * K), 4 * K, DATA)
                .expect("maps");
            let found = Descriptor::leaf::<Granule4K>(LAST_LEVEL, PhysAddr(4 * K), DATA, false);
            let taken = Err(Error::Occupied {
                va: page,
                level: 3,
                found,
            });
            let at = VA.add(2 * M);
            assert_eq!(walker.map_range(ctx, at, PhysAddr(12 * K), 16 * K, DATA), taken);
            assert_eq!(census(&ctx.leaf_counts(VirtRange::new(at, M))), [0, 0, 0, 3]);
            walker.unmap(ctx, at, 8 * K).expect("unmaps");
            assert_eq!(walker.map_range(ctx, at, PhysAddr(6 * G), 2 * M, DATA), taken);
            assert_eq!(walker.map_range(ctx, VA, PhysAddr(6 * G), G, DATA), taken);
            let frames = chunks(&[0, 0, 0]);
            assert_eq!(walker.map_pages(ctx, at, &frames[..], DATA), taken);

            let block = VA.add(4 * M);
            walker
                .map_range(ctx, block, PhysAddr(6 * G), 2 * M, DATA)
                .expect("maps");
            let found = Descriptor::leaf::<Granule4K>(2, PhysAddr(6 * G), DATA, false);
            let taken = Err(Error::Occupied {
                va: block,
                level: 2,
                found,
            });
            assert_eq!(walker.map_range(ctx, block, PhysAddr(4 * K), 4 * K, DATA), taken);
            assert_eq!(walker.map_range(ctx, block, PhysAddr(6 * G), 2 * M, DATA), taken);
        });
    });
}

#[test]
fn ranges_and_frames_that_cannot_be_are_refused() {
    for_both!(|walker| {
        on_tree::<Granule4K>(|ctx| {
            let map = |va: VirtAddr, pa, size| walker.map_range(ctx, va, PhysAddr(pa), size, DATA);
            assert_eq!(map(VA, 0, 0), Err(Error::Empty(VA)));
            assert_eq!(map(VA.add(1), 0, 4 * K), Err(Error::Misaligned(VA.0 + 1)));
            assert_eq!(map(VA, 0x800, 4 * K), Err(Error::Misaligned(0x800)));
            assert_eq!(map(VA, 0, 0x1800), Err(Error::Misaligned(0x1800)));
            let last = VirtAddr(0xffff_ffff_ffff_f000);
            assert_eq!(map(last, 0, 8 * K), Err(Error::OutOfRange(last, 8 * K)));
            let top = (1 << 48) - 4 * K;
            assert_eq!(map(VA, top, 8 * K), Err(Error::BadFrame(Pfn(1 << 36))));
            assert_eq!(walker.unmap(ctx, VA, 0), Err(Error::Empty(VA)));
            assert_eq!(
                walker.unmap(ctx, last, 8 * K),
                Err(Error::OutOfRange(last, 8 * K))
            );
            assert_eq!(ctx.tables.in_use(), 1);
            assert_eq!(ctx.mmu.take(), MmuCounts::default());

            map(last, top, 4 * K).expect("the last page of both");
            assert_eq!(ctx.translate(last), Some((PhysAddr(top), LeafSize::PAGE)));

            ctx.mmu.take();
            let frames = [Some(Pfn(7)), Some(Pfn(9)), None];
            let got = walker.map_pages(ctx, VA, &frames[..], DATA);
            assert_eq!(got, Err(Error::NoFrame { page: 2 }));
            assert_eq!(
                ctx.translate(VA.add(4 * K)),
                Some((PhysAddr(9 << 12), LeafSize::PAGE))
            );
            assert_eq!(ctx.translate(VA.add(8 * K)), None);
            assert_eq!(ctx.mmu.take(), published(3 + 1));
            walker.unmap(ctx, VA, 12 * K).expect("unmaps");
            let frames = [Pfn(7), Pfn(1 << 36)];
            let got = walker.map_pages(ctx, VA, &frames[..], DATA);
            assert_eq!(got, Err(Error::BadFrame(Pfn(1 << 36))));
            walker.unmap(ctx, VA, 8 * K).expect("unmaps");
            for shift in [11, 64, 255] {
                let got = walker.map_chunks(ctx, VA, &frames[..1], shift, DATA);
                assert_eq!(got, Err(Error::ChunkShift(shift)));
            }
        });
    });
}

#[test]
fn without_a_page_for_a_table_the_range_stays_partly_mapped_and_can_be_unmapped() {
    let frames = chunks(&[8, 8, 8, 8]);
    let size = 4 * M;
    for budget in 1..5 {
        for_both!(|walker| {
            let (tables, mmu) = (Memory::new::<Granule4K>(), counter());
            tables.budget.set(budget);
            let ctx: Counted<'_, Granule4K> = Context::new(&tables, &mmu).expect("a root table");
            let level = if budget < 4 { budget as i8 } else { 3 };
            let got = walker.map_pages(&ctx, VA.add(64 * K), &frames[..], DATA);
            assert_eq!(got, Err(Error::OutOfTables(level)), "{budget} tables");
            walker.unmap(&ctx, VA.add(64 * K), size).expect("unmaps");
            assert!(ctx.leaf_counts(VirtRange::new(VA, 8 * M)).is_empty());
            assert_eq!(tables.in_use(), budget);
            ctx.release();
            assert_eq!(tables.in_use(), 0);
        });
    }
    let tables = Memory::new::<Granule4K>();
    tables.budget.set(0);
    assert!(Context::<Granule4K, _, _>::new(&tables, &counter()).is_none());
}
