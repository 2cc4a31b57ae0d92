use super::{Host, Live};
use paging::mmu::{MmuEvent, NoMmu, Tracing};
use paging::{Config, Granule, Half, PhysAddr, Tables, Tree};
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Alloc(PhysAddr),
    AllocFailed,
    Free(PhysAddr),
    Store {
        table: PhysAddr,
        index: usize,
        old: u64,
        new: u64,
    },
    Mmu(MmuEvent),
    Note(&'static str),
}

impl Event {
    pub fn is_tlbi(&self) -> bool {
        !matches!(
            self,
            Self::Alloc(_)
                | Self::AllocFailed
                | Self::Free(_)
                | Self::Store { .. }
                | Self::Note(_)
                | Self::Mmu(MmuEvent::DsbIsh | MmuEvent::DsbIshst | MmuEvent::Isb)
        )
    }

    /// A alloc, F free, S store, s DSB ISHST, d DSB ISH, i ISB, T TLBI, n note.
    pub fn letter(&self) -> char {
        match self {
            Self::Alloc(_) | Self::AllocFailed => 'A',
            Self::Free(_) => 'F',
            Self::Store { .. } => 'S',
            Self::Note(_) => 'n',
            Self::Mmu(MmuEvent::DsbIshst) => 's',
            Self::Mmu(MmuEvent::DsbIsh) => 'd',
            Self::Mmu(MmuEvent::Isb) => 'i',
            Self::Mmu(_) => 'T',
        }
    }
}

#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<Event>>>);

impl Log {
    pub fn push(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }

    pub fn take(&self) -> Vec<Event> {
        self.0.take()
    }
}

pub fn word(events: &[Event]) -> String {
    let mut word = String::new();
    for event in events {
        if !word.ends_with(event.letter()) {
            word.push(event.letter());
        }
    }
    word
}

pub struct TracedTables<G> {
    pub host: Host<G>,
    pub log: Log,
}

impl<G: Granule> Live for TracedTables<G> {
    fn live(&self) -> usize {
        self.host.live()
    }
}

// SAFETY: forwards to `Host`, which keeps the promises.
unsafe impl<G: Granule> Tables for TracedTables<G> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let table = self.host.alloc_table();
        self.log.push(table.map_or(Event::AllocFailed, Event::Alloc));
        table
    }

    fn free_table(&self, table: PhysAddr) {
        self.log.push(Event::Free(table));
        self.host.free_table(table);
    }

    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.host.load(table, index)
    }

    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        let old = self.host.peek(table, index);
        self.log.push(Event::Store {
            table,
            index,
            old,
            new: value,
        });
        self.host.store(table, index, value);
    }

    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.host.compare_exchange(table, index, current, new)?;
        self.log.push(Event::Store {
            table,
            index,
            old: current,
            new,
        });
        Ok(())
    }
}

pub type TracedTree<G> = Tree<G, TracedTables<G>, Tracing<NoMmu, Box<dyn Fn(MmuEvent)>>>;

pub fn traced<G: Granule>(config: Config, tlbi_range: bool) -> TracedTree<G> {
    let log = Log::default();
    let tables = TracedTables {
        host: Host::new(),
        log: log.clone(),
    };
    let root = tables.alloc_table().expect("memory");
    log.take();
    let sink: Box<dyn Fn(MmuEvent)> = Box::new(move |event| log.push(Event::Mmu(event)));
    let mmu = Tracing::new(NoMmu { tlbi_range }, sink);
    Tree::new(root, Half::High, tables, mmu, config)
}
