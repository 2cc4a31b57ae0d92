use crate::support::{Area, PAGE, POISON, Plant, Rig, Scenario, Schedules, Small, me};
use crate::{LAZY, STRICT, scenario};
use paging::Attributes;
use vmalloc::{Error, Request};

fn churn(rig: &Rig) {
    for _ in 0..2 {
        let apart = Request::new(2 * PAGE).aligned(64 * PAGE);
        let area = Area::from(rig.vm.allocate(&apart).expect("memory suffices"));
        rig.fill(&area, me() as u64);
        rig.check_and_free(area, me() as u64);
        rig.vm.vm_unmap_aliases();
    }
}

const READERS: Scenario = scenario(LAZY, 1000, |rig| {
    let stays = rig.filled(2, 99);
    let stays_at = stays.range();
    let frames: Vec<_> = (0..2)
        .map(|page| {
            let at = stays_at.start.add(page * PAGE);
            rig.vm.vmalloc_to_pfn(at).expect("mapped")
        })
        .collect();
    let reader = |rig: &Rig| {
        for (page, frame) in frames.iter().enumerate() {
            let at = stays_at.start.add(page as u64 * PAGE);
            assert_eq!(rig.vm.vmalloc_to_pfn(at), Ok(*frame));
        }
        let info = rig.vm.find_vm_area(stays_at.start).expect("it stays");
        assert_eq!((info.va, info.size), (stays_at.start, 2 * PAGE));
        let mut word = [0; 8];
        assert_eq!(rig.vm.vread(stays_at.start.add(PAGE), &mut word), Ok(8));
        assert_eq!(u64::from_le_bytes(word), 99 << 16 | 1);
        let mut listed = Vec::new();
        rig.vm.vmallocinfo(|area| listed.push(*area));
        assert!(listed.is_sorted_by_key(|area| area.info.range.start));
        assert!(
            listed
                .windows(2)
                .all(|two| !two[0].info.range.overlaps(two[1].info.range))
        );
        let found = listed
            .iter()
            .find(|area| area.info.range == stays_at)
            .expect("it stays");
        assert_eq!(found.leaves.pages::<Small>(), 2);
        let mut at = rig.vm.range().start;
        let mut met = false;
        while let Some(area) = rig.vm.next_vm_area(at) {
            met |= area.va == stays_at.start;
            at = area.va.add(1);
        }
        assert!(met, "it stays");
    };
    rig.at_once(&[&churn, &churn, &reader]);
    rig.check_and_free(stays, 99);
});

#[test]
fn readers_see_what_stays_while_others_come_and_go() {
    READERS.holds();
}

const LISTED: Scenario = scenario(LAZY, 1000, |rig| {
    let reader = |rig: &Rig| (0..2).for_each(|_| rig.vm.vmallocinfo(|_| ()));
    rig.at_once(&[&churn, &churn, &reader]);
});

#[test]
fn readers_of_tables_that_go_are_noticed() {
    LISTED.catches_on(Schedules::Priorities, Plant::LooksDoNotExclude, &["BadTable"]);
}

const VREAD: Scenario = scenario(STRICT, 1500, |rig| {
    let goes = rig.filled(1, 77);
    let at = goes.range().start;
    let goes = std::sync::Mutex::new(Some(goes));
    let reader = |rig: &Rig| {
        for _ in 0..2 {
            let mut word = [0xff; 8];
            let copied = rig.vm.vread(at, &mut word).expect("in the region");
            let found = u64::from_le_bytes(word);
            match copied {
                0 => assert_eq!(found, 0, "nothing was there"),
                _ => assert!(
                    [77 << 16, 2 << 16, POISON].contains(&found),
                    "read {found:#x} at an address that never had it"
                ),
            }
        }
    };
    let freer = |rig: &Rig| {
        let area = goes
            .lock()
            .expect("no panic under this lock")
            .take()
            .expect("once");
        rig.check_and_free(area, 77);
        let elsewhere = Request::new(PAGE).aligned(64 * PAGE);
        let keep = rig.filled(1, me() as u64);
        let area = Area::from(rig.vm.allocate(&elsewhere).expect("memory suffices"));
        rig.fill(&area, 55);
        rig.check_and_free(area, 55);
        rig.check_and_free(keep, me() as u64);
    };
    rig.at_once(&[&reader, &freer]);
});

#[test]
fn vread_never_gives_what_came_after() {
    VREAD.holds();
}

const PARTS: Scenario = scenario(STRICT, 1000, |rig| {
    let memory = rig.filled(1, 99);
    let frame = rig.vm.vmalloc_to_pfn(memory.range().start).expect("mapped");
    let frames = [frame; 16];
    let area = rig.vm.get_vm_area(16 * PAGE, 8 * PAGE).expect("memory suffices");
    let area = Area::from(area);
    let range = area.range();
    let changer = |_: &Rig| {
        for _ in 0..2 {
            area.map_pages(0, &frames[..], Attributes::KERNEL_DATA)
                .expect("memory suffices");
            area.unmap_pages(0, range.size - PAGE).expect("no leaf is cut");
            area.unmap_pages(range.size - PAGE, PAGE).expect("no leaf is cut");
        }
    };
    let reader = |rig: &Rig| {
        for page in 0..16 {
            let va = range.start.add(page * PAGE);
            let seen = rig.vm.vmalloc_to_pfn(va);
            assert!(seen == Ok(frame) || seen == Err(Error::NotMapped(va)), "{seen:?}");
        }
        rig.vm.vmallocinfo(|_| ());
    };
    rig.at_once(&[&changer, &reader]);
    drop(area);
    rig.check_and_free(memory, 99);
});

#[test]
fn readers_of_parts_that_go_are_waited_for() {
    PARTS.holds();
}

#[test]
fn a_flush_of_parts_that_does_not_wait_for_readers_is_noticed() {
    PARTS.catches_on(Schedules::Priorities, Plant::NoHoldOfNothing, &["BadTable"]);
}
