use crate::support::{Area, ByAddress, PAGE, Plant, Rig, Scenario, me};
use crate::{LAZY, scenario};
use vmalloc::{Backend, Error};

const FAILURES: Scenario = scenario(LAZY, 1500, |rig| {
    {
        let mut ram = rig.machine().ram();
        ram.refuse_every = Some(4);
        ram.refuse_nodes_every = Some(2);
    }
    rig.machine().refuse_tables(Some(3));
    let churn = |rig: &Rig| {
        let key = me() as u64;
        for pages in [1, 9, 3] {
            match rig.vm.vmalloc(pages * PAGE) {
                Ok(area) => {
                    let area = Area::from(area);
                    rig.fill(&area, key);
                    rig.check_and_free(area, key);
                }
                Err(Error::OutOfFrames { size }) => assert_eq!(size, pages * PAGE),
                Err(Error::OutOfNodes | Error::Map(paging::Error::OutOfTables(_))) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    let map = |rig: &Rig| {
        let frames: Vec<_> = (0..2).filter_map(|_| rig.machine().alloc_frames(0)).collect();
        match rig.vm.vm_map_ram(&frames[..]) {
            Ok(va) => rig
                .vm
                .raw()
                .vm_unmap_ram(va, frames.len() as u64)
                .expect("mapped"),
            Err(Error::Empty) => assert!(frames.is_empty()),
            Err(Error::OutOfNodes | Error::Map(paging::Error::OutOfTables(_))) => {}
            Err(other) => panic!("{other}"),
        }
        for frame in frames {
            rig.machine().free_frames(frame, 0);
        }
    };
    rig.at_once(&[&churn, &churn, &map]);
    let mut ram = rig.machine().ram();
    ram.refuse_every = None;
    ram.refuse_nodes_every = None;
    drop(ram);
    rig.machine().refuse_tables(None);
});

#[test]
fn whatever_fails_beside_others_leaves_nothing_behind() {
    FAILURES.holds_where_some_spin();
}

#[test]
fn a_frame_that_is_lost_is_noticed() {
    FAILURES.catches(Plant::FramesLeak, &["frames leaked"]);
}
