//! One CPU of the model.

use crate::Model;
use crate::access::{Access, Fault};
use crate::machine::Machine;
use crate::violation::{Event, Rule};
use paging::{Granule, Mmu, Pfn, PhysAddr, Tables, TlbiRange, VirtAddr};

/// One CPU of a [`Model`], with its [`Tables`] and [`Mmu`].
#[derive(Debug)]
pub struct Cpu<'a, G: Granule> {
    model: &'a Model<G>,
    cpu: usize,
}

impl<G: Granule> Clone for Cpu<'_, G> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<G: Granule> Copy for Cpu<'_, G> {}

impl<'a, G: Granule> Cpu<'a, G> {
    pub(crate) const fn new(model: &'a Model<G>, cpu: usize) -> Self {
        Self { model, cpu }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Machine<G>, usize) -> R) -> R {
        self.model.with(|machine| f(machine, self.cpu))
    }

    /// Returns the machine.
    #[must_use]
    pub const fn model(&self) -> &'a Model<G> {
        self.model
    }

    /// Accesses `va`. It is a violation if the access may do anything but what the tables say.
    ///
    /// # Errors
    /// The fault of the current tables, which is not a violation.
    pub fn access(&self, va: VirtAddr, access: Access) -> Result<PhysAddr, Fault> {
        self.model
            .with(|machine| machine.access(self.cpu, va.0, access, false))
            .map(PhysAddr)
    }

    /// Accesses with a fault handler that retries undue faults.
    ///
    /// # Errors
    /// The fault of the current tables.
    pub fn access_with_retry(&self, va: VirtAddr, access: Access) -> Result<PhysAddr, Fault> {
        self.model
            .with(|machine| machine.access(self.cpu, va.0, access, true))
            .map(PhysAddr)
    }

    /// Returns every possible result, without judging: for races with an edit.
    #[must_use]
    pub fn possible(&self, va: VirtAddr, access: Access) -> Vec<Result<PhysAddr, Fault>> {
        let all = self.model.machine().possible(self.cpu, va.0, access);
        all.into_iter().map(|may| may.map(PhysAddr)).collect()
    }

    /// Invalidates the last level, on this CPU only.
    pub fn tlbi_vaale1(&self, va: VirtAddr) {
        self.model
            .with(|machine| machine.tlbi_va(self.cpu, va, false, true));
    }

    /// Invalidates all levels, on this CPU only.
    pub fn tlbi_vaae1(&self, va: VirtAddr) {
        self.model
            .with(|machine| machine.tlbi_va(self.cpu, va, true, true));
    }

    /// Invalidates the last level, on this CPU only.
    pub fn tlbi_rvaale1(&self, range: TlbiRange) {
        self.model
            .with(|machine| machine.tlbi_range(self.cpu, range, false, true));
    }

    /// Invalidates all levels, on this CPU only.
    pub fn tlbi_rvaae1(&self, range: TlbiRange) {
        self.model
            .with(|machine| machine.tlbi_range(self.cpu, range, true, true));
    }

    /// Invalidates everything, on this CPU only.
    pub fn tlbi_vmalle1(&self) {
        self.model.with(|machine| machine.tlbi_all(self.cpu, true));
    }
}

impl<G: Granule> Machine<G> {
    fn load(&mut self, cpu: usize, table: u64, index: usize) -> u64 {
        self.journal.counters.loads += 1;
        self.read_raw(cpu, table, index)
    }

    fn read_raw(&mut self, cpu: usize, table: u64, index: usize) -> u64 {
        self.reach_table(cpu, table + 8 * index as u64, Access::Read);
        match self.table_at(table) {
            Some(number) if index < 1 << G::INDEX_BITS => {
                let slot = self.table(number).slots[index];
                self.s.clocks.loaded(cpu, slot.fresh);
                slot.value
            }
            _ => {
                self.violate(Rule::BadTable, || {
                    format!("CPU {cpu} loads index {index} of {table:#x}, which is no table in use")
                });
                0
            }
        }
    }

    fn store_plain(&mut self, cpu: usize, table: u64, index: usize, value: u64) {
        self.journal.counters.stores += 1;
        self.reach_table(cpu, table + 8 * index as u64, Access::Write);
        self.store(cpu, table, index, value, false);
    }
}

// SAFETY: 1. `alloc` hands out zeroed pages one at a time, and judges each that comes back; 2.
// every access is to one memory under one lock; 3. overridden bulk operations access as the
// defaults do.
unsafe impl<G: Granule> Tables for Cpu<'_, G> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        self.model.with(|machine| machine.alloc(self.cpu)).map(PhysAddr)
    }

    fn free_table(&self, table: PhysAddr) {
        self.model.with(|machine| machine.free(self.cpu, table.0));
    }

    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.model.with(|machine| machine.load(self.cpu, table.0, index))
    }

    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.model
            .with(|machine| machine.store_plain(self.cpu, table.0, index, value));
    }

    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.model.with(|machine| {
            machine.journal.counters.compare_exchanges += 1;
            let found = machine.read_raw(self.cpu, table.0, index);
            if found == current {
                machine.reach_table(self.cpu, table.0 + 8 * index as u64, Access::Write);
                machine.store(self.cpu, table.0, index, new, true);
                Ok(())
            } else {
                Err(found)
            }
        })
    }

    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        self.model.with(|machine| {
            let mut value = first;
            for i in index..index + nr {
                machine.store_plain(self.cpu, table.0, i, value);
                value = value.wrapping_add(step);
            }
        });
    }

    fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
        self.model.with(|machine| {
            for (i, frame) in frames.iter().enumerate() {
                machine.store_plain(self.cpu, table.0, index + i, frame.0 << page_shift | template);
            }
        });
    }

    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        self.model.with(|machine| {
            for i in index..index + nr {
                machine.store_plain(self.cpu, table.0, i, 0);
            }
        });
    }

    fn enter_break(&self, va: VirtAddr, broken: u64, tables: &[PhysAddr]) {
        self.model.with(|machine| {
            machine.event(
                self.cpu,
                Event::EnterBreak {
                    va: va.0,
                    size: broken,
                },
            );
            let cpu = self.cpu as u8;
            let tables = tables.iter().map(|table| (cpu, table.0));
            machine.s.breaking.extend(tables);
        });
    }

    fn exit_break(&self) {
        self.model.with(|machine| {
            machine.event(self.cpu, Event::LeaveBreak);
            let cpu = self.cpu as u8;
            machine.s.breaking.retain(|(whose, _)| *whose != cpu);
        });
    }
}

impl<G: Granule> Mmu for Cpu<'_, G> {
    fn dsb_ishst(&self) {
        self.model.with(|machine| machine.dsb(self.cpu, false));
    }

    fn dsb_ish(&self) {
        self.model.with(|machine| machine.dsb(self.cpu, true));
    }

    fn isb(&self) {
        self.model.with(|machine| {
            machine.journal.counters.isb += 1;
            machine.synchronise_context(self.cpu);
        });
    }

    fn tlbi_vaale1is(&self, va: VirtAddr) {
        self.model
            .with(|machine| machine.tlbi_va(self.cpu, va, false, false));
    }

    fn tlbi_vaae1is(&self, va: VirtAddr) {
        self.model
            .with(|machine| machine.tlbi_va(self.cpu, va, true, false));
    }

    fn tlbi_rvaale1is(&self, range: TlbiRange) {
        self.model
            .with(|machine| machine.tlbi_range(self.cpu, range, false, false));
    }

    fn tlbi_rvaae1is(&self, range: TlbiRange) {
        self.model
            .with(|machine| machine.tlbi_range(self.cpu, range, true, false));
    }

    fn tlbi_vmalle1is(&self) {
        self.model.with(|machine| machine.tlbi_all(self.cpu, false));
    }

    fn has_tlbi_range(&self) -> bool {
        self.model.machine().features.tlbi_range
    }
}
