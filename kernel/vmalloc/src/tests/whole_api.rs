//! Random calls on any CPU, with failures, against a plain model.

use super::*;
use paging::Leaf;
use paging::VirtRange;
use proptest::prelude::*;
use std::boxed::Box;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Frames(u64),
    Tables(u64),
    Nodes,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    ReadOnly,
    Writable,
    Executable,
    NotExecutable,
    Invalid,
    Valid,
}

#[derive(Clone, Debug)]
enum Call {
    Vmalloc {
        pages: u64,
        align: u32,
        huge: bool,
        nowait: bool,
    },
    Vmap {
        first: usize,
        pages: usize,
    },
    Ioremap {
        page: u64,
        pages: u64,
    },
    MapRam {
        first: usize,
        pages: usize,
    },
    Grow {
        which: prop::sample::Index,
        pages: u64,
    },
    SetMemory {
        which: prop::sample::Index,
        first: prop::sample::Index,
        pages: u64,
        change: Change,
    },
    Free(prop::sample::Index),
    FreeAtomic(prop::sample::Index),
    Purge,
}

type Step = (usize, Option<Fault>, Call);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use prop::sample::Index;
    let pages = || prop_oneof![4 => 1..6u64, 1 => 14..40u64];
    let change = prop_oneof![
        Just(Change::ReadOnly),
        Just(Change::Writable),
        Just(Change::Executable),
        Just(Change::NotExecutable),
        Just(Change::Invalid),
        Just(Change::Valid),
    ];
    let call = prop_oneof![
        4 => (pages(), 0..20u32, any::<bool>(), any::<bool>()).prop_map(|(pages, align, huge, nowait)| {
            Call::Vmalloc { pages, align, huge, nowait }
        }),
        2 => (0..FOREIGN, 1..20usize).prop_map(|(first, pages)| Call::Vmap { first, pages }),
        1 => (0..100u64, 1..40u64).prop_map(|(page, pages)| Call::Ioremap { page, pages }),
        2 => (0..FOREIGN, 1..40usize).prop_map(|(first, pages)| Call::MapRam { first, pages }),
        2 => (any::<Index>(), pages()).prop_map(|(which, pages)| Call::Grow { which, pages }),
        3 => (any::<Index>(), any::<Index>(), 1..9u64, change)
            .prop_map(|(which, first, pages, change)| Call::SetMemory { which, first, pages, change }),
        4 => any::<Index>().prop_map(Call::Free),
        1 => any::<Index>().prop_map(Call::FreeAtomic),
        1 => Just(Call::Purge),
    ];
    let fault = prop_oneof![
        6 => Just(None),
        1 => (0..4u64).prop_map(|k| Some(Fault::Frames(k))),
        1 => (0..4u64).prop_map(|k| Some(Fault::Tables(k))),
        1 => Just(Some(Fault::Nodes)),
    ];
    prop::collection::vec((0..CPUS, fault, call), 1..50)
}

const CPUS: usize = 2;
const FOREIGN: usize = 48;
const DEVICE: u64 = 0x900_0000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page {
    pa: u64,
    writable: bool,
    executable: bool,
    valid: bool,
    word: Option<u64>,
}

struct Known {
    va: VirtAddr,
    kind: Option<Kind>,
    pages: Vec<Page>,
    changed: bool,
}

struct World<'v> {
    vm: &'v Vm,
    foreign: Vec<Pfn>,
    known: Vec<Known>,
    next_word: u64,
}

impl World<'_> {
    fn fresh(pa: u64, word: Option<u64>) -> Page {
        Page {
            pa,
            writable: true,
            executable: false,
            valid: true,
            word,
        }
    }

    fn own_pages(&mut self, va: VirtAddr, from: u64, to: u64) -> Vec<Page> {
        let mut pages = Vec::new();
        for page in from..to {
            let frame = self.vm.vmalloc_to_pfn(va.add(page * PAGE)).expect("mapped");
            assert!(self.vm.backend().ram().is_given(frame));
            let pa = frame.0 * PAGE;
            let known = self.known.iter().flat_map(|known| &known.pages);
            let before = known.chain(&pages).filter(|page| page.pa == pa).count();
            assert_eq!(before, 0, "frame {frame:?} is another's");
            assert!(!self.foreign.contains(&frame));
            self.next_word += 1;
            self.vm.backend().write_word(frame, 0, self.next_word);
            pages.push(Self::fresh(pa, Some(self.next_word)));
        }
        pages
    }

    fn foreign_pages(&self, first: usize, pages: usize) -> Vec<Pfn> {
        let around = self.foreign.iter().cycle().skip(first);
        around.take(pages).copied().collect()
    }

    fn add(&mut self, va: VirtAddr, kind: Option<Kind>, pages: Vec<Page>) {
        let end = va.add(pages.len() as u64 * PAGE);
        for other in &self.known {
            let other_end = other.va.add(other.pages.len() as u64 * PAGE);
            assert!(end <= other.va || other_end <= va, "{va} is handed out twice");
        }
        self.known.push(Known {
            va,
            kind,
            pages,
            changed: false,
        });
    }

    fn call(&mut self, call: &Call) -> Result<(), Error> {
        let vm = self.vm;
        match call {
            Call::Vmalloc {
                pages,
                align,
                huge,
                nowait,
            } => {
                let mut request = Request::new(pages * PAGE).aligned(1 << align);
                if *huge {
                    request = request.huge();
                }
                if *nowait {
                    request = request.nowait();
                }
                let va = vm.allocate(&request)?.into_raw();
                assert!(va.is_aligned(1 << align));
                let pages = self.own_pages(va, 0, *pages);
                self.add(va, Some(Kind::Vmalloc), pages);
            }
            Call::Vmap { first, pages } => {
                let frames = self.foreign_pages(*first, *pages);
                let va = vm.vmap(&frames[..])?.into_raw();
                self.add(va, Some(Kind::Vmap), self.known_foreign(&frames));
            }
            Call::MapRam { first, pages } => {
                let frames = self.foreign_pages(*first, *pages);
                let va = vm.vm_map_ram(&frames[..])?;
                self.add(va, None, self.known_foreign(&frames));
            }
            Call::Ioremap { page, pages } => {
                let pa = DEVICE + page * PAGE;
                let va = vm.ioremap(PhysAddr(pa), pages * PAGE)?.into_raw();
                let pages = (0..*pages).map(|i| Self::fresh(pa + i * PAGE, None)).collect();
                self.add(va, Some(Kind::Ioremap), pages);
            }
            Call::Grow { which, pages } => {
                let Some(index) = self.pick(which, |known| known.kind == Some(Kind::Vmalloc)) else {
                    return Ok(());
                };
                let (va, present) = (self.known[index].va, self.known[index].pages.len() as u64);
                let grown = vm.raw().vrealloc(va, pages * PAGE);
                if *pages > present && self.known[index].changed {
                    assert!(matches!(grown, Err(Error::PermissionsChanged(_))), "{grown:?}");
                    return Ok(());
                }
                let grown = grown?;
                if *pages <= present {
                    assert_eq!(grown, va, "it fits");
                } else {
                    let mut known = self.known.swap_remove(index);
                    let old = VirtRange::new(va, present * PAGE);
                    vm.backend().model.va_reused(old);
                    let more = self.own_pages_behind(&known.pages, grown, present, *pages);
                    known.pages.extend(more);
                    self.add(grown, known.kind, known.pages);
                }
            }
            Call::SetMemory {
                which,
                first,
                pages,
                change,
            } => {
                let Some(index) = self.pick(which, |known| known.kind == Some(Kind::Vmalloc)) else {
                    return Ok(());
                };
                let known = &mut self.known[index];
                let first = first.index(known.pages.len());
                let pages = (*pages as usize).min(known.pages.len() - first);
                let (at, size) = (known.va.add(first as u64 * PAGE), pages as u64 * PAGE);
                let part = &mut known.pages[first..first + pages];
                let result = match change {
                    Change::ReadOnly => vm.raw().set_memory_ro(at, size),
                    Change::Writable => vm.raw().set_memory_rw(at, size),
                    Change::Executable => vm.raw().set_memory_x(at, size),
                    Change::NotExecutable => vm.raw().set_memory_nx(at, size),
                    Change::Invalid => vm.raw().set_memory_invalid(at, size),
                    Change::Valid => vm.raw().set_memory_valid(at, size),
                };
                let both = match change {
                    Change::Writable => part.iter().any(|page| page.executable),
                    Change::Executable => part.iter().any(|page| page.writable),
                    _ => false,
                };
                if both {
                    assert!(result.is_err(), "writable and executable");
                    return Ok(());
                }
                result?;
                known.changed = true;
                for page in part {
                    match change {
                        Change::ReadOnly => page.writable = false,
                        Change::Writable => page.writable = true,
                        Change::Executable => page.executable = true,
                        Change::NotExecutable => page.executable = false,
                        Change::Invalid => page.valid = false,
                        Change::Valid => page.valid = true,
                    }
                }
            }
            Call::Free(which) => {
                if let Some(index) = self.pick(which, |_| true) {
                    let known = self.known.swap_remove(index);
                    self.free(&known)?;
                }
            }
            Call::FreeAtomic(which) => {
                if let Some(index) = self.pick(which, |known| known.kind == Some(Kind::Vmalloc)) {
                    vm.raw().vfree_atomic(self.known[index].va)?;
                    self.known.swap_remove(index);
                }
            }
            Call::Purge => vm.vm_unmap_aliases(),
        }
        Ok(())
    }

    fn known_foreign(&self, frames: &[Pfn]) -> Vec<Page> {
        let word = |frame: &Pfn| Some(self.vm.backend().read_word(*frame, 0));
        frames
            .iter()
            .map(|frame| Self::fresh(frame.0 * PAGE, word(frame)))
            .collect()
    }

    fn own_pages_behind(&mut self, before: &[Page], va: VirtAddr, from: u64, to: u64) -> Vec<Page> {
        let more = self.own_pages(va, from, to);
        assert!(more.iter().all(|page| before.iter().all(|old| old.pa != page.pa)));
        more
    }

    fn free(&self, known: &Known) -> Result<(), Error> {
        match known.kind {
            None => self.vm.raw().vm_unmap_ram(known.va, known.pages.len() as u64),
            Some(Kind::Vmalloc) => self.vm.raw().vfree(known.va),
            Some(Kind::Ioremap) => self.vm.raw().iounmap(known.va),
            Some(_) => self.vm.raw().vunmap(known.va),
        }
    }

    fn pick(&self, which: &prop::sample::Index, good: impl Fn(&Known) -> bool) -> Option<usize> {
        let all: Vec<_> = (0..self.known.len())
            .filter(|index| good(&self.known[*index]))
            .collect();
        (!all.is_empty()).then(|| all[which.index(all.len())])
    }

    fn leaf(&self, va: VirtAddr) -> Leaf {
        let leaf = self.vm.backend().tree().walk(va).expect("in range").leaf;
        leaf.unwrap_or_else(|| panic!("nothing at {va}"))
    }

    fn check(&self) {
        for known in &self.known {
            for (i, page) in known.pages.iter().enumerate() {
                let va = known.va.add(i as u64 * PAGE);
                let leaf = self.leaf(va);
                assert_eq!(leaf.translate(va).0, page.pa, "page {i} of {}", known.va);
                let rights = (
                    leaf.attributes.is_writable(),
                    leaf.attributes.is_executable(),
                    leaf.valid,
                );
                assert_eq!(
                    rights,
                    (page.writable, page.executable, page.valid),
                    "{va}: {page:?}"
                );
                let walked = self.vm.backend().model.translate(va).map(|found| found.pa);
                assert_eq!(walked, page.valid.then_some(page.pa), "as the walker sees {va}");
                let Some(word) = page.word else {
                    continue;
                };
                let alias = VirtAddr(LINEAR + page.pa);
                let leaf = self.leaf(alias);
                let rights = (leaf.translate(alias).0, leaf.attributes.is_writable(), leaf.valid);
                assert_eq!(rights, (page.pa, page.writable, page.valid), "alias of {va}");
                let frame = Pfn(page.pa / PAGE);
                assert_eq!(self.vm.backend().read_word(frame, 0), word, "contents of {va}");
                let mut bytes = [0xff; 8];
                let read = self.vm.vread(va, &mut bytes).expect("in the region");
                let expected = if page.valid { (8, word) } else { (0, 0) };
                assert_eq!((read, u64::from_le_bytes(bytes)), expected, "vread of {va}");
            }
        }
        assert_consistent(self.vm);
    }
}

fn inject(vm: &Vm, fault: Option<Fault>) {
    match fault {
        Some(Fault::Frames(k)) => vm.backend().ram().budget = Some(k),
        Some(Fault::Tables(k)) => vm.backend().model.fail_alloc_after(k),
        Some(Fault::Nodes) => vm.backend().ram().node_budget = Some(0),
        None => {
            vm.backend().ram().budget = None;
            vm.backend().ram().node_budget = None;
            vm.backend().model.cancel_alloc_failure();
        }
    }
}

fn run(vm: &Vm, steps: &[Step]) {
    let foreign: Vec<_> = (0..FOREIGN)
        .map(|_| vm.backend().alloc_frames(0).unwrap())
        .collect();
    for (i, frame) in foreign.iter().enumerate() {
        vm.backend().write_word(*frame, 0, 1 << 40 | i as u64);
    }
    let mut world = World {
        vm,
        foreign,
        known: Vec::new(),
        next_word: 0,
    };
    for (cpu, fault, call) in steps {
        vm.backend().go_to(*cpu);
        inject(vm, *fault);
        let result = world.call(call);
        inject(vm, None);
        if let Err(error) = result {
            let expected = match fault {
                Some(Fault::Frames(_)) => matches!(error, Error::OutOfFrames { .. }),
                Some(Fault::Tables(_)) => matches!(error, Error::Map(paging::Error::OutOfTables(_))),
                Some(Fault::Nodes) => error == Error::OutOfNodes,
                None => false,
            };
            assert!(expected, "{error} from {call:?} with {fault:?}");
        }
        world.check();
    }
    for known in std::mem::take(&mut world.known) {
        world.free(&known).unwrap_or_else(|error| panic!("{error}"));
    }
    for cpu in 0..CPUS {
        vm.backend().go_to(cpu);
        vm.shrink();
    }
    for frame in &world.foreign {
        vm.backend().free_frames(*frame, 0);
    }
    assert_empty(vm);
}

fn on_a_machine(config: Config, steps: &[Step]) {
    run(&vm_with_linear_map(CPUS, config), steps);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(prop::test_runner::FileFailurePersistence::Direct(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/whole_api.regressions.txt"),
        ))),
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn every_address_is_what_the_calls_made_it_strictly(steps in steps()) {
        on_a_machine(Config::default(), &steps);
    }

    #[test]
    fn every_address_is_what_the_calls_made_it_lazily(steps in steps()) {
        let flush = FlushPolicy::Lazy { areas: 5, pages: 100 };
        on_a_machine(Config { flush, ..Config::default() }, &steps);
    }
}

fn cases() -> u32 {
    let cases = std::env::var("PROPTEST_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(150)
}

#[test]
fn a_page_that_is_not_as_it_must_be_is_noticed() {
    let lies: [fn(&mut Page); 5] = [
        |page| page.pa += PAGE,
        |page| page.writable = !page.writable,
        |page| page.executable = !page.executable,
        |page| page.valid = !page.valid,
        |page| page.word = page.word.map(|word| word + 1),
    ];
    for lie in [None].into_iter().chain(lies.map(Some)) {
        let vm = vm_with_linear_map(CPUS, Config::default());
        let mut world = World {
            vm: &vm,
            foreign: Vec::new(),
            known: Vec::new(),
            next_word: 0,
        };
        let call = Call::Vmalloc {
            pages: 3,
            align: 0,
            huge: false,
            nowait: false,
        };
        world.call(&call).unwrap();
        if let Some(lie) = lie {
            lie(&mut world.known[0].pages[1]);
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check()));
        assert_eq!(checked.is_err(), lie.is_some());
    }
}
