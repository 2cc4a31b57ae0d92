//! What is in use: counted before and after each test, and equal.
//!
//! A region that the heap has added stays added, which is no leak of the test that made it necessary: so what the heap owns
//! is counted apart, and the heap itself by the bytes that are in use in it.

use super::failure::Failure;
use super::live;
use crate::mm::{frames, heap, tables};

/// What is in use at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Frames, less those behind the heap, its tables and its bookkeeping.
    frames: u64,
    /// Table pages, the root among them.
    tables: u64,
    /// Areas of the vmalloc region.
    areas: u64,
    /// Pages of the vmalloc region, guards among them.
    pages: u64,
    /// Bytes of the heap.
    heap: u64,
    /// Regions of the heap: when their number has changed, frames and areas are not comparable.
    heap_regions: u64,
}

impl Balance {
    /// What is in use now. What is withheld for a lazy flush is flushed first, so that it counts as free.
    #[must_use]
    pub fn take() -> Self {
        let usage = live::usage();
        let heap = heap::stats();
        Self {
            frames: frames::stats().used() - usage.node_frames,
            tables: tables::nr_tables(),
            areas: usage.areas,
            pages: usage.pages,
            heap: heap.used as u64,
            heap_regions: heap.nr_regions as u64,
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
        // A heap that has grown has taken frames, an area and perhaps tables for good: only its bytes can be compared then. The growth
        // happens a few times in a run at most, so this hides no leak that repeats.
        let comparable = if self.heap_regions == before.heap_regions {
            5
        } else {
            1
        };
        match pairs
            .by_ref()
            .take(comparable)
            .find(|(_, before, after)| before != after)
        {
            Some((what, before, after)) => Err(Failure::Leak { what, before, after }),
            None => Ok(()),
        }
    }
}
