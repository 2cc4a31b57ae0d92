//! No rule is broken, and after each step the tables agree with a naive map.

use crate::support;

use mmu_model::{Features, Model};
use paging::mmu::{MmuEvent, NoMmu};
use paging::reference::{Context, Error as WalkerError, Rewalk, Walker};
use paging::{
    Attributes, FrameArray, Granule, Granule4K, Granule4K52, Granule16K, Granule16K52, Granule64K,
    Granule64K42, Granule64K52, Half, LeafSet, LeafSize, LevelMask, Mmu, Pfn, PhysAddr, PhysRange, Tables,
    Tree, VirtAddr, VirtRange,
};
use proptest::prelude::*;
use support::corpus::corpus;
use support::machine::{RawOp, Setup, run};

fn raw() -> impl Strategy<Value = RawOp> {
    (any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>(), any::<u32>()).prop_map(
        |(kind, page, pages, choice, seed)| RawOp {
            kind,
            page,
            pages,
            choice,
            seed,
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(cases);
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(120))]

    #[test]
    fn random_sequences_on_4k_break_no_rule(setup in any::<u8>(), ops in prop::collection::vec(raw(), 1..24)) {
        run::<Granule4K>(Setup(setup), &ops);
    }
}

proptest! {
    #![proptest_config(config(25))]

    #[test]
    fn random_sequences_on_4k_with_52_bits_break_no_rule(setup in any::<u8>(), ops in prop::collection::vec(raw(), 1..24)) {
        run::<Granule4K52>(Setup(setup), &ops);
    }

    #[test]
    fn random_sequences_on_16k_with_52_bits_break_no_rule(setup in any::<u8>(), ops in prop::collection::vec(raw(), 1..16)) {
        run::<Granule16K52>(Setup(setup), &ops);
    }

    #[test]
    fn random_sequences_on_16k_break_no_rule(setup in any::<u8>(), ops in prop::collection::vec(raw(), 1..16)) {
        run::<Granule16K>(Setup(setup), &ops);
    }

    #[test]
    fn random_sequences_on_64k_with_52_bits_break_no_rule(setup in any::<u8>(), ops in prop::collection::vec(raw(), 1..12)) {
        run::<Granule64K52>(Setup(setup), &ops);
    }

    #[test]
    fn random_sequences_on_64k_break_no_rule(setup in any::<u8>(), ops in prop::collection::vec(raw(), 1..12)) {
        run::<Granule64K>(Setup(setup), &ops);
    }
}

fn corpus_on_the_model<G: Granule>() {
    for setup in [
        Setup(0),
        Setup(0b1),
        Setup(0b100),
        Setup(0b11_0001),
        Setup(0b100_0000),
    ] {
        for case in corpus::<G>() {
            let (model, root) = Model::<G>::with_root(Features {
                pa_bits: G::PA_BITS,
                ..setup.features::<G>()
            });
            let cpu = model.cpu(0);
            let config = paging::Config {
                pa_bits: G::PA_BITS,
                ..setup.config::<G>()
            };
            let tree = Tree::<G, _, _>::new(root, Half::High, cpu, cpu, config);
            let base = tree.range().start.add(1 << (G::VA_BITS - 2));
            let everything = support::ops::Op::Unmap {
                page: 0,
                pages: 1 << (G::VA_BITS - 2 - G::PAGE_SHIFT),
            };
            for op in case.setup.iter().chain([&case.op, &everything]) {
                op.apply(&tree, base)
                    .unwrap_or_else(|failure| panic!("{}: {failure}", case.name));
                let violations = model.violations();
                assert!(
                    violations.is_empty(),
                    "{} on {}: {}\n{}",
                    case.name,
                    G::NAME,
                    violations[0],
                    model.log()
                );
                assert!(
                    model.is_quiescent(),
                    "{} on {}: something is not flushed\n{}",
                    case.name,
                    G::NAME,
                    model.log()
                );
            }
            support::prune(&tree);
            assert_eq!(model.nr_tables(), 1, "{} on {}", case.name, G::NAME);
        }
    }
}

#[test]
fn the_corpus_on_4k_breaks_no_rule() {
    corpus_on_the_model::<Granule4K>();
}

#[test]
fn the_corpus_on_16k_breaks_no_rule() {
    corpus_on_the_model::<Granule16K>();
}

#[test]
fn the_corpus_on_64k_breaks_no_rule() {
    corpus_on_the_model::<Granule64K>();
}

fn the_largest_block_is_cut_and_folds_again<G: Granule>() {
    let setup = Setup(1);
    let (model, root) = Model::<G>::with_root(setup.features::<G>());
    let cpu = model.cpu(0);
    let tree = Tree::<G, _, _>::new(root, Half::High, cpu, cpu, setup.config::<G>());
    let size = G::size(G::FIRST_LEAF_LEVEL);
    let (start, pa) = (
        tree.range().start.add(size),
        PhysAddr((0b101 << (support::pa_bits::<G>() - 3)) + size),
    );
    let range = VirtRange::new(start, size);
    let mut source = PhysRange::new(pa, size >> G::PAGE_SHIFT);
    let block = LeafSize::new(G::FIRST_LEAF_LEVEL, false);
    let is_whole = || {
        let leaf = tree.translate(start.add(size - 1)).expect("mapped");
        assert_eq!((leaf.va, leaf.pa, leaf.size), (start, pa, block));
        assert_eq!(leaf.attributes, Attributes::KERNEL_DATA);
        let found: Vec<_> = model
            .leaves()
            .into_iter()
            .map(|(va, leaf)| (va, leaf.level, leaf.pa))
            .collect();
        assert_eq!(found, [(start, G::FIRST_LEAF_LEVEL, pa.0)]);
    };
    tree.map(range, &mut source, Attributes::KERNEL_DATA, LeafSet::ALL)
        .expect("maps");
    is_whole();
    let page = VirtRange::new(start.add(size / 2 + 5 * G::PAGE_SIZE), G::PAGE_SIZE);
    let change = |to: fn(Attributes) -> Attributes| {
        let mut batch = tree.batch();
        tree.protect(page, to, &mut batch).expect("mapped");
        batch.flush();
    };
    change(Attributes::read_only);
    let leaf = tree.translate(page.start).expect("mapped");
    assert_eq!(leaf.translate(page.start), pa.add(page.start.offset_from(start)));
    assert!(leaf.size == LeafSize::PAGE && !leaf.attributes.is_writable());
    let bytes: u64 = model
        .leaves()
        .into_iter()
        .map(|(_, leaf)| G::size(leaf.level))
        .sum();
    assert_eq!(bytes, size, "all but the page is still mapped");
    change(Attributes::writable);
    let mut batch = tree.batch();
    tree.coalesce(range, &mut batch).expect("takes no memory");
    batch.flush();
    is_whole();
    assert!(model.violations().is_empty(), "{}", model.violations()[0]);
    assert!(model.is_quiescent());
}

#[test]
fn the_largest_block_of_two_levels_is_cut_and_folds_again() {
    the_largest_block_is_cut_and_folds_again::<Granule64K42>();
}

#[test]
fn the_largest_block_of_52_bits_is_cut_and_folds_again() {
    the_largest_block_is_cut_and_folds_again::<Granule4K52>();
    the_largest_block_is_cut_and_folds_again::<Granule16K52>();
    the_largest_block_is_cut_and_folds_again::<Granule64K52>();
}

fn verdict_on<W>(walker: &W) -> Vec<String>
where
    W: for<'m> Walker<Granule4K, mmu_model::Cpu<'m, Granule4K>, mmu_model::Cpu<'m, Granule4K>>,
{
    let mut against = Vec::new();
    for tlbi_range in [false, true] {
        let (model, root) = Model::<Granule4K>::with_root(Features {
            cpus: 2,
            tlbi_range,
            ..Features::default()
        });
        let cpu = model.cpu(0);
        let ctx = Context::from_root(root, &cpu, &cpu);
        let at = VirtAddr(0xffff_8000_4000_0000);
        let data = Attributes::KERNEL_DATA;
        for (offset, pages) in [(0, 1), (0x1000, 40), (0x10000, 700), (0, 512 * 17)] {
            let (va, size) = (at.add(offset), pages << 12);
            walker
                .map_range(&ctx, va, PhysAddr((1 << 32) + offset), size, data)
                .expect("maps");
            walker.unmap(&ctx, va, size).expect("unmaps");
            let scattered: Vec<_> = (0..pages).map(|i| Pfn((1 << 21) + i + i / 24 * 8)).collect();
            walker
                .map_pages(&ctx, va, scattered.as_slice(), data)
                .expect("maps");
            walker.unmap(&ctx, va, size).expect("unmaps");
        }
        against.extend(model.violations().iter().map(ToString::to_string));
        if !model.is_quiescent() {
            against.push(format!("{}: something is not flushed", W::NAME));
        }
    }
    against
}

#[test]
fn the_registered_walkers_break_no_rule() {
    paging::for_each_walker!(|walker| {
        assert_eq!(verdict_on(&walker), Vec::<String>::new());
    });
}

struct NoTlbi;

impl<G: Granule, T: Tables, M: Mmu> Walker<G, T, M> for NoTlbi {
    const NAME: &'static str = "no-tlbi";
    fn map_range(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        pa: PhysAddr,
        size: u64,
        attributes: Attributes,
    ) -> Result<LevelMask, WalkerError> {
        Rewalk.map_range(ctx, va, pa, size, attributes)
    }
    fn map_pages<A: FrameArray + ?Sized>(
        &self,
        ctx: &Context<'_, G, T, M>,
        va: VirtAddr,
        frames: &A,
        attributes: Attributes,
    ) -> Result<LevelMask, WalkerError> {
        Rewalk.map_pages(ctx, va, frames, attributes)
    }
    fn unmap(&self, ctx: &Context<'_, G, T, M>, va: VirtAddr, size: u64) -> Result<LevelMask, WalkerError> {
        let silent = NoMmu { tlbi_range: false };
        let ctx = Context::<G, T, _>::from_root(ctx.root, ctx.tables, &silent);
        Rewalk.unmap(&ctx, va, size)
    }
}

#[test]
fn a_walker_in_the_list_that_forgets_its_tlbi_is_found_out() {
    paging::for_each_walker! { @each |walker| {
            assert!(!verdict_on(&walker).is_empty(), "the model has nothing against it");
        }
        NoTlbi,
    }
}

#[test]
fn the_verdict_can_be_guilty() {
    struct Forgetful<'m>(mmu_model::Cpu<'m, Granule4K>);
    impl Forgetful<'_> {
        fn around(&self, event: MmuEvent, issue: impl FnOnce()) {
            if !matches!(event, MmuEvent::TlbiLastLevel(_)) {
                issue();
            }
        }
    }
    impl Mmu for Forgetful<'_> {
        paging::forward_mmu!(self => self.0, Self::around);
    }
    let (model, root) = Model::<Granule4K>::with_root(Features::default());
    let tree = Tree::<Granule4K, _, _>::new(
        root,
        Half::High,
        model.cpu(0),
        Forgetful(model.cpu(0)),
        paging::Config::default(),
    );
    let base = tree.range().start;
    support::ops::Op::map(512, support::Shape::Range(1 << 20, 512))
        .apply(&tree, base)
        .expect("vacant");
    support::ops::Op::map(0, support::Shape::Range(1, 1))
        .apply(&tree, base)
        .expect("vacant");
    let split = support::ops::Op::Split { page: 600, pages: 1 };
    split.apply(&tree, base).expect("memory suffices");
    assert!(
        !model.take_violations().is_empty(),
        "a split without its TLBI is seen"
    );
    assert!(!model.is_quiescent());
    assert!(tree.tables().load(root, 0) == model.cpu(0).load(root, 0));
}
