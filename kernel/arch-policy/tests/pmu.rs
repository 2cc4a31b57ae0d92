use arch_policy::pmu::{Event, Lack, assign, has_long_counters, version, with_overflow};

/// The common events of Armv8.0.
const FIRST: [u64; 2] = [0x7fff_0f3f, 0];

fn bits(events: &[Event]) -> [u64; 2] {
    events.iter().fold([0; 2], |mut pmceid, event| {
        pmceid[*event as usize / 32] |= 1 << (*event as usize % 32);
        pmceid
    })
}

#[test]
fn an_event_from_32_on_is_in_the_second_register() {
    assert!(Event::L2TlbRefills.is_in([0, 1 << 13]));
    assert!(Event::Walks.is_in([0, 1 << 20]));
    assert!(!Event::Walks.is_in([u64::MAX, !(1 << 20)]));
    assert!(Event::Instructions.is_in([1 << 8, 0]));
    assert!(!Event::Instructions.is_in([1 << 40, u64::MAX]));
}

#[test]
fn what_the_pmu_lacks_takes_no_counter() {
    let found = assign(6, FIRST);
    assert_eq!(
        found,
        [Ok(0), Ok(1), Ok(2), Err(Lack::NoEvent), Err(Lack::NoEvent)]
    );
    assert_eq!(assign(6, [0; 2]), [Err(Lack::NoEvent); 5]);
}

#[test]
fn events_beyond_the_counters_are_named_and_not_counted_twice() {
    for counters in 0..=6 {
        let found = assign(counters, bits(&Event::ALL));
        let assigned: Vec<u8> = found.iter().filter_map(|found| found.ok()).collect();
        assert_eq!(assigned, (0..counters.min(5)).collect::<Vec<_>>());
        let others = found.iter().filter(|found| **found == Err(Lack::NoCounter));
        assert_eq!(others.count(), 5 - assigned.len());
    }
}

#[test]
fn versions_that_are_not_arms_are_none() {
    assert_eq!(version(0), None);
    assert_eq!(version(0xf), None);
    assert_eq!(version(4), Some("PMUv3p1"));
    assert!(!has_long_counters(5) && has_long_counters(6) && !has_long_counters(0xf));
}

#[test]
fn an_overflow_is_the_33rd_bit() {
    assert_eq!(with_overflow(0xffff_ffff, false), 0xffff_ffff);
    assert_eq!(with_overflow(5, true), 0x1_0000_0005);
    assert_eq!(with_overflow(0x1_0000_0005, true), 0x1_0000_0005);
}
