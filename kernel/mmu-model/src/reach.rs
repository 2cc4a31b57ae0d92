use crate::clock::StoreId;
use crate::descriptor::{self as desc, Entry};
use crate::machine::{Machine, Reach, is_group};
use crate::violation::Rule;
use paging::Granule;

impl<G: Granule> Machine<G> {
    pub(crate) fn cut(&mut self, number: u32, id: StoreId) {
        let table = self.table_mut(number);
        if !matches!(table.reach, Reach::Live | Reach::Dying) {
            return;
        }
        table.cuts.push(id);
        let was_live = table.reach == Reach::Live;
        table.reach = Reach::Dying;
        self.frames = None;
        let table = self.table(number);
        let level = table.level;
        for index in 0..desc::entries::<G>(level) {
            let value = self.read(number, index);
            if !desc::cacheable::<G>(level, value) {
                continue;
            }
            if was_live {
                let va = self.slot_va(number, index);
                let stored_at = self.table(number).slots[index].stored_at;
                self.remember(number, level, va, value, stored_at, None);
            }
            if let Some(child) = self.linked_table(level, value) {
                self.cut(child, id);
            }
        }
    }

    pub(crate) fn link(&mut self, cpu: usize, parent: u32, child: u32, va: u64, release: bool) {
        let level = self.table(parent).level + 1;
        let table = self.table(child);
        let pa = self.address_of(child);
        match table.reach {
            Reach::Live => {
                let (was, at) = (table.level, table.va);
                self.violate(Rule::LinkedTwice, || {
                    format!(
                        "CPU {cpu} links table {pa:#x} at level {} for {va:#x}; it is linked as level {was} for {at:#x}",
                        level - 1
                    )
                });
                return;
            }
            Reach::Dying if table.level == level && table.va == va => {
                self.revive(child);
                return;
            }
            Reach::Dying => {
                let (was, at) = (table.level, table.va);
                let why = self.why_link_is_held(child);
                self.violate(Rule::LinkedTwice, || {
                    format!(
                        "CPU {cpu} links table {pa:#x} for {va:#x} while a link to it as level {was} for {at:#x} may \
                         be held: {why}"
                    )
                });
                self.put_out_of_reach(child);
            }
            Reach::Private | Reach::Gone => {}
        }
        self.publish(cpu, child, level, va, release);
        if self.table(parent).reach == Reach::Dying {
            let cuts = self.table(parent).cuts.clone();
            for cut in cuts {
                self.cut(child, cut);
            }
        }
    }

    pub(crate) fn publish(&mut self, cpu: usize, number: u32, level: i8, va: u64, release: bool) {
        self.check_contents_seen(cpu, number, level, va, release);
        let table = self.table_mut(number);
        table.level = level;
        table.va = va;
        table.reach = Reach::Live;
        table.cuts.clear();
        table.contiguous = 0;
        let entries = desc::entries::<G>(level);
        if G::cont_shift(level) != 0 {
            table.contiguous = table.slots[..entries]
                .iter()
                .filter(|slot| is_group::<G>(level, desc::normalise::<G>(level, slot.value)))
                .count() as u32;
        }
        if table.slots[..entries].iter().all(|slot| slot.value == 0) {
            return;
        }
        self.frames = None;
        for index in 0..entries {
            let raw = self.table(number).slots[index].value;
            if let Some(defect) = desc::defect::<G>(level, raw, self.features.table_res0_ignored) {
                self.violate(Rule::MalformedDescriptor, || {
                    format!("CPU {cpu} publishes {raw:#018x} at level {level}: {defect}")
                });
            }
            let value = self.read(number, index);
            if value == 0 {
                continue;
            }
            if is_group::<G>(level, value) {
                self.touch(cpu, number, level, index);
            }
            let at = self.slot_va(number, index);
            match desc::decode::<G>(level, value) {
                Entry::Invalid => {}
                Entry::Leaf(leaf) => self.judge_leaf(cpu, number, index, at, leaf),
                Entry::Table(pa) => {
                    self.judge_link(cpu, number, index, at, value);
                    match self.table_at(pa) {
                        Some(child) if self.table(child).reach == Reach::Live => {
                            self.violate(Rule::LinkedTwice, || {
                                format!("CPU {cpu} publishes a second link to table {pa:#x}, for {at:#x}")
                            });
                        }
                        Some(child) => self.publish(cpu, child, level + 1, at, release),
                        None => self.violate(Rule::NotATable, || {
                            format!("CPU {cpu} publishes a link to {pa:#x} for {at:#x}: no table in use")
                        }),
                    }
                }
            }
        }
    }

    /// Rule 2: a walk that sees the link sees the zeroing. A release store orders all that the CPU
    /// stored or observed, a plain one what a barrier ordered or a DSB made certain.
    fn check_contents_seen(&mut self, cpu: usize, number: u32, level: i8, va: u64, release: bool) {
        let table = self.table(number);
        if table.reach == Reach::Gone && table.rewritten.is_none() {
            return;
        }
        let before = self.s.clocks.before(cpu, release);
        let seen = |store: StoreId| self.s.clocks.certain().has(store) || before.has(store);
        let early = if !seen(table.zeroed) {
            Some((table.zeroed, "its zeroing"))
        } else {
            table
                .rewritten
                .filter(|store| !seen(*store))
                .map(|store| (store, "a descriptor rewritten in it"))
        };
        if let Some((store, what)) = early {
            let pa = self.address_of(number);
            let how = if release { "" } else { " by a plain store" };
            self.violate(Rule::LinkedTooEarly, || {
                format!(
                    "CPU {cpu} links the level {level} table {pa:#x} for {va:#x}{how}, but {what}, stored by CPU {}, is \
                     neither complete (DSB) nor ordered before the link (DMB, release): a walk may read what was in that \
                     memory before",
                    store.cpu
                )
            });
        }
    }

    fn revive(&mut self, number: u32) {
        let table = self.table_mut(number);
        table.reach = Reach::Live;
        table.cuts.clear();
        let (level, va) = (table.level, table.va);
        self.frames = None;
        let last = va.wrapping_add((desc::size::<G>(level) << G::INDEX_BITS) - 1);
        let mut children = Vec::new();
        let mut nr = Vec::new();
        self.s.stale.remove_if(level, va, last, |_, old| {
            let stands = old.table == number && old.gone.is_none();
            if stands {
                nr.push(old.value);
            }
            stands
        });
        for value in nr {
            if let Some(child) = self.linked_table(level, value) {
                self.table_mut(child).stale_links -= 1;
                children.push(child);
            }
        }
        for child in children {
            if self.table(child).reach == Reach::Dying {
                self.revive(child);
            }
        }
    }

    pub(crate) fn put_out_of_reach(&mut self, number: u32) {
        let time = self.s.time;
        let table = self.table_mut(number);
        table.reach = Reach::Gone;
        table.stale_links = 0;
        // Later stores must be seen again.
        table.rewritten = None;
        let cut = table.cuts.first().copied();
        let (level, va) = (table.level, table.va);
        let last = va.wrapping_add((desc::size::<G>(level) << G::INDEX_BITS) - 1);
        for (_, old) in self.s.stale.range_mut(level, va, last) {
            if old.table == number {
                old.table = u32::MAX;
                old.dead_at = Some(time);
                old.cut = cut;
            }
        }
    }
}
