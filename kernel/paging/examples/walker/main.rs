//! Leaves, barriers and table accesses of an own walker beside the registered ones: `cargo run -p
//! paging --example walker`.

mod one_by_one;

use mmu_model::{Cpu, Features, Model};
use one_by_one::OneByOne;
use paging::mmu::Counting;
use paging::reference::{Context, Walker};
use paging::{Attributes, Granule4K, Pfn, VirtAddr, VirtRange};

fn array() -> Vec<Pfn> {
    let chunk = |i: u64| (0..64).map(move |page| Pfn((1 << 20) + i * 128 + page));
    (0..4).flat_map(chunk).collect()
}

fn show<W>(walker: &W) -> bool
where
    W: for<'m> Walker<Granule4K, Cpu<'m, Granule4K>, Counting<Cpu<'m, Granule4K>>>,
{
    let (model, root) = Model::<Granule4K>::with_root(Features::default());
    let (cpu, mmu) = (model.cpu(0), Counting::new(model.cpu(0)));
    let ctx = Context::from_root(root, &cpu, &mmu);
    let (va, frames) = (VirtAddr(0xffff_8000_4000_0000), array());
    let range = VirtRange::new(va, (frames.len() as u64) << 12);
    let mapped = walker.map_pages(&ctx, va, frames.as_slice(), Attributes::KERNEL_DATA);
    let (map, leaves) = (mmu.take(), ctx.leaf_counts(range));
    let right = (0..).zip(&frames).all(|(page, frame)| {
        let found = ctx.translate(va.add(page << 12));
        found.is_some_and(|(pa, _)| pa.0 == frame.0 << 12)
    });
    let unmapped = walker.unmap(&ctx, va, range.size);
    let unmap = mmu.take();
    println!(
        "{:12} {:14} map: {} DSB, {} ISB; unmap: {} TLBI, {} DSB",
        W::NAME,
        leaves.display::<Granule4K>().to_string(),
        map.dsb,
        map.isb,
        unmap.tlbi,
        unmap.dsb
    );
    let broken = model.violations();
    for violation in &broken {
        println!("  breaks a rule: {violation}");
    }
    mapped.is_ok() && unmapped.is_ok() && right && broken.is_empty() && model.is_quiescent()
}

fn main() {
    let mut right = show(&OneByOne);
    paging::for_each_walker!(|walker| {
        right &= show(&walker);
    });
    assert!(right, "a walker is wrong");
}
