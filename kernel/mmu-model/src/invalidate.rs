//! Barriers and TLBIs. A TLBI is complete at its CPU's next DSB ISH (Arm ARM D8.16), and may act at
//! any moment before.

use crate::clock::Clock;
use crate::descriptor::{self as desc, Entry, PXN};
use crate::machine::{Machine, Reach, State};
use crate::stale::{CpuMask, Miss, Old};
use crate::violation::{Event, Rule};
use paging::{Granule, TlbiRange, VirtAddr};

#[derive(Clone, Debug, Hash)]
pub(crate) struct Tlbi {
    pub(crate) cpu: usize,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) all_levels: bool,
    pub(crate) local: bool,
    pub(crate) issued_at: u32,
    /// Complete when it was issued.
    known: Clock,
    since: u32,
}

/// A CPU without an ISB since may have translated ahead with it.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Ghost {
    pub(crate) cpu: u8,
    pub(crate) level: i8,
    pub(crate) as_group: bool,
    /// The DSB waits for another CPU's accesses, not for what it has fetched.
    pub(crate) fetch_only: bool,
    pub(crate) va: u64,
    pub(crate) value: u64,
}

/// Those above copy bit 55.
fn decode_va_operand<G: Granule>(operand: u64) -> u64 {
    let va = operand << 12;
    ((va << 8) as i64 >> 8) as u64 & !(G::PAGE_SIZE - 1)
}

/// First address, pages and TG (Arm ARM C5.5, TLBI RVAE1IS).
fn decode_range_operand<G: Granule>(operand: u64) -> (u64, u64, u64) {
    let base = operand & ((1 << 37) - 1);
    let extended = ((base << 27) as i64 >> 27) as u64;
    let num = operand >> 39 & 0x1f;
    let scale = operand >> 44 & 0x3;
    let tg = operand >> 46 & 0x3;
    let unit = if desc::has_shareability::<G>() {
        G::PAGE_SHIFT
    } else {
        16
    };
    (extended << unit, (num + 1) << (5 * scale + 1), tg)
}

impl<G: Granule> Machine<G> {
    pub(crate) fn dsb(&mut self, cpu: usize, loads: bool) {
        self.event(cpu, if loads { Event::DsbIsh } else { Event::DsbIshst });
        let counters = &mut self.journal.counters;
        *(if loads {
            &mut counters.dsb_ish
        } else {
            &mut counters.dsb_ishst
        }) += 1;
        self.s.clocks.dsb(cpu, loads, self.features.ets2);
        self.judge_touched_groups(cpu);
        if loads {
            self.complete(cpu);
        }
        self.s.last_dsb[cpu] = self.s.time;
    }

    pub(crate) fn dmb(&mut self, cpu: usize, loads: bool) {
        self.event(cpu, if loads { Event::DmbIsh } else { Event::DmbIshst });
        self.s.clocks.dmb(cpu);
    }

    pub(crate) fn synchronise_context(&mut self, cpu: usize) {
        self.event(cpu, Event::ContextSynchronised);
        self.s.clocks.synchronise_context(cpu);
        self.s.ghosts.retain(|ghost| usize::from(ghost.cpu) != cpu);
    }

    pub(crate) fn hand_over(&mut self, from: usize, to: usize) {
        self.event(from, Event::HandOver { to });
        assert!(to < self.features.cpus, "no CPU {to}");
        self.s.clocks.hand_over(from, to, self.features.ets2);
    }

    pub(crate) fn acquire(&mut self, cpu: usize, released: &Clock) {
        self.event(cpu, Event::Acquire);
        self.s.clocks.acquire(cpu, released, self.features.ets2);
    }

    pub(crate) fn tlbi_va(&mut self, cpu: usize, va: VirtAddr, all_levels: bool, local: bool) {
        self.journal.counters.tlbi_va += 1;
        let first = decode_va_operand::<G>(paging::mmu::tlbi_va_operand(va));
        if first != va.0 {
            self.violate(Rule::TlbiOperand, || {
                format!("CPU {cpu}: TLBI by VA for {va:?} is encoded as {first:#x}")
            });
        }
        let last = first | (G::PAGE_SIZE - 1);
        self.issue(cpu, first, last, all_levels, local);
    }

    pub(crate) fn tlbi_range(&mut self, cpu: usize, range: TlbiRange, all_levels: bool, local: bool) {
        self.journal.counters.tlbi_range += 1;
        if !self.features.tlbi_range {
            self.violate(Rule::TlbiOperand, || {
                format!("CPU {cpu}: {range:?} without FEAT_TLBIRANGE is undefined")
            });
            return;
        }
        let (first, pages, tg) = decode_range_operand::<G>(range.operand::<G>());
        let expected_tg = match G::PAGE_SHIFT {
            12 => 0b01,
            14 => 0b10,
            _ => 0b11,
        };
        if tg != expected_tg || first != range.start.0 || pages != range.pages() {
            self.violate(Rule::TlbiOperand, || {
                format!("CPU {cpu}: {range:?} is encoded as {pages} pages from {first:#x} with TG {tg}")
            });
        }
        if tg != expected_tg {
            return;
        }
        let last = first.wrapping_add((pages << G::PAGE_SHIFT) - 1);
        let last = if last < first { u64::MAX } else { last };
        self.issue(cpu, first, last, all_levels, local);
    }

    pub(crate) fn tlbi_all(&mut self, cpu: usize, local: bool) {
        self.journal.counters.tlbi_all += 1;
        self.issue(cpu, 0, u64::MAX, true, local);
    }

    fn issue(&mut self, cpu: usize, first: u64, last: u64, all_levels: bool, local: bool) {
        self.event(
            cpu,
            Event::Tlbi {
                first,
                last,
                all_levels,
                local,
            },
        );
        let tlbi = Tlbi {
            cpu,
            first,
            last,
            all_levels,
            local,
            issued_at: self.s.time,
            known: *self.s.clocks.known(cpu),
            since: self.s.last_dsb[cpu],
        };
        self.lint_leading_dsb(&tlbi);
        self.s.pending.push(tlbi);
    }

    /// It stays only for want of a DSB.
    fn lint_leading_dsb(&mut self, tlbi: &Tlbi) {
        if self.s.stale.is_empty() || self.s.clocks.knows_own(tlbi.cpu) {
            return;
        }
        let with_own = tlbi.known.with(tlbi.cpu, self.s.clocks.last(tlbi.cpu));
        let mut found = None;
        for level in G::ROOT_LEVEL..=3 {
            let size = desc::size::<G>(level) - 1;
            found = self
                .s
                .stale
                .range(level, tlbi.first & !size, tlbi.last)
                .find(|(_, old)| {
                    let link = level < 3 && matches!(desc::decode::<G>(level, old.value), Entry::Table(_));
                    let cuts = self.cuts_of(old);
                    (tlbi.all_levels || !link)
                        && !old.removable(&tlbi.known, tlbi.since, tlbi.all_levels, cuts)
                        && old.removable(&with_own, tlbi.since, tlbi.all_levels, cuts)
                })
                .map(|(va, old)| (level, va, *old));
            if found.is_some() {
                break;
            }
        }
        if let Some((level, va, old)) = found {
            let what = self.why_held(level, va, &old);
            let cpu = tlbi.cpu;
            self.violate(Rule::TlbiBeforeDsb, || {
                format!("CPU {cpu} issues a TLBI with no DSB since its store: a walk may bring back {what}")
            });
        }
    }

    fn cuts_of(&self, old: &Old) -> &[crate::clock::StoreId] {
        match self.s.tables.get(old.table as usize) {
            Some(Some(table)) => &table.cuts,
            _ => &[],
        }
    }

    fn complete(&mut self, cpu: usize) {
        if self.s.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.s.pending);
        let mut unheld = Vec::new();
        for tlbi in pending {
            if tlbi.cpu == cpu {
                self.apply(&tlbi, &mut unheld);
            } else {
                self.s.pending.push(tlbi);
            }
        }
        // Last: any of the TLBIs may have acted first.
        for value in unheld {
            let Some(table) = self.table_at(desc::address::<G>(value)) else {
                continue;
            };
            let child = self.table_mut(table);
            child.stale_links = child.stale_links.saturating_sub(1);
            if child.stale_links == 0 && child.reach == Reach::Dying {
                self.put_out_of_reach(table);
            }
        }
    }

    fn apply(&mut self, tlbi: &Tlbi, unheld: &mut Vec<u64>) {
        if self.s.stale.is_empty() {
            return;
        }
        let all = self.all_cpus();
        let targets: CpuMask = if tlbi.local { 1 << tlbi.cpu } else { all };
        let State {
            stale,
            tables,
            ghosts,
            ..
        } = &mut self.s;
        let features = &self.features;
        for level in G::ROOT_LEVEL..=3 {
            let group = desc::group_size::<G>(level) - 1;
            let size = desc::size::<G>(level);
            let (first, last) = (tlbi.first & !group, tlbi.last | group);
            stale.remove_if(level, first, last, |va, old| {
                let link = matches!(desc::decode::<G>(level, old.value), Entry::Table(_));
                let matches = va <= tlbi.last && tlbi.first <= va | (size - 1);
                if !matches && old.held_as_group & targets == 0 {
                    return false;
                }
                let cuts: &[_] = match tables.get(old.table as usize) {
                    Some(Some(table)) => &table.cuts,
                    _ => &[],
                };
                let removable = old.removable(&tlbi.known, tlbi.since, tlbi.all_levels, cuts);
                if link && !tlbi.all_levels {
                    old.miss = Some((Miss::LastLevelOnly, tlbi.issued_at));
                    return false;
                }
                if !removable {
                    if matches {
                        let later = !tlbi.all_levels && old.removable(&tlbi.known, tlbi.since, true, cuts);
                        let miss = if later {
                            Miss::LastLevelOnly
                        } else {
                            Miss::NotComplete
                        };
                        old.miss = Some((miss, tlbi.issued_at));
                    }
                    return false;
                }
                let as_group = old.held_as_group & targets != 0;
                old.held_as_group &= !targets;
                if !matches {
                    return false;
                }
                let lost = old.held & targets;
                old.held &= !targets;
                let fetchable = !link && old.value & PXN == 0;
                for holder in (0..features.cpus).filter(|holder| lost & 1 << holder != 0) {
                    if holder == tlbi.cpu || fetchable {
                        ghosts.push(Ghost {
                            cpu: holder as u8,
                            level,
                            as_group,
                            fetch_only: holder != tlbi.cpu,
                            va,
                            value: old.value,
                        });
                    }
                }
                if old.held != 0 {
                    if tlbi.local {
                        old.miss = Some((Miss::Local, tlbi.issued_at));
                    }
                    return false;
                }
                if link {
                    unheld.push(old.value);
                }
                true
            });
        }
    }
}
