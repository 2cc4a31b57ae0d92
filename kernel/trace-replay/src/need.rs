use crate::row::PAGE;
use crate::trace::{Action, Area, HEAP_PER_LINE, Trace};

/// An event begins when all that are so many places before it are done: a CPU further ahead could
/// allocate without bound.
pub const WINDOW: usize = 256;

/// What a need depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// CPUs that replay at once.
    pub cpus: u32,
    /// Bytes that wait for a flush.
    pub lazy: u64,
}

/// What a replay takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Most areas alive at once.
    pub peak_areas: usize,
    /// Live areas at the end.
    pub left_areas: usize,
    /// Most bytes in live areas, without guards.
    pub peak_bytes: u64,
    /// Most RAM in live areas.
    pub peak_ram: u64,
    /// The same with CPUs [`WINDOW`] apart.
    pub ram: u64,
    /// Free RAM that is enough.
    pub free_ram: u64,
}

/// Table pages of the first area, nodes, magazines.
const FIXED: u64 = 16 << 20;
const PER_AREA: u64 = 1 << 10;

impl Trace {
    /// Returns what a replay takes; `lines` is the text's.
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
        // A table page for each 2 MiB, as many for the linear map, and a reserve.
        let tables = (need.peak_bytes + machine.lazy) / 512 * 2 + held / 64;
        let heap = lines * HEAP_PER_LINE;
        need.free_ram =
            (held + tables + heap + self.areas.len() as u64 * PER_AREA + FIXED).next_multiple_of(PAGE);
        need
    }

    /// As if no free within a `window` were made.
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
