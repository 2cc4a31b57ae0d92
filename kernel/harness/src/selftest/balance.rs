//! What is in use: counted before and after each test, and equal.

use kernel::mm::{frames, heap, tables};

use super::failure::Failure;
use super::live;

/// What is in use at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Frames, less those behind the bookkeeping of the vmalloc subsystem.
    frames: u64,
    /// Table pages, the root among them.
    tables: u64,
    /// Areas of the vmalloc region.
    areas: u64,
    /// Pages of the vmalloc region, guards among them.
    pages: u64,
    /// Bytes of the heap.
    heap: u64,
}

impl Balance {
    /// Returns what is in use now. Lazily freed memory is flushed and the heap is trimmed first,
    /// so that both count as free.
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

    /// Whether as much is in use as `before`.
    ///
    /// # Errors
    /// What is not.
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
