use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use kernel::arch::mmu::at_s1e1r;
use kernel::arch::time::relax;
use kernel::layout;
use kernel::mm::{self, areas, frames, tables};
use kernel::{BootInfo, smp};
use paging::{Leaf, Pfn, VirtAddr};
use spin::Mutex;
use trace_replay::{Action, Area, Event, PAGE, Trace};
use vmalloc::{Backend, Vmalloc};

use super::device::Devices;
use super::failure::{Finding, What};
use super::kinds::{self, Meter, maps_given_frames};
use super::order::Order;
use super::space::{self, Space};
use super::stats::{About, Operation, Peaks, Stats, Verified};
use super::{contents, report};
use crate::measure::Instrument;
use crate::options::ReplayFault;
use crate::selftest::audit;

const TOLD: usize = 16;
const LOOKS: usize = 64;

const NOT_YET: u64 = 0;
const FAILED: u64 = 1;
const ENDED: u64 = 2;

struct Worker {
    stats: Stats,
    verified: Verified,
    peaks: Peaks,
    most_gaps: u64,
    /// For the largest area that maps the replay's frames.
    given: Vec<Pfn>,
}

#[derive(Clone, Copy)]
struct Holdings {
    areas: u64,
    pages: u64,
    frames: u64,
    tables: u64,
}

pub struct Pass<'a, B: Backend> {
    info: &'static BootInfo,
    vm: &'a Vmalloc<B>,
    trace: &'a Trace,
    devices: &'a Devices,
    workers: Vec<Mutex<Worker>>,
    places: Vec<AtomicU64>,
    order: Order,
    findings: Mutex<ArrayVec<Finding, TOLD>>,
    nr_failures: AtomicU64,
    fault: Option<ReplayFault>,
    planted: AtomicBool,
    space: Mutex<Option<Space>>,
}

impl<'a, B: Backend<Granule = layout::Granule>> Pass<'a, B>
where
    Vmalloc<B>: Sync,
{
    /// Makes all room: afterwards nothing is allocated on the heap.
    pub fn new(
        info: &'static BootInfo,
        vm: &'a Vmalloc<B>,
        trace: &'a Trace,
        devices: &'a Devices,
        cpus: usize,
        fault: Option<ReplayFault>,
        counted: bool,
    ) -> Self {
        let given = trace.areas.iter().filter(|area| maps_given_frames(area.kind));
        let most = given.map(Area::pages).max().unwrap_or(0) as usize;
        let worker = || {
            Mutex::new(Worker {
                stats: if counted {
                    Stats::with_room(trace)
                } else {
                    Stats::new()
                },
                verified: Verified::default(),
                peaks: Peaks::default(),
                most_gaps: 0,
                given: alloc::vec![Pfn(0); most],
            })
        };
        Self {
            info,
            vm,
            trace,
            devices,
            workers: (0..cpus).map(|_| worker()).collect(),
            places: trace.areas.iter().map(|_| AtomicU64::new(NOT_YET)).collect(),
            order: Order::new(trace.events.len()),
            findings: Mutex::new(ArrayVec::new()),
            nr_failures: AtomicU64::new(0),
            fault,
            planted: AtomicBool::new(false),
            space: Mutex::new(None),
        }
    }

    /// Performs all, and frees what the trace leaves. Returns the number of failures, and prints
    /// the first.
    pub fn run(&self, instrument: Option<&Instrument>) -> u64 {
        let before = self.holdings();
        self.alone(|worker| {
            for number in 0..self.trace.nr_pre as u32 {
                self.make(worker, instrument, Operation::Pre, number);
            }
        });
        if self.workers.len() == 1 {
            self.alone(|worker| {
                let every = self.trace.events.len() / LOOKS + 1;
                for (index, event) in self.trace.events.iter().enumerate() {
                    self.perform(worker, instrument, event, before);
                    if index % every == 0 {
                        worker.most_gaps = worker.most_gaps.max(self.gaps());
                    }
                }
            });
        } else {
            smp::on_each_cpu(|cpu| {
                if let Some(worker) = self.workers.get(cpu) {
                    self.perform_own(cpu, &mut worker.lock(), before);
                }
            });
        }
        self.look_at_the_end();
        self.alone(|worker| {
            for number in 0..self.trace.areas.len() as u32 {
                self.end(worker, instrument, Operation::Rest, number, 0);
            }
        });
        self.look_afterwards(before);
        self.findings.lock().iter().for_each(report::failure);
        self.nr_failures.load(Ordering::Acquire)
    }

    fn alone(&self, work: impl FnOnce(&mut Worker)) {
        if let Some(worker) = self.workers.first() {
            work(&mut worker.lock());
        }
    }

    /// Each CPU takes the events of several of the trace's.
    fn perform_own(&self, cpu: usize, worker: &mut Worker, before: Holdings) {
        for (index, event) in self.trace.events.iter().enumerate() {
            if event.cpu as usize % self.workers.len() == cpu {
                self.order.begin(index);
                self.perform(worker, None, event, before);
                self.order.end(index);
            }
        }
    }

    fn perform(&self, worker: &mut Worker, instrument: Option<&Instrument>, event: &Event, before: Holdings) {
        match event.action {
            Action::Alloc(number) => self.make(worker, instrument, Operation::Alloc, number),
            Action::Free(number) => self.end(worker, instrument, Operation::Free, number, event.line),
            Action::Purge(kind) => {
                let mut meter = Meter {
                    instrument,
                    stats: &mut worker.stats,
                };
                meter.call(Operation::Purge, About::Purge(kind), || {
                    self.vm.vm_unmap_aliases();
                });
            }
        }
        let usage = self.vm.usage();
        worker.peaks = worker.peaks.max(&Peaks {
            live_areas: (usage.areas as u64).saturating_sub(before.areas),
            live_bytes: usage.pages.saturating_sub(before.pages) * PAGE,
            lazy_areas: usage.lazy.0 as u64,
            lazy_bytes: usage.lazy.1 * PAGE,
            ram_bytes: (frames::stats().used() - areas::nr_node_frames()).saturating_sub(before.frames)
                * PAGE,
            tables: tables::nr_tables().saturating_sub(before.tables),
        });
    }

    fn make(&self, worker: &mut Worker, instrument: Option<&Instrument>, operation: Operation, number: u32) {
        let area = &self.trace.areas[number as usize];
        let Worker {
            stats,
            verified,
            given,
            ..
        } = worker;
        let given = if maps_given_frames(area.kind) {
            &mut given[..area.pages() as usize]
        } else {
            &mut []
        };
        let mut meter = Meter { instrument, stats };
        let device = self.devices.of(number);
        let place = match kinds::make(self.vm, &mut meter, operation, area, device, given) {
            Ok(va) => {
                let done = self.finish(&mut meter, verified, area, va, number, given);
                self.note(area.line, area, done);
                va.0
            }
            Err(what) => {
                self.note(area.line, area, Err(what));
                FAILED
            }
        };
        if self.plants(ReplayFault::Frame) {
            let _ = frames::allocate(0);
        }
        self.places[number as usize].store(place, Ordering::Release);
    }

    fn finish(
        &self,
        meter: &mut Meter<'_>,
        verified: &mut Verified,
        area: &Area,
        va: VirtAddr,
        number: u32,
        given: &[Pfn],
    ) -> Result<(), What> {
        if !kinds::is_placed(area, va) {
            return Err(What::Misplaced(va));
        }
        if maps_given_frames(area.kind) {
            *verified += contents::verify(self.vm, area, va, |page| given.get(page as usize).copied())?;
        } else if area.kind.is_ram() {
            contents::fill_area(area, va);
        } else if area.kind == trace_replay::Kind::Ioremap {
            let first = self.devices.of(number).0 / PAGE;
            *verified += contents::verify(self.vm, area, va, |page| Some(Pfn(first + page)))?;
        }
        verified.guards += contents::verify_guards(area, va)?;
        if area.kind.is_code() && !self.plants(ReplayFault::Protect) {
            kinds::protect(self.vm, meter, area, va)?;
        }
        Ok(())
    }

    /// Waits for the area to be made, but for [`Operation::Rest`].
    fn end(
        &self,
        worker: &mut Worker,
        instrument: Option<&Instrument>,
        operation: Operation,
        number: u32,
        line: u32,
    ) {
        let area = &self.trace.areas[number as usize];
        let place = &self.places[number as usize];
        let mut va = place.load(Ordering::Acquire);
        while va == NOT_YET && operation != Operation::Rest {
            relax();
            va = place.load(Ordering::Acquire);
        }
        if matches!(va, NOT_YET | FAILED | ENDED) {
            return;
        }
        if operation == Operation::Rest && self.plants(ReplayFault::Area) {
            return;
        }
        let line = if line == 0 { area.line } else { line };
        place.store(ENDED, Ordering::Relaxed);
        let va = VirtAddr(va);
        if area.kind.is_ram() && self.plants(ReplayFault::Data) {
            contents::spoil(va);
        }
        let seen = self.verify_before_end(worker, area, va);
        self.note(line, area, seen);
        let Worker { stats, given, .. } = &mut *worker;
        let given = if maps_given_frames(area.kind) {
            &given[..area.pages() as usize]
        } else {
            &[]
        };
        let mut meter = Meter { instrument, stats };
        let ended = kinds::end(self.vm, &mut meter, operation, area, va, given);
        let gone = ended.and_then(|()| self.verify_gone(worker, area, va));
        self.note(line, area, gone);
    }

    fn verify_before_end(&self, worker: &mut Worker, area: &Area, va: VirtAddr) -> Result<(), What> {
        if maps_given_frames(area.kind) {
            for (page, frame) in (0..area.pages()).zip(&mut worker.given) {
                *frame = self.vm.vmalloc_to_pfn(va.add(page * PAGE))?;
            }
        }
        if area.kind != trace_replay::Kind::VmapBlock {
            worker.verified += contents::verify(self.vm, area, va, |_| None)?;
        }
        worker.verified.guards += contents::verify_guards(area, va)?;
        Ok(())
    }

    /// A caller's pages must be unmapped on return.
    fn verify_gone(&self, worker: &mut Worker, area: &Area, va: VirtAddr) -> Result<(), What> {
        if self.workers.len() == 1 && maps_given_frames(area.kind) {
            for at in [va, va.add(area.size - PAGE)] {
                if at_s1e1r(at.0 as usize).is_ok() {
                    return Err(What::StillMapped(at));
                }
            }
            worker.verified.gone += 1;
        }
        Ok(())
    }

    fn look_at_the_end(&self) {
        if self.workers.len() == 1 {
            let mut space = space::survey(self.vm);
            self.alone(|worker| space.most_gaps = worker.most_gaps.max(space.gaps));
            *self.space.lock() = Some(space);
        }
        // An unmap may leave an empty table linked, unsound if nothing looks at it again.
        self.vm.shrink();
        // Aliases of code are read-only, which the kernel's audit does not expect.
        let checked = mm::kernel_tree().check(|_, _| true, |_: &Leaf| true);
        if let Err(error) = checked {
            self.tell(Finding::of_all(What::Unsound(error)));
        }
        if let Err(violation) = self.vm.check() {
            self.tell(Finding::of_all(What::Space(violation)));
        }
    }

    fn look_afterwards(&self, before: Holdings) {
        let after = self.holdings();
        for (what, before, after) in [
            ("areas", before.areas, after.areas),
            ("pages of addresses", before.pages, after.pages),
            ("frames", before.frames, after.frames),
            ("table pages", before.tables, after.tables),
        ] {
            if before != after {
                self.tell(Finding::of_all(What::Leak { what, before, after }));
            }
        }
        match audit::audit(self.info) {
            Err(error) => self.tell(Finding::of_all(What::Unsound(error))),
            Ok(audit) => {
                let after = audit::unlinked_tables(&audit);
                if after != 0 {
                    let what = "table pages that are linked nowhere";
                    self.tell(Finding::of_all(What::Leak {
                        what,
                        before: 0,
                        after,
                    }));
                }
            }
        }
        if let Err(violation) = self.vm.check() {
            self.tell(Finding::of_all(What::Space(violation)));
        }
    }

    fn holdings(&self) -> Holdings {
        self.vm.shrink();
        let pruned = mm::kernel_tree().prune(self.vm.range());
        assert!(pruned.is_ok(), "{pruned:?}");
        let usage = self.vm.usage();
        Holdings {
            areas: usage.areas as u64,
            pages: usage.pages,
            frames: frames::stats().used() - areas::nr_node_frames(),
            tables: tables::nr_tables(),
        }
    }

    fn gaps(&self) -> u64 {
        self.vm.check().map_or(0, |census| census.gaps as u64)
    }

    fn plants(&self, fault: ReplayFault) -> bool {
        self.fault == Some(fault) && !self.planted.swap(true, Ordering::Relaxed)
    }

    fn note(&self, line: u32, area: &Area, result: Result<(), What>) {
        if let Err(what) = result {
            self.tell(Finding {
                line,
                area: Some(*area),
                what,
            });
        }
    }

    fn tell(&self, finding: Finding) {
        self.nr_failures.fetch_add(1, Ordering::AcqRel);
        let _ = self.findings.lock().try_push(finding);
    }

    pub fn stats(&self) -> Stats {
        let mut all = Stats::new();
        self.workers
            .iter()
            .for_each(|worker| all.merge(&worker.lock().stats));
        all
    }

    pub fn peaks(&self) -> Peaks {
        self.workers
            .iter()
            .fold(Peaks::default(), |peaks, worker| peaks.max(&worker.lock().peaks))
    }

    pub fn verified(&self) -> Verified {
        let mut all = Verified::default();
        self.workers
            .iter()
            .for_each(|worker| all += worker.lock().verified);
        all
    }

    pub fn space(&self) -> Option<Space> {
        *self.space.lock()
    }
}
