use crate::descriptor as desc;
use crate::machine::{Machine, Reach, Table};
use crate::violation::{Event, Rule};
use paging::Granule;

impl<G: Granule> Machine<G> {
    pub(crate) fn alloc(&mut self, cpu: usize) -> Option<u64> {
        let fail = match self.s.fail_alloc {
            Some(0) => {
                self.s.fail_alloc = None;
                true
            }
            Some(left) => {
                self.s.fail_alloc = Some(left - 1);
                false
            }
            None => false,
        };
        if fail || self.s.nr_tables == self.features.pool_pages {
            self.event(cpu, Event::AllocFailed);
            return None;
        }
        // For the earliest reuse.
        let vacant = if self.s.nr_tables == self.s.tables.len() {
            None
        } else {
            self.s.tables.iter().position(Option::is_none)
        };
        let number = vacant.unwrap_or_else(|| {
            self.s.tables.push(None);
            self.s.tables.len() - 1
        });
        let pa = self.address_of(number as u32);
        self.event(cpu, Event::Alloc(pa));
        let zeroed = self.s.clocks.store(cpu, false);
        let table = Table::new(1 << G::INDEX_BITS, zeroed, self.s.time);
        self.s.tables[number] = Some(Box::new(table));
        self.s.nr_tables += 1;
        self.journal.counters.allocs += 1;
        Some(pa)
    }

    pub(crate) fn free(&mut self, cpu: usize, pa: u64) {
        self.event(cpu, Event::Free(pa));
        self.journal.counters.frees += 1;
        let Some(number) = self.table_at(pa) else {
            self.violate(Rule::BadTable, || {
                format!("CPU {cpu} frees {pa:#x}, which is no table in use")
            });
            return;
        };
        let table = self.table(number);
        let (reach, level, va) = (table.reach, table.level, table.va);
        if reach == Reach::Live {
            self.violate(Rule::TableReused, || {
                format!(
                    "CPU {cpu} frees the level {level} table {pa:#x}, which is linked and translates {va:#x} on"
                )
            });
            // Walks still find it: it is kept.
            return;
        }
        if reach == Reach::Dying {
            let why = self.why_link_is_held(number);
            self.violate(Rule::TableReused, || {
                format!(
                    "CPU {cpu} frees the level {level} table {pa:#x} (va {va:#x} on) while a link to it may be \
                     held: {why}"
                )
            });
            self.put_out_of_reach(number);
            // The page gets another meaning, as just reported.
            let link = pa | desc::TABLE_OR_PAGE;
            let parent = level - 1;
            let at = va & !(desc::size::<G>(parent) - 1);
            self.s.stale.remove_if(parent, at, at, |_, old| old.value == link);
        }
        self.s.tables[number as usize] = None;
        self.s.nr_tables -= 1;
        self.s.touched.retain(|touched| touched.table != number);
        self.s.breaking.retain(|(_, table)| *table != pa);
    }

    pub(crate) fn set_root(&mut self, pa: u64, va: u64) {
        let number = self
            .table_at(pa)
            .unwrap_or_else(|| panic!("root {pa:#x} is no table in use"));
        assert!(
            self.table(number).reach == Reach::Private,
            "root {pa:#x} is linked already"
        );
        // A write of TTBR has barriers: earlier stores are certain.
        for cpu in 0..self.features.cpus {
            self.s.clocks.dsb(cpu, true, true);
            self.s.clocks.synchronise_context(cpu);
        }
        self.s.roots.push((number, va));
        let id = self.table(number).zeroed;
        self.publish(usize::from(id.cpu), number, G::ROOT_LEVEL, va, true);
    }
}
