use super::machine::{Area, Machine};
use super::{PAGE, Plant, me};
use paging::{Mmu, VirtRange};
use std::sync::Mutex;
use vmalloc::{Backend, Config, Vmalloc};

pub struct Rig {
    pub vm: Vmalloc<Machine>,
    /// Guards included, with their owners.
    live: Mutex<Vec<(VirtRange, u64)>>,
}

pub type Job<'j> = &'j (dyn Fn(&Rig) + Sync);

impl Rig {
    pub(super) fn new(plant: Plant, config: Config) -> Self {
        let machine = Machine::new(plant);
        let all = machine.tree().range();
        let range = VirtRange::new(all.start.add(128 * PAGE), 384 * PAGE);
        Self {
            vm: Vmalloc::new(range, machine, config).expect("a page for areas"),
            live: Mutex::default(),
        }
    }

    pub fn machine(&self) -> &Machine {
        self.vm.backend()
    }

    pub fn at_once(&self, jobs: &[Job<'_>]) {
        let model = self.machine().model();
        let started = model.release(me());
        let ended = Mutex::new(Vec::new());
        shuttle::thread::scope(|scope| {
            for job in jobs {
                let (started, ended) = (&started, &ended);
                scope.spawn(move || {
                    model.acquire(me(), started);
                    model.cpu(me()).isb();
                    job(self);
                    // As a context switch does.
                    model.cpu(me()).dsb_ish();
                    ended
                        .lock()
                        .expect("no panic under this lock")
                        .push(model.release(me()));
                });
            }
        });
        for released in ended.into_inner().expect("no panic under this lock") {
            model.acquire(me(), &released);
        }
        model.cpu(me()).isb();
    }

    /// Nothing else is there, and no TLB has stale entries.
    pub fn taken(&self, range: VirtRange, key: u64) {
        self.note_taken(range, VirtRange::new(range.start, range.size + PAGE), key);
    }

    pub fn taken_without_guard(&self, range: VirtRange, key: u64) {
        self.note_taken(range, range, key);
    }

    fn note_taken(&self, range: VirtRange, with_guard: VirtRange, key: u64) {
        {
            let mut live = self.live.lock().expect("no panic under this lock");
            if let Some((other, whose)) = live.iter().find(|(other, _)| other.overlaps(with_guard)) {
                panic!("{range:?} of {key} is handed out twice: {other:?} of {whose}");
            }
            live.push((with_guard, key));
        }
        self.assert_forgotten(range);
    }

    pub fn assert_forgotten(&self, range: VirtRange) {
        let _whole = self.machine().edits.keep_out();
        self.machine().model().va_reused(range);
        self.machine().model().assert_clean();
    }

    pub fn freed(&self, range: VirtRange) {
        let mut live = self.live.lock().expect("no panic under this lock");
        let index = live
            .iter()
            .position(|(other, _)| other.start == range.start)
            .unwrap_or_else(|| panic!("{range:?} was not in use"));
        live.swap_remove(index);
    }

    pub fn filled(&self, pages: u64, key: u64) -> Area<'_> {
        let area = Area::from(self.vm.vmalloc(pages * PAGE).expect("memory suffices"));
        self.fill(&area, key);
        area
    }

    pub fn fill(&self, area: &Area<'_>, key: u64) {
        let range = area.range();
        self.taken(range, key);
        for page in 0..range.size / PAGE {
            self.machine()
                .store(range.start.add(page * PAGE), key << 16 | page);
        }
    }

    pub fn assert_filled(&self, range: VirtRange, key: u64) {
        for page in 0..range.size / PAGE {
            let found = self.machine().load(range.start.add(page * PAGE));
            assert_eq!(found, key << 16 | page, "page {page} of {range:?}");
        }
    }

    pub fn check_and_free(&self, area: Area<'_>, key: u64) {
        self.assert_filled(area.range(), key);
        self.freed(area.range());
        drop(area);
    }

    pub(super) fn assert_empty(&self) {
        let usage = self.vm.usage();
        let census = self.vm.check().unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(census.retired, usage.lazy.0 + usage.deferred.0);
        self.vm.shrink();
        let usage = self.vm.usage();
        assert_eq!((usage.areas, usage.pages, usage.pieces), (0, 0, 0), "{usage:?}");
        assert_eq!(self.machine().ram().used(), 0, "frames leaked");
        let tree = self.machine().tree();
        tree.prune(self.vm.range())
            .unwrap_or_else(|failure| panic!("{failure}"));
        tree.check(|_, _| true, |_| true)
            .unwrap_or_else(|error| panic!("{error}"));
        let model = self.machine().model();
        assert_eq!(model.nr_tables(), self.machine().base_tables, "tables leaked");
        model.va_reused(self.vm.range());
        model.assert_quiescent();
    }
}
