//! The reference walkers, and the one defect kept under a switch.

mod agreement;
mod barriers;
mod engine;
mod errors;
mod leaves;
mod memory;
mod overrun;
mod unmap;
mod variants;

use memory::Memory;
use paging::mmu::{Counting, NoMmu};
use paging::reference::Context;
use paging::{Attributes, Granule, Mmu, Pfn, Tables, VirtAddr};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
/// Aligned to 1G.
const VA: VirtAddr = VirtAddr(0xffff_8000_4000_0000);
const DATA: Attributes = Attributes::KERNEL_DATA;

macro_rules! for_both {
    (|$walker:ident| $body:block) => {
        paging::for_each_walker! { @each |$walker| $body
            paging::reference::Rewalk,
            paging::reference::Series { overrun: false },
        }
    };
}
use for_both;

type Counter = Counting<NoMmu>;
type Counted<'a, Gr> = Context<'a, Gr, Memory, Counter>;

fn counter() -> Counter {
    Counting::new(NoMmu { tlbi_range: true })
}

fn on_tree<Gr: Granule>(test: impl FnOnce(&Counted<'_, Gr>)) {
    let (tables, mmu) = (Memory::new::<Gr>(), counter());
    let ctx = Context::new(&tables, &mmu).expect("a root table");
    test(&ctx);
    ctx.release();
    assert_eq!(tables.in_use(), 0);
}

fn chunks(orders: &[u32]) -> Vec<Pfn> {
    let mut next = 1u64 << 20;
    let mut frames = Vec::new();
    for order in orders {
        let pages = 1u64 << order;
        let start = next.next_multiple_of(pages);
        frames.extend((start..start + pages).map(Pfn));
        next = start + pages + 1;
    }
    frames
}

fn wrong_pages<Gr: Granule, T: Tables, Mm: Mmu>(
    ctx: &Context<'_, Gr, T, Mm>,
    va: VirtAddr,
    frames: &[Pfn],
) -> usize {
    let right = |i: usize| {
        let va = va.add((i as u64) << Gr::PAGE_SHIFT);
        match ctx.leaf_at(va).zip(ctx.translate(va)) {
            Some(((leaf, _), (pa, _))) => {
                leaf.attributes::<Gr>() == DATA && pa.0 == frames[i].0 << Gr::PAGE_SHIFT
            }
            None => panic!("{va:?} is not mapped"),
        }
    };
    (0..frames.len()).filter(|i| !right(*i)).count()
}
