//! Every interleaving of a lazy purge: two CPUs unmap, one purges for both, a third looks.
//!
//! ```text
//!   unmapper (CPU 0)               purger (CPU 1), twice              looker (CPU 2)
//!   write invalid                  write invalid (its own page)
//!   put it on the list (release)   put it on the list
//!                                  take the list (acquire)
//!                                  DSB ISH
//!                                  TLBI of each
//!                                  DSB ISH
//!                                  give each back (release)
//!   is it freed? (acquire)                                       is it freed? (acquire)
//!   use frame and address                                             ISB; read
//!   map another frame there
//!   DSB ISHST; ISB; read
//! ```
//!
//! Each step left out breaks a rule, the purger's leading DSB ISH included: the unmapper issues
//! none.

use mmu_model::{Access, Features, Model, ModelState, Released, Rule};
use paging::{
    Attributes, Config, Half, LeafSet, Mmu, PhysAddr, PhysRange, Tables, TinyGranule, Tree, VirtAddr,
    VirtRange,
};
use std::collections::BTreeSet;

const PAGE: u64 = 1 << 12;
const BASE: u64 = 0u64.wrapping_sub(64 * PAGE);
const FRAMES: [u64; 2] = [0x10_0000, 0x20_1000];
const NEXT: u64 = 0x30_0000;

fn va(page: usize) -> VirtAddr {
    VirtAddr(BASE + page as u64 * PAGE)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Unmap(usize),
    Push(usize),
    Take,
    Dsb,
    DsbIshst,
    Tlbi,
    LocalTlbi,
    GiveBack,
    Await(usize),
    Reuse(usize),
    Map(usize),
    Read(usize),
}

use Step::*;

const UNMAPPER: &[Step] = &[Unmap(0), Push(0), Await(0), Reuse(0), Map(0), DsbIshst, Read(0)];
const PURGE: &[Step] = &[Take, Dsb, Tlbi, Dsb, GiveBack];
const LOOKER: &[Step] = &[Await(0), Read(0)];

#[derive(Clone, Default)]
struct World {
    at: [usize; 3],
    list: Vec<usize>,
    lock: Released,
    taken: Vec<usize>,
    freed: [bool; 2],
}

struct Search<'a> {
    model: &'a Model<TinyGranule>,
    table: PhysAddr,
    leaf: u64,
    programs: [Vec<Step>; 3],
    acquires: bool,
    nr: u64,
    broken: BTreeSet<String>,
}

impl Search<'_> {
    fn acquire(&self, cpu: usize, world: &World) {
        if self.acquires {
            self.model.acquire(cpu, &world.lock);
        }
    }

    fn release(&self, cpu: usize, world: &mut World) {
        world.lock.join(&self.model.release(cpu));
    }

    fn can_step(&self, cpu: usize, world: &World) -> bool {
        match self.programs[cpu].get(world.at[cpu]) {
            None => false,
            Some(Await(page)) => world.freed[*page],
            Some(_) => true,
        }
    }

    fn step(&self, cpu: usize, world: &mut World) {
        let handle = self.model.cpu(cpu);
        let step = self.programs[cpu][world.at[cpu]];
        world.at[cpu] += 1;
        match step {
            Unmap(page) => handle.store(self.table, page, 0),
            Push(page) => {
                self.acquire(cpu, world);
                world.list.push(page);
                self.release(cpu, world);
            }
            Take => {
                self.acquire(cpu, world);
                world.taken = std::mem::take(&mut world.list);
                self.release(cpu, world);
            }
            Dsb => handle.dsb_ish(),
            DsbIshst => handle.dsb_ishst(),
            Tlbi => world
                .taken
                .iter()
                .for_each(|page| handle.tlbi_vaale1is(va(*page))),
            LocalTlbi => world.taken.iter().for_each(|page| handle.tlbi_vaale1(va(*page))),
            GiveBack => {
                for page in std::mem::take(&mut world.taken) {
                    self.model.frame_reused(PhysAddr(FRAMES[page]), PAGE);
                    world.freed[page] = true;
                }
                self.acquire(cpu, world);
                self.release(cpu, world);
            }
            Await(_) => self.acquire(cpu, world),
            Reuse(page) => {
                self.model.frame_reused(PhysAddr(FRAMES[page]), PAGE);
                self.model.va_reused(VirtRange::new(va(page), PAGE));
            }
            Map(page) => handle.store(self.table, page, self.leaf - FRAMES[0] + NEXT),
            Read(page) => {
                handle.isb();
                let found = handle.access_with_retry(va(page), Access::Read);
                assert!(matches!(found, Ok(PhysAddr(NEXT)) | Err(_)), "{found:?}");
            }
        }
    }

    fn go_on(&mut self, state: &ModelState, world: &World) {
        let mut any = false;
        for cpu in 0..3 {
            if !self.can_step(cpu, world) {
                continue;
            }
            any = true;
            self.model.restore(state);
            let mut next = world.clone();
            self.step(cpu, &mut next);
            let violations = self.model.take_violations();
            let rules = violations.iter().map(|violation| format!("{:?}", violation.rule));
            self.broken.extend(rules);
            if violations
                .iter()
                .all(|violation| violation.rule == Rule::TlbiBeforeDsb)
            {
                let state = self.model.state();
                self.go_on(&state, &next);
            } else {
                self.nr += 1;
            }
        }
        if !any {
            self.nr += 1;
        }
    }
}

fn search(programs: [Vec<Step>; 3], acquires: bool) -> (BTreeSet<String>, u64) {
    let (model, root) = Model::<TinyGranule>::with_root(Features {
        cpus: 3,
        pool_pages: 8,
        log_events: 0,
        ..Features::default()
    });
    let tree: Tree<TinyGranule, _, _> =
        Tree::new(root, Half::High, model.cpu(0), model.cpu(0), Config::default());
    for (page, frame) in FRAMES.into_iter().enumerate() {
        let mut source = PhysRange::new(PhysAddr(frame), 1);
        tree.map(
            VirtRange::new(va(page), PAGE),
            &mut source,
            Attributes::KERNEL_DATA,
            LeafSet::ALL,
        )
        .expect("tables suffice");
    }
    let leaf = model.translate(va(0)).expect("mapped");
    let mut table = root;
    for _ in 0..2 {
        table = PhysAddr(model.cpu(0).load(table, 0) & 0xffff_ffff_f000);
    }
    for cpu in 1..3 {
        model.hand_over(0, cpu);
        model.cpu(cpu).isb();
    }
    let mut search = Search {
        model: &model,
        table,
        leaf: leaf.descriptor,
        programs,
        acquires,
        nr: 0,
        broken: BTreeSet::new(),
    };
    search.go_on(&model.state(), &World::default());
    (search.broken, search.nr)
}

fn purger(purge: &[Step]) -> Vec<Step> {
    [&[Unmap(1), Push(1)], purge, purge].concat()
}

fn programs(purge: &[Step]) -> [Vec<Step>; 3] {
    [UNMAPPER.to_vec(), purger(purge), LOOKER.to_vec()]
}

fn purge_with(index: usize, step: Option<Step>) -> Vec<Step> {
    let mut purge = PURGE.to_vec();
    match step {
        Some(step) => purge[index] = step,
        None => {
            purge.remove(index);
        }
    }
    purge
}

#[track_caller]
fn assert_broken(purge: &[Step], acquires: bool) {
    let (broken, nr) = search(programs(purge), acquires);
    let reused = format!("{:?}", Rule::FrameReused);
    assert!(
        broken.contains(&reused),
        "{purge:?}: {nr} interleavings, {broken:?}"
    );
}

#[test]
fn a_purge_with_all_its_steps_is_sound_on_every_interleaving() {
    let (broken, nr) = search(programs(PURGE), true);
    println!("{nr} interleavings");
    assert_eq!(broken, BTreeSet::new());
    assert!(nr > 10_000, "only {nr} interleavings");
}

#[test]
fn without_the_leading_dsb_ish_some_interleaving_uses_a_frame_too_early() {
    assert_broken(&purge_with(1, None), true);
}

#[test]
fn a_leading_dsb_ishst_does_not_wait_for_the_unmappers_store() {
    assert_broken(&purge_with(1, Some(DsbIshst)), true);
}

#[test]
fn without_the_tlbi_some_interleaving_uses_a_frame_too_early() {
    assert_broken(&purge_with(2, None), true);
}

#[test]
fn a_local_tlbi_leaves_the_other_cpus_entries() {
    assert_broken(&purge_with(2, Some(LocalTlbi)), true);
}

#[test]
fn without_the_trailing_dsb_ish_some_interleaving_uses_a_frame_too_early() {
    assert_broken(&purge_with(3, None), true);
}

#[test]
fn a_list_that_is_taken_without_acquire_tells_the_purger_nothing() {
    assert_broken(PURGE, false);
}

#[test]
fn a_dsb_of_the_unmapper_is_neither_needed_nor_enough() {
    let mut unmapper = UNMAPPER.to_vec();
    unmapper.insert(1, Dsb);
    let with_dsb = |purge: &[Step]| [unmapper.clone(), purger(purge), LOOKER.to_vec()];
    let (broken, _) = search(with_dsb(PURGE), true);
    assert_eq!(broken, BTreeSet::new());
    let (broken, _) = search(with_dsb(&purge_with(1, None)), true);
    assert!(broken.contains(&format!("{:?}", Rule::FrameReused)), "{broken:?}");
}
