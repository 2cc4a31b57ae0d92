use kernel::mm::{frames, heap, tables};

use super::failure::Failure;
use super::live;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Without vmalloc's bookkeeping.
    frames: u64,
    tables: u64,
    areas: u64,
    /// Guards included.
    pages: u64,
    heap: u64,
}

impl Balance {
    /// Returns what is in use, once lazy frees are flushed and the heap is trimmed.
    #[must_use]
    pub fn take() -> Self {
        heap::trim();
        let usage = live::usage();
        let heap = heap::stats();
        Self {
            frames: frames::stats().used() - usage.node_frames,
            tables: tables::nr_tables(),
            areas: usage.areas,
            pages: usage.pages,
            heap: heap.used as u64,
        }
    }

    pub fn check_against(&self, before: &Self) -> Result<(), Failure> {
        let mut pairs = [
            ("heap bytes", before.heap, self.heap),
            ("table pages", before.tables, self.tables),
            ("frames", before.frames, self.frames),
            ("vmalloc areas", before.areas, self.areas),
            ("vmalloc pages", before.pages, self.pages),
        ]
        .into_iter();
        match pairs.find(|(_, before, after)| before != after) {
            Some((what, before, after)) => Err(Failure::Leak { what, before, after }),
            None => Ok(()),
        }
    }
}
