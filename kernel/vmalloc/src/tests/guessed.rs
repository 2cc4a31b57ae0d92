use super::*;

#[test]
fn what_is_no_run_between_its_ends_is_mapped_page_by_page_right() {
    let vm = vm();
    let first = vm.vmalloc(1).unwrap();
    let start = RAM / PAGE + 16;
    for nr in [2, 15, 16, 17, 31, 32, 64, 512, 600] {
        for (a, b) in [(0, 1), (1, 2), (5, 14), (3, 29), (15, 16), (30, 31)] {
            if b >= nr {
                continue;
            }
            let mut frames: Vec<_> = (0..nr as u64).map(|page| Pfn(start + page)).collect();
            frames.swap(a, b);
            let area = vm.vmap(&frames[..]).unwrap();
            assert_maps(&area, &vm, |page| PhysAddr(frames[page as usize].0 * PAGE));
            drop(area);
        }
    }
    drop(first);
    assert_empty(&vm);
}

#[test]
fn a_run_that_ends_one_page_early_keeps_its_groups() {
    let vm = vm();
    let first = vm.vmalloc(1).unwrap();
    let start = RAM / PAGE + 32;
    let mut frames: Vec<_> = (0..31).map(|page| Pfn(start + page)).collect();
    frames[30] = Pfn(start + 100);
    let area = vm.vmap(&frames[..]).unwrap();
    assert_maps(&area, &vm, |page| PhysAddr(frames[page as usize].0 * PAGE));
    assert_eq!(area.outcome().leaves.get(LeafSize::PAGE_GROUP), 1);
    drop((first, area));
    assert_empty(&vm);
}
