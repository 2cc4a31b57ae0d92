//! DESIGN rule 12; Arm ARM B2.8.

use mmu_model::{Cpu, Features, Model, Rule};
use paging::{
    Attributes, Config, FlushBatch, Granule4K, Half, LeafSet, MemoryType, PageArray, Pfn, PhysAddr,
    PhysRange, Tree, VirtRange,
};

const NC: Attributes = Attributes::kernel(MemoryType::NORMAL_NC).writable();
const WB: Attributes = Attributes::KERNEL_DATA;

/// The linear map has a gigabyte from here, as one block.
const RAM: u64 = 1 << 30;

type Engine<'m> = Tree<Granule4K, Cpu<'m, Granule4K>, Cpu<'m, Granule4K>>;

struct Space<'m> {
    tree: Engine<'m>,
    model: &'m Model<Granule4K>,
}

impl<'m> Space<'m> {
    fn new((model, root): &'m (Model<Granule4K>, PhysAddr)) -> Self {
        let cpu = model.cpu(0);
        let tree = Tree::new(*root, Half::High, cpu, cpu, Config::default());
        let space = Self { tree, model };
        let mut ram = PhysRange::new(PhysAddr(RAM), RAM >> 12);
        let linear = VirtRange::new(space.tree.range().start.add(RAM), RAM);
        space
            .tree
            .map(linear, &mut ram, WB, LeafSet::ALL)
            .expect("memory suffices");
        space
    }

    fn alias(&self, frame: u64, frames: u64) -> VirtRange {
        VirtRange::new(self.tree.range().start.add(RAM + (frame << 12)), frames << 12)
    }

    fn vmap(&self, frames: &[u64], attributes: Attributes) {
        let at = self.tree.range().start.add(1 << 46);
        let frames: Vec<_> = frames.iter().map(|frame| Pfn((RAM >> 12) + frame)).collect();
        let range = VirtRange::new(at, (frames.len() as u64) << 12);
        let mut source = PageArray::new(frames.as_slice());
        self.tree
            .map(range, &mut source, attributes, LeafSet::ALL)
            .expect("memory suffices");
    }

    fn batch(&self) -> FlushBatch<'_, Granule4K, Cpu<'m, Granule4K>, Cpu<'m, Granule4K>> {
        self.tree.batch()
    }

    fn rules_broken(&self) -> Vec<Rule> {
        self.model
            .violations()
            .iter()
            .map(|violation| violation.rule)
            .collect()
    }
}

fn machine() -> (Model<Granule4K>, PhysAddr) {
    Model::with_root(Features {
        cpus: 2,
        ..Features::default()
    })
}

const FRAMES: [u64; 3] = [700, 5, 1 << 17];

#[test]
fn ram_mapped_a_second_time_as_what_it_is_is_sound() {
    let machine = machine();
    let space = Space::new(&machine);
    space.vmap(&FRAMES, WB.read_only());
    space.model.assert_quiescent();
}

#[test]
fn ram_mapped_as_nc_beside_its_linear_alias_is_found_out() {
    let machine = machine();
    let space = Space::new(&machine);
    space.vmap(&FRAMES, NC);
    assert_eq!(space.rules_broken(), [Rule::MismatchedAlias; 3]);
    let alias = format!("{:#x}", space.alias(0, 1).start.0);
    for violation in space.model.violations() {
        assert!(
            violation.story.contains("attr 2") && violation.story.contains(&alias),
            "{violation}"
        );
    }
}

#[test]
fn with_the_alias_gone_and_flushed_it_is_sound_both_ways() {
    let machine = machine();
    let space = Space::new(&machine);
    for frame in FRAMES {
        let mut batch = space.batch();
        space
            .tree
            .set_valid(space.alias(frame, 1), false, &mut batch)
            .expect("memory suffices");
        batch.flush();
    }
    space.vmap(&FRAMES, NC);
    space.model.assert_quiescent();
    let area = VirtRange::new(space.tree.range().start.add(1 << 46), 3 << 12);
    let mut batch = space.batch();
    space.tree.unmap(area, &mut batch).expect("mapped");
    batch.flush();
    for frame in FRAMES {
        space
            .tree
            .set_valid(space.alias(frame, 1), true, &mut space.batch())
            .expect("mapped");
    }
    space.model.assert_quiescent();
}

#[test]
fn an_alias_whose_flush_is_still_to_come_is_found_out() {
    let machine = machine();
    let space = Space::new(&machine);
    space
        .tree
        .split(space.alias(5, 1), &mut space.batch())
        .expect("memory suffices");
    let mut batch = space.batch();
    space
        .tree
        .set_valid(space.alias(5, 1), false, &mut batch)
        .expect("mapped");
    space.vmap(&[5], NC);
    assert_eq!(space.rules_broken(), [Rule::MismatchedAlias]);
    batch.flush();
}

#[test]
fn the_alias_that_comes_back_too_early_is_found_out() {
    let machine = machine();
    let space = Space::new(&machine);
    space
        .tree
        .set_valid(space.alias(5, 1), false, &mut space.batch())
        .expect("memory suffices");
    space.vmap(&[5], NC);
    let area = VirtRange::new(space.tree.range().start.add(1 << 46), 1 << 12);
    let mut unflushed = space.batch();
    space.tree.unmap(area, &mut unflushed).expect("mapped");
    space.model.assert_clean();
    space
        .tree
        .set_valid(space.alias(5, 1), true, &mut space.batch())
        .expect("mapped");
    assert_eq!(space.rules_broken(), [Rule::MismatchedAlias]);
    unflushed.flush();
}

#[test]
fn the_alias_may_change_its_type_instead() {
    let machine = machine();
    let space = Space::new(&machine);
    let mut batch = space.batch();
    space
        .tree
        .protect(space.alias(5, 1), |_| NC, &mut batch)
        .expect("memory suffices");
    batch.flush();
    space.vmap(&[5], NC);
    space.model.assert_quiescent();
}
