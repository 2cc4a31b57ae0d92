use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const MAX_CPUS: u32 = 4096;
const ALONE: Machine = Machine { cpus: 1, lazy: 0 };

fn text(lines: &[&str]) -> String {
    let mut text = String::from(HEADER);
    text.push('\n');
    for line in lines {
        text += line;
        text.push('\n');
    }
    text
}

fn parsed(lines: &[&str]) -> Trace {
    Trace::parse(text(lines).as_bytes(), MAX_CPUS).unwrap()
}

#[test]
fn every_malformed_trace_is_refused_with_its_line_and_the_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/traces/refused");
    let mut nr = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            let trace = fs::read(&path).unwrap();
            let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
            let error = Trace::parse(&trace, MAX_CPUS).expect_err(path.to_str().unwrap());
            assert_eq!(error.to_string(), expected.trim_end(), "{path:?}");
            nr += 1;
        }
    }
    assert!(nr >= 30, "{nr} malformed traces");
}

#[test]
fn a_guard_page_is_taken_off_where_the_size_has_one() {
    let trace = parsed(&[
        "1,0,alloc,7,20480,32768,stack",
        "2,3,alloc,8,589824,4096,percpu",
        "3,1,free,7,20480,32768,stack",
        "4,0,purge,0,1,20480,unmap_aliases",
    ]);
    let area = |id, kind, size, align, line| Area {
        id,
        kind,
        size,
        align,
        line,
    };
    assert_eq!(
        trace.areas,
        [
            area(7, Kind::Stack, 16384, 32768, 2),
            area(8, Kind::Percpu, 589_824, 4096, 3)
        ]
    );
    let event = |line, cpu, action| Event { line, cpu, action };
    assert_eq!(
        trace.events,
        [
            event(2, 0, Action::Alloc(0)),
            event(3, 3, Action::Alloc(1)),
            event(4, 1, Action::Free(0)),
            event(5, 0, Action::Purge(PurgeKind::UnmapAliases)),
        ]
    );
    assert_eq!((trace.nr_cpus, trace.nr_pre, trace.nr_skipped), (4, 0, 0));
}

#[test]
fn areas_that_live_at_the_start_are_no_events_and_may_be_freed() {
    let trace = parsed(&[
        "0,0,pre,1,8192,1,vmalloc",
        "0,2,pre,2,8192,1,vmap",
        "1,1,free,2,8192,1,vmap",
    ]);
    assert_eq!((trace.nr_pre, trace.areas.len(), trace.events.len()), (2, 2, 1));
    assert_eq!(trace.events[0].action, Action::Free(1));
    let need = trace.need(4, ALONE);
    assert_eq!((need.peak_areas, need.left_areas, need.peak_ram), (2, 1, 8192));
}

#[test]
fn a_trace_of_the_header_alone_is_one_of_nothing() {
    let trace = parsed(&[]);
    assert_eq!((trace.events.len(), trace.nr_cpus), (0, 1));
    assert_eq!(trace.need(1, ALONE).peak_bytes, 0);
}

const BLOCKS: [&str; 6] = [
    "1,0,alloc,1,4194304,4194304,vmap_block",
    "2,0,alloc,2,1048576,1,vm_map_ram_area",
    "3,0,alloc,4,8192,1,vmalloc",
    "4,0,free,2,1048576,1,vm_map_ram_area",
    "5,0,free,4,8192,1,vmalloc",
    "6,0,free,1,4194304,4194304,vmap_block",
];

#[test]
fn blocks_are_left_out_beside_the_calls_that_they_serve() {
    let mut lines = BLOCKS.to_vec();
    lines.insert(2, "3,0,alloc,3,16384,1,vm_map_ram");
    let trace = parsed(&lines);
    let ids: Vec<u64> = trace.areas.iter().map(|area| area.id).collect();
    assert_eq!(ids, [3, 4]);
    let actions: Vec<Action> = trace.events.iter().map(|event| event.action).collect();
    assert_eq!(actions, [Action::Alloc(0), Action::Alloc(1), Action::Free(1)]);
    assert_eq!(trace.nr_skipped, 4);
}

#[test]
fn blocks_are_kept_where_there_are_no_calls() {
    let trace = parsed(&BLOCKS);
    assert_eq!(
        (trace.areas.len(), trace.events.len(), trace.nr_skipped),
        (3, 6, 0)
    );
}

#[test]
fn the_need_counts_ram_and_not_devices() {
    let trace = parsed(&[
        "1,0,alloc,1,268439552,268435456,ioremap",
        "2,0,alloc,2,1052672,1,vmalloc",
        "3,0,free,2,1052672,1,vmalloc",
        "4,0,alloc,3,528384,1,vmap",
    ]);
    let need = trace.need(5, ALONE);
    assert_eq!(need.peak_bytes, (256 << 20) + (1 << 20));
    assert_eq!((need.peak_ram, need.ram), (1 << 20, 1 << 20));
    assert_eq!((need.peak_areas, need.left_areas), (2, 2));
    let more = trace.need(5, Machine { cpus: 2, lazy: 0 });
    assert_eq!(
        more.ram,
        (1 << 20) + (512 << 10),
        "one CPU may be ahead of the other's free"
    );
    let lazy = Machine {
        cpus: 1,
        lazy: 32 << 20,
    };
    assert!(trace.need(5, lazy).free_ram >= need.free_ram + (32 << 20));
}

fn sound(seeds: &[(Index, bool, Kind, u64, u32)]) -> (String, BTreeMap<u64, u64>) {
    let mut text = text(&[]);
    let mut live: Vec<(u64, Kind, u64)> = Vec::new();
    let mut id = 0;
    for (seq, (pick, free, kind, pages, cpu)) in (1..).zip(seeds) {
        if *free && !live.is_empty() {
            let (id, kind, size) = live.swap_remove(pick.index(live.len()));
            writeln!(text, "{seq},{cpu},free,{id},{size},1,{}", kind.name()).unwrap();
        } else {
            id += 1;
            let size = (pages + 1) * PAGE;
            live.push((id, *kind, size));
            writeln!(text, "{seq},{cpu},alloc,{id},{size},1,{}", kind.name()).unwrap();
        }
    }
    let live = live
        .into_iter()
        .map(|(id, kind, size)| (id, if kind.has_guard() { size - PAGE } else { size }));
    (text, live.collect())
}

fn seeds() -> impl Strategy<Value = Vec<(Index, bool, Kind, u64, u32)>> {
    let kinds: Vec<Kind> = Kind::ALL
        .iter()
        .copied()
        .filter(|kind| !matches!(kind, Kind::VmapBlock | Kind::VmMapRamArea))
        .collect();
    let event = (
        any::<Index>(),
        any::<bool>(),
        select(kinds),
        1u64..500,
        0u32..MAX_CPUS,
    );
    prop::collection::vec(event, 0..600)
}

fn perform(trace: &Trace, window: usize, picks: &[Index]) -> u64 {
    let (mut held, mut most) = (0, 0);
    let mut done = std::vec![false; trace.events.len()];
    let mut made = std::vec![false; trace.areas.len()];
    let mut picks = picks.iter().cycle();
    loop {
        let Some(low) = done.iter().position(|done| !done) else {
            return most;
        };
        // The last of several picks, so that CPUs run far ahead.
        let ready: Vec<usize> = (low..trace.events.len().min(low + window))
            .filter(|&index| !done[index])
            .filter(|&index| match trace.events[index].action {
                Action::Free(area) => made[area as usize],
                _ => true,
            })
            .collect();
        let index = (0..3)
            .map(|_| ready[picks.next().unwrap().index(ready.len())])
            .max()
            .unwrap();
        done[index] = true;
        let event = &trace.events[index];
        match event.action {
            Action::Alloc(area) => {
                made[area as usize] = true;
                held += trace.areas[area as usize].ram();
            }
            Action::Free(area) => held -= trace.areas[area as usize].ram(),
            Action::Purge(_) => {}
        }
        most = most.max(held);
    }
}

proptest! {
    #[test]
    fn whatever_the_bytes_a_trace_is_read_or_refused_on_one_of_its_lines(bytes in prop::collection::vec(any::<u8>(), 0..300), header: bool) {
        let mut trace = if header { text(&[]).into_bytes() } else { Vec::new() };
        trace.extend(bytes);
        if let Err(error) = Trace::parse(&trace, MAX_CPUS) {
            let lines = trace.split(|byte| *byte == b'\n').count();
            prop_assert!((1..=lines as u32).contains(&error.line));
            prop_assert!(error.to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }

    #[test]
    fn a_sound_trace_with_one_byte_changed_is_read_or_refused(seeds in seeds(), at: Index, byte in select(b"0123456789,\nabz\xff".to_vec())) {
        let mut trace = sound(&seeds).0.into_bytes();
        let at = at.index(trace.len());
        trace[at] = byte;
        if let Ok(trace) = Trace::parse(&trace, MAX_CPUS) {
            let mut live = std::vec![0u8; trace.areas.len()];
            for event in &trace.events {
                match event.action {
                    Action::Alloc(area) => { prop_assert_eq!(live[area as usize], 0); live[area as usize] = 1; }
                    Action::Free(area) => { prop_assert_eq!(live[area as usize], 1); live[area as usize] = 2; }
                    Action::Purge(_) => {}
                }
            }
        }
    }

    #[test]
    fn what_lives_in_the_end_is_what_was_made_and_not_freed(seeds in seeds()) {
        let (text, live) = sound(&seeds);
        let trace = Trace::parse(text.as_bytes(), MAX_CPUS).unwrap();
        let mut left: BTreeMap<u64, u64> = BTreeMap::new();
        for event in &trace.events {
            match event.action {
                Action::Alloc(area) => { let area = &trace.areas[area as usize]; left.insert(area.id, area.size); }
                Action::Free(area) => { prop_assert!(left.remove(&trace.areas[area as usize].id).is_some()); }
                Action::Purge(_) => {}
            }
        }
        prop_assert_eq!(trace.need(0, ALONE).left_areas, left.len());
        prop_assert_eq!(left, live);
        prop_assert_eq!(trace.events.len(), seeds.len());
    }

    #[test]
    fn no_order_that_the_window_allows_holds_more_than_the_need_says(seeds in seeds(), picks in prop::collection::vec(any::<Index>(), 1..200)) {
        let text = sound(&seeds).0;
        let trace = Trace::parse(text.as_bytes(), MAX_CPUS).unwrap();
        let alone = trace.need(0, ALONE);
        prop_assert_eq!(perform(&trace, 1, &picks), alone.peak_ram);
        prop_assert_eq!(alone.ram, alone.peak_ram);
        let many = trace.need(0, Machine { cpus: 4, lazy: 0 });
        prop_assert!(perform(&trace, WINDOW, &picks) <= many.ram);
    }
}
