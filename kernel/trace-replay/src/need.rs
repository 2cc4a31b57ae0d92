//! How much memory a replay takes, known before it begins.

use crate::row::PAGE;
use crate::trace::{Action, Area, HEAP_PER_LINE, Trace};

/// How many events the CPUs may be apart: an event begins only when all that are so many places
/// before it are done. Without a bound, a CPU that is ahead would allocate what the others have not
/// freed yet, and no amount of memory would be known to suffice.
pub const WINDOW: usize = 256;

/// What a replay's need depends on beside the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// CPUs that replay at the same time.
    pub cpus: u32,
    /// Bytes of addresses that may wait for a flush.
    pub lazy: u64,
}

/// What a replay takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Areas that live at most, in the order of the trace.
    pub peak_areas: usize,
    /// Areas that live when the trace ends.
    pub left_areas: usize,
    /// Bytes in areas that live at most, guards not counted.
    pub peak_bytes: u64,
    /// Of these, the most that are RAM.
    pub peak_ram: u64,
    /// The most RAM in areas that the CPUs can hold at any moment, as far apart as they may be.
    pub ram: u64,
    /// Free RAM that is enough for all: areas, what waits for a flush, tables, book-keeping, and
    /// the replay's own.
    pub free_ram: u64,
}

/// RAM for what is there at any size: table pages of the first area, nodes, magazines.
const FIXED: u64 = 16 << 20;
/// Book-keeping for each area.
const PER_AREA: u64 = 1 << 10;

impl Trace {
    /// Returns what a replay on `machine` takes. The lines of the text were `lines`.
    #[must_use]
    pub fn need(&self, lines: u64, machine: Machine) -> Need {
        let mut need = Need::default();
        let (mut areas, mut bytes, mut ram) = (0, 0, 0);
        let mut note = |area: &Area, made: bool| {
            if made {
                (areas, bytes, ram) = (areas + 1, bytes + area.size, ram + area.ram());
                need.peak_areas = need.peak_areas.max(areas);
                need.peak_bytes = need.peak_bytes.max(bytes);
                need.peak_ram = need.peak_ram.max(ram);
            } else {
                (areas, bytes, ram) = (areas - 1, bytes - area.size, ram - area.ram());
            }
        };
        self.areas[..self.nr_pre].iter().for_each(|area| note(area, true));
        for event in &self.events {
            if let Some(area) = self.area_of(event) {
                note(area, matches!(event.action, Action::Alloc(_)));
            }
        }
        need.left_areas = areas;
        need.ram = self.most_ram(if machine.cpus > 1 { WINDOW } else { 1 });
        let largest = self.areas.iter().map(Area::ram).max().unwrap_or(0);
        let held = need.ram + machine.lazy + u64::from(machine.cpus) * largest;
        // A table page for each 2 MiB, and as many again for the linear map, which permissions cut;
        // what is in odd places.
        let tables = (need.peak_bytes + machine.lazy) / 512 * 2 + held / 64;
        let heap = lines * HEAP_PER_LINE;
        need.free_ram =
            (held + tables + heap + self.areas.len() as u64 * PER_AREA + FIXED).next_multiple_of(PAGE);
        need
    }

    /// The most RAM in areas at any moment, when each CPU may be `window` events ahead of the last
    /// event that is not done: as if all allocations of a window were there, and none of its frees.
    fn most_ram(&self, window: usize) -> u64 {
        let made = |index: usize| match self.events.get(index).map(|event| (event, event.action)) {
            Some((event, Action::Alloc(_))) => self.area_of(event).map_or(0, Area::ram),
            _ => 0,
        };
        let mut done: u64 = self.areas[..self.nr_pre].iter().map(Area::ram).sum();
        let mut ahead: u64 = (0..window).map(made).sum();
        let mut most = done + ahead;
        for (index, event) in self.events.iter().enumerate() {
            let ram = self.area_of(event).map_or(0, Area::ram);
            match event.action {
                Action::Alloc(_) => {
                    done += ram;
                    ahead -= ram;
                }
                Action::Free(_) => done -= ram,
                Action::Purge(_) => {}
            }
            ahead += made(index + window);
            most = most.max(done + ahead);
        }
        most
    }
}
