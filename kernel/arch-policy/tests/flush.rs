use arch_policy::flush;
use paging::VirtAddr;
use paging::mmu::{MmuEvent, NoMmu, Tracing};
use std::cell::RefCell;

const VA: VirtAddr = VirtAddr(0xffff_ffff_0000_3000);

fn events(run: impl FnOnce(&Tracing<NoMmu, &dyn Fn(MmuEvent)>)) -> Vec<MmuEvent> {
    let events = RefCell::new(Vec::new());
    let sink = |event| events.borrow_mut().push(event);
    run(&Tracing::new(NoMmu::default(), &sink));
    events.into_inner()
}

#[test]
fn a_page_is_invalidated_once_and_completely() {
    use MmuEvent::{DsbIsh, DsbIshst, Isb, TlbiAllLevels};
    let found = events(|mmu| flush::page(mmu, VA, false));
    assert_eq!(found, [DsbIshst, TlbiAllLevels(VA), DsbIsh, Isb]);
}

#[test]
fn where_an_erratum_asks_for_it_the_tlbi_is_repeated() {
    use MmuEvent::{DsbIsh, DsbIshst, Isb, TlbiAll, TlbiAllLevels};
    let found = events(|mmu| flush::page(mmu, VA, true));
    let twice = [
        DsbIshst,
        TlbiAllLevels(VA),
        DsbIsh,
        TlbiAllLevels(VA),
        DsbIsh,
        Isb,
    ];
    assert_eq!(found, twice);
    let found = events(|mmu| flush::all(mmu, true));
    assert_eq!(found, [DsbIshst, TlbiAll, DsbIsh, TlbiAll, DsbIsh, Isb]);
    assert_eq!(events(|mmu| flush::all(mmu, false)).len(), 4);
}
