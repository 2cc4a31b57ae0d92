//! What `bench.counters=pmu` counts of a call: time, cycles and events of this machine. A reading
//! has a number, which goes where otherwise an exact count goes.

use alloc::vec::Vec;
use core::cell::Cell;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use kernel::arch::features::Features;
use kernel::arch::mmu;
use kernel::arch::pmu::{self, Counters};
use kernel::layout::PAGE_SIZE;
use kernel::mm::{frames, linear_va};

use super::{Error, RUNS, Samples, Summary, WARM_UP};

/// More than are kept for later.
const RESULTS: usize = 8;

/// What is evicted for in each case and walker: more would take long.
const COLD_CALLS: usize = 72;

/// The number of no reading.
const NONE: u64 = u32::MAX as u64;

/// More than a case makes.
const READINGS: usize = 2048;

/// Before a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The call was made just before.
    Warm,
    /// Caches and TLB of this CPU have been filled with other things.
    Cold,
}

impl State {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

#[derive(Debug)]
pub struct Silicon {
    pub counters: Counters,
    cold: AtomicBool,
    /// Of [`COLD_CALLS`].
    left: AtomicUsize,
    /// Of nothing, in each [`State`]. The warm one is taken off; a cold one is no more than noise
    /// where the call is short.
    empty: [[AtomicU64; Counters::NR]; 2],
    readings: Vec<[AtomicU64; Counters::NR]>,
    next: AtomicUsize,
    results: [Cell<[Spread; Counters::NR]>; RESULTS],
    next_result: Cell<usize>,
    /// What is read before cold calls.
    evicted: &'static [u64],
}

// SAFETY: CPUs other than the boot CPU, whose counters these are, only ask whether it is there.
unsafe impl Sync for Silicon {}
// SAFETY: as above.
unsafe impl Send for Silicon {}

static SILICON: spin::Once<Silicon> = spin::Once::new();

/// Returns `None` where instructions are counted.
#[must_use]
pub fn silicon() -> Option<&'static Silicon> {
    SILICON.get()
}

fn zeroes() -> [AtomicU64; Counters::NR] {
    [const { AtomicU64::new(0) }; Counters::NR]
}

/// Counts from now on; before cold calls, `evict` MiB are read.
///
/// # Errors
/// There is no such block.
pub fn start(features: &Features, evict: u64) -> Result<(), Error> {
    if SILICON.is_completed() {
        return Ok(());
    }
    let evicted = memory(evict)?;
    let silicon = SILICON.call_once(|| Silicon {
        counters: Counters::new(features),
        cold: AtomicBool::new(false),
        left: AtomicUsize::new(COLD_CALLS),
        empty: [zeroes(), zeroes()],
        readings: (0..READINGS).map(|_| zeroes()).collect(),
        next: AtomicUsize::new(0),
        results: Default::default(),
        next_result: Cell::new(0),
        evicted,
    });
    pmu::set_hooks(pmu::Hooks { begin, end });
    for state in [State::Warm, State::Cold] {
        silicon.set(state);
        silicon.calibrate(state);
    }
    silicon.set(State::Warm);
    Ok(())
}

extern "C" fn begin() {
    if let Some(silicon) = silicon()
        && silicon.is_measured()
    {
        if silicon.state() == State::Cold {
            silicon.evict();
        }
        silicon.counters.begin();
    }
}

extern "C" fn end(ticks: u64) -> u64 {
    match silicon() {
        Some(silicon) if silicon.is_measured() => silicon.note(ticks),
        _ => NONE,
    }
}

/// Returns `taken / nr`; of a reading, its number, and what is shown is divided.
#[inline(never)]
#[must_use]
pub fn per(taken: u32, nr: u32) -> u32 {
    if silicon().is_some() { taken } else { taken / nr }
}

impl Silicon {
    pub fn set(&self, state: State) {
        self.cold.store(state == State::Cold, Relaxed);
        self.left.store(COLD_CALLS, Relaxed);
    }

    /// Cold, only so many calls are.
    fn is_measured(&self) -> bool {
        self.state() == State::Warm || self.left.load(Relaxed) != 0
    }

    #[must_use]
    pub fn state(&self) -> State {
        if self.cold.load(Relaxed) {
            State::Cold
        } else {
            State::Warm
        }
    }

    /// Returns the count at `place` of nothing.
    #[must_use]
    pub fn empty(&self, state: State, place: usize) -> u64 {
        self.empty[state as usize][place].load(Relaxed)
    }

    /// Reads a word of each 64 bytes, twice; then empties TLB and instruction cache. What this
    /// itself touches last is warm.
    fn evict(&self) {
        for _ in 0..2 {
            for word in self.evicted.iter().step_by(64 / size_of::<u64>()) {
                black_box(*word);
            }
        }
        mmu::forget_translations_and_fetches();
    }

    fn note(&self, ticks: u64) -> u64 {
        let mut counts = self.counters.end();
        counts[Counters::TIME] = ticks;
        if self.state() == State::Cold {
            self.left.fetch_sub(1, Relaxed);
        }
        let number = self.next.load(Relaxed);
        self.next.store((number + 1) % READINGS, Relaxed);
        let empty = &self.empty[State::Warm as usize];
        for (place, count) in counts.into_iter().enumerate() {
            let count = count.saturating_sub(empty[place].load(Relaxed));
            self.readings[number][place].store(count, Relaxed);
        }
        number as u64
    }

    fn calibrate(&self, state: State) {
        let mut samples = Samples::new();
        for run in 0..COLD_CALLS {
            let _masked = kernel::arch::interrupts::mask_all();
            let _ = pmu::begin();
            let number = pmu::end();
            if run >= WARM_UP {
                samples.add(number);
            }
        }
        for (place, empty) in self.empty[state as usize].iter().enumerate() {
            empty.store(self.spread(&samples, place).median, Relaxed);
        }
    }

    /// Keeps the spread of each count, by the number that is the median.
    #[cold]
    #[inline(never)]
    pub fn summary(&self, samples: &Samples) -> Summary {
        // What follows is of another case, or another walker.
        self.left.store(COLD_CALLS, Relaxed);
        let number = self.next_result.get();
        self.next_result.set((number + 1) % RESULTS);
        self.results[number].set(core::array::from_fn(|place| self.spread(samples, place)));
        Summary {
            median: number as u32,
            min: 0,
            max: 0,
            runs: self.numbers(samples).count(),
        }
    }

    /// Returns what [`summary`](Self::summary) kept, until it has kept a few others.
    #[must_use]
    pub fn result(&self, summary: &Summary) -> [Spread; Counters::NR] {
        self.results[summary.median as usize].get()
    }

    fn numbers<'a>(&'a self, samples: &'a Samples) -> impl Iterator<Item = u64> + 'a {
        samples
            .values()
            .iter()
            .map(|number| u64::from(*number))
            .filter(|number| *number != NONE)
    }

    /// Of the count at `place` of [`pmu::Counts`].
    ///
    /// # Panics
    /// Without a sample.
    fn spread(&self, samples: &Samples, place: usize) -> Spread {
        let mut sorted = [0; RUNS];
        let mut nr = 0;
        for number in self.numbers(samples) {
            sorted[nr] = self.readings[number as usize][place].load(Relaxed);
            nr += 1;
        }
        let sorted = &mut sorted[..nr];
        assert!(!sorted.is_empty(), "a case without a run");
        sorted.sort_unstable();
        let last = sorted.len() - 1;
        Spread {
            min: sorted[0],
            first_quartile: sorted[last / 4],
            median: sorted[sorted.len() / 2],
            third_quartile: sorted[last - last / 4],
            max: sorted[last],
        }
    }
}

/// Stays allocated.
fn memory(mib: u64) -> Result<&'static [u64], Error> {
    if mib == 0 {
        return Ok(&[]);
    }
    let size = mib << 20;
    let order = (size / PAGE_SIZE as u64).next_power_of_two().ilog2() as u8;
    let first = if order > frames::MAX_ORDER {
        None
    } else {
        frames::allocate(order)
    };
    let first = first.ok_or(Error::NoMemory(mib))?;
    let words = linear_va(first.0 * PAGE_SIZE as u64) as *mut u64;
    let nr = size as usize / size_of::<u64>();
    // Written: of memory never written, a hypervisor may have one page.
    // SAFETY: the block is in the linear map, and ours for ever.
    unsafe { words.write_bytes(0, nr) };
    // SAFETY: as above, and initialised.
    Ok(unsafe { core::slice::from_raw_parts(words, nr) })
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Spread {
    pub min: u64,
    pub first_quartile: u64,
    pub median: u64,
    pub third_quartile: u64,
    pub max: u64,
}

impl Spread {
    #[must_use]
    pub const fn per(self, nr: u64) -> Self {
        Self {
            min: self.min / nr,
            first_quartile: self.first_quartile / nr,
            median: self.median / nr,
            third_quartile: self.third_quartile / nr,
            max: self.max / nr,
        }
    }
}
