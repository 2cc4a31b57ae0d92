use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Vmalloc { pages: u64, align: u32, huge: bool },
    Ioremap { pa: u64, size: u64 },
    Vmap { seed: u64, orders: Vec<u32> },
    Reserve { pages: u64 },
    Free(prop::sample::Index),
    FreeRaw(prop::sample::Index),
    Largest(u32),
    Purge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pages = prop_oneof![4 => 1..20u64, 2 => 1..700u64];
    let step = prop_oneof![
        4 => (pages.clone(), 0..24u32, any::<bool>())
            .prop_map(|(pages, align, huge)| Step::Vmalloc { pages, align, huge }),
        2 => (0..RAM / 2, 1..5 * M2).prop_map(|(pa, size)| Step::Ioremap { pa, size }),
        2 => (any::<u64>(), prop::collection::vec(0..10u32, 1..6))
            .prop_map(|(seed, orders)| Step::Vmap { seed, orders }),
        1 => pages.prop_map(|pages| Step::Reserve { pages }),
        5 => any::<prop::sample::Index>().prop_map(Step::Free),
        2 => any::<prop::sample::Index>().prop_map(Step::FreeRaw),
        1 => (0..14u32).prop_map(Step::Largest),
        1 => Just(Step::Purge),
    ];
    prop::collection::vec(step, 1..60)
}

type Expected = Vec<Option<u64>>;

fn frames_of(area: &VmArea<'_, Machine>, vm: &Vm) -> Expected {
    let range = area.range();
    (0..range.size / PAGE)
        .map(|page| {
            let va = range.start.add(page * PAGE);
            vm.backend().model.translate(va).map(|found| found.pa)
        })
        .collect()
}

fn blocks(seed: u64, orders: &[u32]) -> Vec<Pfn> {
    let mut numbers = Numbers(seed | 1);
    orders
        .iter()
        .flat_map(|order| {
            let first = (RAM / PAGE) + (numbers.below(1 << (16 - order)) << order);
            (first..first + (1 << order)).map(Pfn)
        })
        .collect()
}

fn run(vm: &Vm, steps: &[Step]) {
    let mut areas: Vec<(VmArea<'_, Machine>, Expected)> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Vmalloc { pages, align, huge } => {
                let request = Request::new(pages * PAGE).aligned(1 << align);
                let request = if *huge { request.huge() } else { request };
                if let Ok(area) = vm.allocate(&request) {
                    assert_eq!(area.va().0 % (1 << align), 0);
                    let frames = frames_of(&area, vm);
                    for pa in &frames {
                        let frame = Pfn(pa.expect("every page is mapped") / PAGE);
                        assert!(vm.backend().ram().is_given(frame));
                        let elsewhere = areas
                            .iter()
                            .filter(|(other, _)| other.kind() == Kind::Vmalloc)
                            .any(|(_, frames)| frames.contains(pa));
                        assert!(!elsewhere, "frame {frame:?} is in two areas");
                    }
                    areas.push((area, frames));
                }
            }
            Step::Ioremap { pa, size } => {
                if let Ok(area) = vm.ioremap(PhysAddr(*pa), *size) {
                    let first = pa & !(PAGE - 1);
                    let nr = area.range().size / PAGE;
                    let expected = (0..nr).map(|page| Some(first + page * PAGE)).collect();
                    areas.push((area, expected));
                }
            }
            Step::Vmap { seed, orders } => {
                let frames = blocks(*seed, orders);
                if let Ok(area) = vm.vmap(&frames[..]) {
                    let expected = frames.iter().map(|frame| Some(frame.0 * PAGE)).collect();
                    areas.push((area, expected));
                }
            }
            Step::Reserve { pages } => {
                if let Ok(area) = vm.get_vm_area(pages * PAGE, PAGE) {
                    areas.push((area, std::vec![None; *pages as usize]));
                }
            }
            Step::Free(index) | Step::FreeRaw(index) if !areas.is_empty() => {
                let (area, _) = areas.swap_remove(index.index(areas.len()));
                let range = area.range();
                if matches!(step, Step::Free(_)) {
                    drop(area);
                } else {
                    let kind = area.kind();
                    let va = area.into_raw();
                    match kind {
                        Kind::Vmalloc | Kind::Stack => vm.raw().vfree(va),
                        Kind::Vmap => vm.raw().vunmap(va),
                        Kind::Ioremap => vm.raw().iounmap(va),
                        Kind::Reserved => vm.raw().free_vm_area(va),
                        Kind::MapRam => unreachable!("no handle is one of a block"),
                    }
                    .unwrap();
                }
                if vm.config().flush == FlushPolicy::Strict {
                    vm.backend().model.va_reused(range);
                }
            }
            Step::Largest(order) => vm.backend().ram().largest = *order,
            Step::Purge => {
                vm.vm_unmap_aliases();
            }
            Step::Free(_) | Step::FreeRaw(_) => {}
        }
        if number % 4 == 3 {
            assert_sound(vm);
        } else {
            assert_consistent(vm);
        }
        assert_eq!(vm.usage().areas, areas.len());
    }
    for (area, expected) in &areas {
        assert_eq!(&frames_of(area, vm), expected, "{area:?}");
        for (other, _) in &areas {
            let same = core::ptr::eq(area, other);
            assert!(same || !area.range().overlaps(other.range()));
        }
    }
    areas.clear();
    vm.vm_unmap_aliases();
    assert_empty(vm);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_calls_keep_every_promise_strictly(steps in steps()) {
        run(&vm(), &steps);
    }

    #[test]
    fn random_calls_keep_every_promise_in_a_tight_region(steps in steps()) {
        let features = Features { tlbi_range: true, ..Features::default() };
        run(&vm_with(6 * 512, features, Config::default()), &steps);
    }

    #[test]
    fn random_calls_keep_every_promise_lazily(steps in steps()) {
        run(&lazy(7, 4000), &steps);
    }
}
