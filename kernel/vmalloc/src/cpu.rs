//! What each CPU keeps for itself: ranges for the next area of their size, areas that wait for a flush, and the block that its
//! `vm_map_ram` hands out from.
//!
//! So a small area that comes and goes takes its CPU's lock and nobody else's, besides sharing the walk lock. A CPU is a number that
//! [`Backend::cpu`] gives, modulo [`NR_CPU_SLOTS`]; two that share a slot wait for each other, and that is all. Nor does it matter if the code
//! moves to another CPU after it asked.
//!
//! # What is withheld at most
//! Of a lazy policy's limits, each slot has its [share](Shares): half of it all, divided by the slots, if that is worth anything. What reaches its share goes on, whole,
//! to the common list under the state lock, whose own limit is what all shares leave. So all together never exceed
//! the limits but for the area that each CPU is just giving back.

use crate::backend::{Backend, Lock};
use crate::give_back::{FlushPolicy, Waiting};
use crate::map_ram::Current;
use crate::record::{Area, WORDS};
use crate::state::Vmalloc;
use crate::va::Cache;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Slots. A fixed number, so that nothing is allocated for them and none has to be looked for.
pub const NR_CPU_SLOTS: usize = 16;

/// What a slot's lock guards.
pub(crate) struct CpuState<G> {
    pub cache: Cache<WORDS>,
    pub waiting: Waiting<G>,
    pub block: Option<Current>,
}

/// On cache lines of its own: 128 bytes, since some CPUs fetch them in pairs.
#[repr(align(128))]
pub(crate) struct CpuSlot<B: Backend> {
    pub state: B::Lock<CpuState<B::Granule>>,
    /// Areas that wait here: written with the lock held, looked at without.
    pub nr_waiting: AtomicUsize,
    /// Whether there is a block: written and looked at alike.
    pub has_block: AtomicBool,
}

impl<B: Backend> CpuSlot<B> {
    pub fn new(cached_areas: usize) -> Self {
        Self {
            state: B::Lock::new(CpuState {
                cache: Cache::new(cached_areas),
                waiting: Waiting::new(),
                block: None,
            }),
            nr_waiting: AtomicUsize::new(0),
            has_block: AtomicBool::new(false),
        }
    }
}

/// Slots that a page holds.
const SLOTS_PER_PAGE: usize = 4;

/// All slots, in pages of their own: some 16 KiB that are on nobody's stack, also while a subsystem is made.
pub(crate) struct CpuSlots<B: Backend>(
    [&'static [CpuSlot<B>; SLOTS_PER_PAGE]; NR_CPU_SLOTS / SLOTS_PER_PAGE],
);

impl<B: Backend> CpuSlots<B> {
    /// Empty slots. `None` if there is no page for them.
    pub fn new(backend: &B, cached_areas: usize) -> Option<Self> {
        let mut pages = [None; NR_CPU_SLOTS / SLOTS_PER_PAGE];
        for page in &mut pages {
            let slots = core::array::from_fn(|_| CpuSlot::new(cached_areas));
            let held: &_ = backend.node_page()?.hold(slots);
            *page = Some(held);
        }
        let [Some(a), Some(b), Some(c), Some(d)] = pages else {
            return None;
        };
        Some(Self([a, b, c, d]))
    }

    /// The slot of CPU `cpu`.
    #[inline(always)]
    pub fn of(&self, cpu: usize) -> &'static CpuSlot<B> {
        let index = cpu % NR_CPU_SLOTS;
        &self.0[index / SLOTS_PER_PAGE][index % SLOTS_PER_PAGE]
    }

    /// Calls `f` for each, in order.
    #[inline(always)]
    pub fn each(&self, mut f: impl FnMut(&'static CpuSlot<B>)) {
        // Two loops, and not one over a number: nothing is computed for a slot.
        for page in self.0 {
            for slot in page {
                f(slot);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static CpuSlot<B>> {
        self.0.into_iter().flatten()
    }
}

/// How a policy's limits are divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    /// What a slot passes on when it is reached.
    pub cpu: FlushPolicy,
    /// What the common list is flushed at.
    pub common: FlushPolicy,
}

impl Shares {
    pub const fn of(policy: FlushPolicy) -> Self {
        match policy {
            FlushPolicy::Strict => Self {
                cpu: policy,
                common: policy,
            },
            FlushPolicy::Lazy { areas, pages } => {
                let slots = NR_CPU_SLOTS;
                let (mut cpu_areas, mut cpu_pages) = (areas / (2 * slots), pages / (2 * slots as u64));
                if cpu_areas < 2 || cpu_pages < 8 {
                    // A share that the first area reaches is no use.
                    (cpu_areas, cpu_pages) = (0, 0);
                }
                Self {
                    cpu: FlushPolicy::Lazy {
                        areas: cpu_areas,
                        pages: cpu_pages,
                    },
                    common: FlushPolicy::Lazy {
                        areas: areas - slots * cpu_areas,
                        pages: pages - slots as u64 * cpu_pages,
                    },
                }
            }
        }
    }
}

impl<B: Backend> Vmalloc<B> {
    /// The slot of the CPU that this runs on.
    #[inline(always)]
    pub(crate) fn this_cpu(&self) -> &CpuSlot<B> {
        self.cpus.of(self.backend.cpu())
    }

    /// Lets a range be reserved again, by this CPU if it keeps such ranges. No TLB knows it.
    #[inline(always)]
    pub(crate) fn release(&self, area: Area) {
        let area = if Cache::<WORDS>::has_class(area.reserved()) {
            let mut cpu = self.this_cpu().state.lock();
            match cpu.cache.put(area) {
                Ok(()) => return,
                Err(area) => area,
            }
        } else {
            area
        };
        self.state.lock().release(area);
    }

    /// Moves what waits in all slots to `all`.
    pub(crate) fn take_waiting(&self, all: &mut Waiting<B::Granule>) {
        self.cpus.each(|slot| {
            if slot.nr_waiting.load(Relaxed) != 0 {
                let mut cpu = slot.state.lock();
                all.absorb(self.backend.tree(), &mut cpu.waiting);
                slot.nr_waiting.store(0, Relaxed);
            }
        });
    }

    /// Gives all ranges that are kept, by the CPUs or for all, back to the address space. Whether there was any.
    pub(crate) fn drain_caches(&self) -> bool {
        let mut any = false;
        for slot in self.cpus.iter() {
            let mut list: Option<Area> = None;
            let mut cpu = slot.state.lock();
            while let Some(mut area) = cpu.cache.drain() {
                let none = area.link(list.take());
                debug_assert!(none.is_none(), "an area was on two lists");
                list = Some(area);
            }
            drop(cpu);
            any |= list.is_some();
            while let Some(mut area) = list {
                list = area.link(None);
                self.state.lock().join(area);
            }
        }
        let nr_large = self.state.lock().large.nr_areas();
        for _ in 0..nr_large {
            // Let go in between: there may be many, and others wait.
            let mut state = self.state.lock();
            let Some(area) = state.large.drain() else {
                break;
            };
            any = true;
            state.join(area);
        }
        any
    }
}

/// Areas and their pages.
pub(crate) type Amount = (usize, u64);

const fn sum(a: Amount, b: Amount) -> Amount {
    (a.0 + b.0, a.1 + b.1)
}

impl<B: Backend> Vmalloc<B> {
    /// What waits and what is kept in all slots.
    pub(crate) fn in_slots(&self) -> (Amount, Amount) {
        self.cpus
            .iter()
            .fold(((0, 0), (0, 0)), |(waiting, cached), slot| {
                let cpu = slot.state.lock();
                (
                    sum(waiting, (cpu.waiting.nr_areas(), cpu.waiting.pages())),
                    sum(cached, (cpu.cache.nr_areas(), cpu.cache.pages())),
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limits() {
        for areas in [0, 1, 31, 64, 65, 256, usize::MAX] {
            for pages in [0, 255, 256, 8192, u64::MAX] {
                let shares = Shares::of(FlushPolicy::Lazy { areas, pages });
                let (
                    FlushPolicy::Lazy {
                        areas: cpu_areas,
                        pages: cpu_pages,
                    },
                    FlushPolicy::Lazy {
                        areas: common_areas,
                        pages: common_pages,
                    },
                ) = (shares.cpu, shares.common)
                else {
                    panic!("{shares:?}");
                };
                assert_eq!(NR_CPU_SLOTS * cpu_areas + common_areas, areas);
                assert_eq!(NR_CPU_SLOTS as u64 * cpu_pages + common_pages, pages);
            }
        }
    }
}
