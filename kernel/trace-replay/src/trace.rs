use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::error::{Error, Problem};
use crate::row::{HEADER, Kind, Op, PAGE, PurgeKind, Row};

/// Bytes for each line.
pub const HEAP_PER_LINE: u64 = 192;

/// An area of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// As in the trace.
    pub id: u64,
    /// What it is for.
    pub kind: Kind,
    /// Bytes, without the guard.
    pub size: u64,
    /// Bytes, as asked: 1 is a page.
    pub align: u64,
    /// The line that makes it.
    pub line: u32,
}

impl Area {
    /// Returns its pages, without the guard.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.size / PAGE
    }

    /// Returns its bytes of RAM.
    #[must_use]
    pub const fn ram(&self) -> u64 {
        if self.kind.is_ram() { self.size } else { 0 }
    }
}

/// What an event does, by index into [`Trace::areas`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Makes an area.
    Alloc(u32),
    /// Frees an area.
    Free(u32),
    /// Flushes what waits.
    Purge(PurgeKind),
}

/// An event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its line.
    pub line: u32,
    /// Its CPU.
    pub cpu: u32,
    /// What it does.
    pub action: Action,
}

/// A trace that can be performed: each area is made once, and freed at most once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// In order, those of the start first.
    pub areas: Vec<Area>,
    /// How many live at the start.
    pub nr_pre: usize,
    /// In order.
    pub events: Vec<Event>,
    /// The highest CPU, and one.
    pub nr_cpus: u32,
    /// Lines of `vmap_block` and `vm_map_ram_area` beside `vm_map_ram`.
    pub nr_skipped: usize,
}

struct Known {
    area: u32,
    /// Line, or 0.
    freed: u32,
}

impl Trace {
    /// Reads a trace. `vm_map_ram` and what Linux makes for it are two views of the same: with the
    /// former, the latter is left out.
    ///
    /// # Errors
    /// The first line that cannot be performed.
    pub fn parse(text: &[u8], max_cpus: u32) -> Result<Self, Error<'_>> {
        let mut lines = (1..).zip(Lines(text));
        match lines.next() {
            Some((_, Ok(line))) if line == HEADER.as_bytes() => {}
            Some((line, Err(problem))) => return Err(Error { line, problem }),
            other => {
                let found = other.and_then(|(_, line)| line.ok()).unwrap_or_default();
                return Err(Error {
                    line: 1,
                    problem: Problem::Header(found),
                });
            }
        }
        if u32::try_from(text.len()).is_err() {
            return Err(Error {
                line: u32::MAX,
                problem: Problem::TooLong,
            });
        }
        let mut trace = Self {
            areas: Vec::new(),
            nr_pre: 0,
            events: Vec::with_capacity(text.iter().filter(|byte| **byte == b'\n').count()),
            nr_cpus: 1,
            nr_skipped: 0,
        };
        let mut ids = BTreeMap::new();
        for (line, text) in lines {
            let done = text
                .and_then(|text| Row::parse(text, max_cpus))
                .and_then(|row| trace.take(line, &row, &mut ids));
            if let Err(problem) = done {
                return Err(Error { line, problem });
            }
        }
        drop(ids);
        if trace.areas.iter().any(|area| area.kind == Kind::VmMapRam) {
            trace.leave_out(|kind| matches!(kind, Kind::VmapBlock | Kind::VmMapRamArea));
        }
        Ok(trace)
    }

    fn take(&mut self, line: u32, row: &Row, ids: &mut BTreeMap<u64, Known>) -> Result<(), Problem<'static>> {
        let id = row.id;
        self.nr_cpus = self.nr_cpus.max(row.cpu + 1);
        let action = match row.op {
            Op::Pre(kind) | Op::Alloc(kind) => {
                if let Some(known) = ids.get(&id) {
                    let line = self.areas[known.area as usize].line;
                    return Err(Problem::DuplicateId { id, line });
                }
                let area = self.areas.len() as u32;
                let guard = if kind.has_guard() { PAGE } else { 0 };
                self.areas.push(Area {
                    id,
                    kind,
                    size: row.size - guard,
                    align: row.align,
                    line,
                });
                ids.insert(id, Known { area, freed: 0 });
                if matches!(row.op, Op::Pre(_)) {
                    if !self.events.is_empty() {
                        return Err(Problem::LatePre);
                    }
                    self.nr_pre += 1;
                    return Ok(());
                }
                Action::Alloc(area)
            }
            Op::Free(_) => match ids.get_mut(&id) {
                None => return Err(Problem::UnknownId(id)),
                Some(known) if known.freed != 0 => {
                    let line = known.freed;
                    return Err(Problem::FreedId { id, line });
                }
                Some(known) => {
                    known.freed = line;
                    Action::Free(known.area)
                }
            },
            Op::Purge(kind) => Action::Purge(kind),
        };
        self.events.push(Event {
            line,
            cpu: row.cpu,
            action,
        });
        Ok(())
    }

    fn leave_out(&mut self, unwanted: impl Fn(Kind) -> bool) {
        let before = self.nr_pre + self.events.len();
        let mut numbers = Vec::with_capacity(self.areas.len());
        let mut nr = 0;
        for area in &self.areas {
            let stays = !unwanted(area.kind);
            numbers.push(stays.then_some(nr));
            nr += u32::from(stays);
        }
        let pre = numbers[..self.nr_pre].iter().flatten().count();
        self.events.retain_mut(|event| match &mut event.action {
            Action::Alloc(area) | Action::Free(area) => match numbers[*area as usize] {
                Some(number) => {
                    *area = number;
                    true
                }
                None => false,
            },
            Action::Purge(_) => true,
        });
        self.areas.retain(|area| !unwanted(area.kind));
        self.nr_pre = pre;
        self.nr_skipped = before - pre - self.events.len();
    }

    /// Returns its area, if it has one.
    #[must_use]
    pub fn area_of(&self, event: &Event) -> Option<&Area> {
        match event.action {
            Action::Alloc(area) | Action::Free(area) => self.areas.get(area as usize),
            Action::Purge(_) => None,
        }
    }
}

struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Problem<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let (line, rest) = self.0.split_at(end);
                self.0 = &rest[1..];
                Some(Ok(line))
            }
            None => {
                self.0 = &[];
                Some(Err(Problem::CutOff))
            }
        }
    }
}
