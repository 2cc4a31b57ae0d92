use core::cell::Cell;
use core::mem::MaybeUninit;

use kernel::arch::mmu::KernelMmu;
use kernel::mm::tables::KernelTables;
use paging::{
    Config, Granule, Granule4K, Granule16K, Granule16K52, Granule64K, Half, Mmu, Pending, PhysAddr, Tables,
    TlbiRange, Tree, VirtAddr, VirtRange, mmu,
};

use crate::shim;

pub(crate) struct Log {
    next: Cell<*mut u64>,
}

pub(crate) const DSB_ISHST: u64 = 1;
pub(crate) const DSB_ISH: u64 = 2;
pub(crate) const ISB: u64 = 3;
pub(crate) const VAALE1IS: u64 = 4;
pub(crate) const VAAE1IS: u64 = 5;
pub(crate) const RVAALE1IS: u64 = 6;
pub(crate) const RVAAE1IS: u64 = 7;
pub(crate) const VMALLE1IS: u64 = 8;

impl Log {
    pub(crate) fn new(at: *mut u64) -> Self {
        Self { next: Cell::new(at) }
    }

    #[inline(always)]
    pub(crate) fn issue(&self, kind: u64, operand: u64) {
        let at = self.next.get();
        // SAFETY: the proof provides the memory, and fails an access beyond it.
        unsafe {
            at.write_volatile(kind);
            at.add(1).write_volatile(operand);
            self.next.set(at.add(2));
        }
    }
}

pub(crate) struct Logged<G> {
    pub(crate) log: Log,
    pub(crate) tlbi_range: bool,
    pub(crate) granule: core::marker::PhantomData<G>,
}

impl<G: Granule> Mmu for Logged<G> {
    #[inline(always)]
    fn dsb_ishst(&self) {
        self.log.issue(DSB_ISHST, 0);
    }
    #[inline(always)]
    fn dsb_ish(&self) {
        self.log.issue(DSB_ISH, 0);
    }
    #[inline(always)]
    fn isb(&self) {
        self.log.issue(ISB, 0);
    }
    #[inline(always)]
    fn tlbi_vaale1is(&self, va: VirtAddr) {
        self.log.issue(VAALE1IS, mmu::tlbi_va_operand(va));
    }
    #[inline(always)]
    fn tlbi_vaae1is(&self, va: VirtAddr) {
        self.log.issue(VAAE1IS, mmu::tlbi_va_operand(va));
    }
    #[inline(always)]
    fn tlbi_rvaale1is(&self, range: TlbiRange) {
        self.log.issue(RVAALE1IS, range.operand::<G>());
    }
    #[inline(always)]
    fn tlbi_rvaae1is(&self, range: TlbiRange) {
        self.log.issue(RVAAE1IS, range.operand::<G>());
    }
    #[inline(always)]
    fn tlbi_vmalle1is(&self) {
        self.log.issue(VMALLE1IS, 0);
    }
    #[inline(always)]
    fn has_tlbi_range(&self) -> bool {
        self.tlbi_range
    }
}

struct NoTables;

// SAFETY: gives no table.
unsafe impl Tables for NoTables {
    fn alloc_table(&self) -> Option<PhysAddr> {
        None
    }
    fn free_table(&self, _table: PhysAddr) {}
    fn load(&self, _table: PhysAddr, _index: usize) -> u64 {
        0
    }
    fn store(&self, _table: PhysAddr, _index: usize, _value: u64) {}
    fn compare_exchange(&self, _table: PhysAddr, _index: usize, _current: u64, _new: u64) -> Result<(), u64> {
        Ok(())
    }
}

#[repr(C)]
pub(crate) struct Question {
    start: u64,
    size: u64,
    stride: i8,
    links: bool,
    tlbi_range: bool,
    repeat_tlbi: bool,
    foreign: bool,
    flush_all_above: u32,
}

fn pending<G: Granule>(question: &Question) -> Pending<G> {
    let mut pending = Pending::new();
    let range = VirtRange::new(VirtAddr(question.start), question.size);
    pending.invalidate(range, question.stride, question.links);
    pending
}

#[inline(always)]
pub(crate) fn flush<G: Granule>(question: &Question, log: *mut u64) {
    let config = Config {
        flush_all_above: question.flush_all_above,
        repeat_tlbi: question.repeat_tlbi,
        ..Config::default()
    };
    let mmu = Logged::<G> {
        log: Log::new(log),
        tlbi_range: question.tlbi_range,
        granule: core::marker::PhantomData,
    };
    let tree = Tree::<G, _, _>::new(PhysAddr(0), Half::High, NoTables, mmu, config);
    tree.flush(pending(question), question.foreign);
}

/// Shows a proof where its fields are.
type KernelTree = Tree<Granule4K, KernelTables, KernelMmu>;

shim! {
    fn shim_has_tlbi_range(tree: &KernelTree) -> bool {
        tree.mmu().has_tlbi_range()
    }
    fn shim_repeat_tlbi(tree: &KernelTree) -> bool {
        tree.config().repeat_tlbi
    }
    fn shim_flush_all_above(tree: &KernelTree) -> u32 {
        tree.config().flush_all_above
    }
    fn shim_pending_4k(question: &Question, out: &mut MaybeUninit<Pending<Granule4K>>) {
        out.write(pending(question));
    }
    fn shim_flush_4k(question: &Question, log: *mut u64) {
        flush::<Granule4K>(question, log);
    }
    fn shim_flush_16k(question: &Question, log: *mut u64) {
        flush::<Granule16K>(question, log);
    }
    fn shim_flush_16k_52(question: &Question, log: *mut u64) {
        flush::<Granule16K52>(question, log);
    }
    fn shim_flush_64k(question: &Question, log: *mut u64) {
        flush::<Granule64K>(question, log);
    }
}
