use core::fmt;

use kernel::arch::time;
use kernel::layout;
use kernel::print;
use paging::LeafCounts;

use super::OURS;
use super::api::AREAS;
use super::counting::Counts;
use super::loops::LOOPS;
use crate::measure::silicon::{Silicon, Spread, State, silicon};
use crate::measure::{Samples, Summary};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Map,
    Unmap,
    Lazy,
    Protect,
    Loop,
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::Lazy => "lazy",
            Self::Protect => "protect",
            Self::Loop => "loop",
        }
    }
}

pub struct Line<'a> {
    pub case: &'a str,
    pub walker: &'a str,
    pub op: Op,
    pub instructions: Summary,
    pub counts: Option<Counts>,
    pub counted: u64,
    /// Without setup and teardown.
    pub steady: Option<u32>,
    pub leaves: Option<LeafCounts>,
    pub note: &'a str,
}

impl<'a> Line<'a> {
    #[must_use]
    pub fn of(case: &'a str, op: Op, samples: &Samples) -> Self {
        Self::new(case, op, samples.summary())
    }

    #[must_use]
    pub const fn new(case: &'a str, op: Op, instructions: Summary) -> Self {
        Self {
            case,
            walker: OURS,
            op,
            instructions,
            counts: None,
            counted: 1,
            steady: None,
            leaves: None,
            note: "",
        }
    }

    #[must_use]
    pub const fn counts(self, counts: Counts) -> Self {
        Self {
            counts: Some(counts),
            ..self
        }
    }

    #[must_use]
    pub const fn leaves(self, leaves: LeafCounts) -> Self {
        Self {
            leaves: Some(leaves),
            ..self
        }
    }

    #[inline(never)]
    fn print_figures(&self) {
        let Summary {
            median,
            min,
            max,
            runs,
        } = self.instructions;
        let Some(silicon) = silicon() else {
            print!(",\"instructions\":{median},\"min\":{min},\"max\":{max},\"runs\":{runs}");
            return;
        };
        print!(",\"state\":\"{}\",\"runs\":{runs}", silicon.state().name());
        let calls = match self.op {
            Op::Lazy => AREAS,
            Op::Loop => LOOPS,
            _ => 1,
        };
        let spreads = silicon.result(&self.instructions);
        for (name, place) in silicon.counters.each() {
            if let Ok(place) = place {
                spread(name, spreads[place].per(calls as u64));
            }
        }
    }

    /// Prints it. Names need no escapes.
    pub fn print(&self) {
        print!(
            "bench {{\"case\":\"{}\",\"walker\":\"{}\",\"op\":\"{}\"",
            self.case,
            self.walker,
            self.op.name()
        );
        self.print_figures();
        if let Some(steady) = self.steady {
            print!(",\"steady\":{steady}");
        }
        if let Some(counts) = self.counts {
            let each = [
                ("loads", counts.loads),
                ("stores", counts.stores),
                ("allocated", counts.allocated),
                ("freed", counts.freed),
                ("tlbi", counts.tlbi),
                ("dsb", counts.dsb),
                ("isb", counts.isb),
            ];
            for (what, nr) in each {
                print!(",\"{what}\":{}", Mean(nr, self.counted));
            }
        }
        if let Some(leaves) = &self.leaves {
            print!(",\"leaves\":\"{}\"", leaves.display::<layout::Granule>());
        }
        if !self.note.is_empty() {
            print!(",\"note\":\"{}\"", self.note);
        }
        print!("}}\n");
    }
}

/// Minimum, quartiles, maximum.
fn spread(name: &str, spread: Spread) {
    let Spread {
        min,
        first_quartile,
        median,
        third_quartile,
        max,
    } = spread;
    print!(",\"{name}\":[{min},{first_quartile},{median},{third_quartile},{max}]");
}

/// What each line has, what it has not and why, and what nothing costs: warm, that is taken off.
pub fn counters(silicon: &Silicon, evict: u64) {
    let counters = &silicon.counters;
    print!(
        ",\"counters\":\"pmu\",\"pmu\":\"{}\",\"event_counters\":{},\"hz\":{},\"evict\":{evict},\"granule\":{}",
        counters.version(),
        counters.nr_counters(),
        time::frequency(),
        layout::PAGE_SIZE
    );
    for (part, is_part) in [("counted", true), ("not_counted", false)] {
        print!(",\"{part}\":{{");
        let of_part = counters.each().filter(|(_, place)| place.is_ok() == is_part);
        for (i, (name, place)) in of_part.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let why = place.err().map_or("", |lack| lack.reason());
            print!("{comma}\"{name}\":\"{why}\"");
        }
        print!("}}");
    }
    for state in [State::Warm, State::Cold] {
        print!(",\"empty_{}\":{{", state.name());
        let counted = counters
            .each()
            .filter_map(|(name, place)| Some((name, place.ok()?)));
        for (i, (name, place)) in counted.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            print!("{comma}\"{name}\":{}", silicon.empty(state, place));
        }
        print!("}}");
    }
    print!(",\"commit\":\"{}\"", commit());
}

/// `scripts/flatten` writes the commit behind the words.
#[used]
static COMMIT: [u8; 60] = *b"vmwalk commit: unknown                                      ";

fn commit() -> &'static str {
    let bytes: &'static [u8] = core::hint::black_box(&COMMIT);
    core::str::from_utf8(&bytes[b"vmwalk commit: ".len()..]).map_or("unknown", str::trim_ascii)
}

pub fn name(name: &str) {
    print!("bench {{\"name\":\"{name}\"}}\n");
}

pub fn point(curve: &str, x: u64, y: u64) {
    print!("bench {{\"curve\":\"{curve}\",\"x\":{x},\"y\":{y}}}\n");
}

/// With three decimals unless it is whole.
struct Mean(u64, u64);

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(sum, nr) = *self;
        if sum.is_multiple_of(nr) {
            return write!(f, "{}", sum / nr);
        }
        let thousandths = (sum * 1000 + nr / 2) / nr;
        write!(f, "{}.{:03}", thousandths / 1000, thousandths % 1000)
    }
}
