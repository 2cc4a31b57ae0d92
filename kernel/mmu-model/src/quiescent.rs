use crate::clock::StoreId;
use crate::descriptor::{self as desc, Entry};
use crate::machine::Machine;
use paging::Granule;

impl<G: Granule> Machine<G> {
    pub(crate) fn not_quiescent(&self) -> Option<String> {
        if let Some((level, va, old)) = self.s.stale.iter().next() {
            let nr = self.s.stale.len();
            return Some(format!(
                "{nr} stale entries may be held, the first: {}",
                self.why_held(level, va, old)
            ));
        }
        if let Some(tlbi) = self.s.pending.first() {
            return Some(format!(
                "the TLBI of event #{} waits for a DSB ISH of CPU {}",
                tlbi.issued_at, tlbi.cpu
            ));
        }
        let certain = |(cpu, number): (usize, &u32)| {
            let cpu = cpu as u8;
            self.s.clocks.certain().has(StoreId {
                cpu,
                release: false,
                number: *number,
            })
        };
        if !self.s.last_seen_store.iter().enumerate().all(certain) {
            return Some("a walk may miss stores that no DSB has completed".into());
        }
        if let Some(touched) = self.s.touched.first() {
            return Some(format!(
                "CPU {} has written into a group, and no DSB has completed that",
                touched.store.cpu
            ));
        }
        None
    }

    pub(crate) fn canonical(&self) -> Vec<u64> {
        let mut words = vec![self.s.nr_tables as u64];
        for (root, va) in &self.s.roots {
            words.push(*va);
            self.canonical_below(*root, &mut words);
        }
        if self.not_quiescent().is_some() {
            self.canonical_pending(&mut words);
        }
        words
    }

    fn canonical_below(&self, number: u32, words: &mut Vec<u64>) {
        let table = self.table(number);
        for index in 0..desc::entries::<G>(table.level) {
            let raw = table.slots[index].value;
            match desc::decode::<G>(table.level, raw) {
                Entry::Table(pa) => {
                    words.push(raw & !desc::with_address::<G>(!(G::PAGE_SIZE - 1)));
                    if let Some(child) = self.table_at(pa) {
                        self.canonical_below(child, words);
                    }
                }
                _ => words.push(raw),
            }
        }
    }

    fn canonical_pending(&self, words: &mut Vec<u64>) {
        words.push(u64::MAX);
        for (level, va, old) in self.s.stale.iter() {
            let store = |id: Option<StoreId>| {
                id.map_or(0, |id| u64::from(id.cpu) << 32 | u64::from(id.number) | 1 << 63)
            };
            words.extend([
                level as u64,
                va,
                old.value,
                u64::from(old.table),
                store(old.gone),
                store(old.last),
                store(old.cut),
                old.dead_at.map_or(0, |at| u64::from(at) | 1 << 63),
                u64::from(old.held) << 8 | u64::from(old.held_as_group),
            ]);
        }
        words.push(self.s.pending.len() as u64);
        for tlbi in &self.s.pending {
            words.extend([tlbi.cpu as u64, tlbi.first, tlbi.last, u64::from(tlbi.issued_at)]);
        }
        words.push(u64::from(self.s.time));
    }
}
