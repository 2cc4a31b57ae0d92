pub mod silicon;

use core::hint::black_box;

use kernel::arch::features::Features;
use kernel::arch::interrupts;
use kernel::arch::pmu::{self, InstructionCounter, Unavailable};

use crate::options::{CountedBy, Options};

pub const RUNS: usize = 101;
pub const RUNS_LARGE: usize = 41;
pub const LARGE: u64 = 32 << 20;
/// What is made lazily is there afterwards.
pub const WARM_UP: usize = 3;

/// That the compiler may put around the loop of known length.
const MOST_AROUND: u32 = 4;

#[must_use]
pub const fn runs(size: u64) -> usize {
    if size >= LARGE { RUNS_LARGE } else { RUNS }
}

#[derive(Clone, Copy, Debug)]
pub enum Error {
    /// Or longer addresses.
    PageSize,
    Unavailable(Unavailable),
    Inexact {
        executed: u32,
        counted: u32,
    },
    /// MiB.
    NoMemory(u64),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PageSize => {
                f.write_str("the cases are those of Linux with pages of 4 KiB and 48-bit addresses, which this image has not")
            }
            Self::Unavailable(why) => write!(f, "{why}"),
            Self::Inexact { executed, counted } => write!(
                f,
                "the instruction counter counts {counted} for {executed} instructions; boot with -icount shift=0"
            ),
            Self::NoMemory(mib) => write!(f, "`bench.evict={mib}`: there is no block of so much memory; less, or 0, may do"),
        }
    }
}

#[derive(Debug)]
pub struct Instrument {
    empty: u32,
}

impl Instrument {
    /// # Errors
    /// What is asked for cannot be counted.
    pub fn chosen(options: &Options<'_>, features: &Features) -> Result<Self, Error> {
        match options.counters {
            CountedBy::Instructions => Self::new(features),
            CountedBy::Pmu => silicon::start(features, options.evict).map(|()| Self { empty: 0 }),
        }
    }

    /// Checks the counter with loops of known length.
    ///
    /// # Errors
    /// No counter, or not exact.
    pub fn new(features: &Features) -> Result<Self, Error> {
        // It counts until the machine is off.
        InstructionCounter::start(features).map_err(Error::Unavailable)?;
        let mut instrument = Self { empty: 0 };
        instrument.empty = instrument.count(|| ()).1;
        let mut around = 0;
        for rounds in [1u32, 10, 1_000, 1_000_000] {
            let rounds = black_box(rounds);
            let ((), counted) = instrument.count(|| pmu::known_loop(rounds));
            if rounds == 1 {
                around = counted.wrapping_sub(2).min(MOST_AROUND);
            }
            let executed = 2 * rounds + around;
            if counted != executed {
                return Err(Error::Inexact { executed, counted });
            }
        }
        Ok(instrument)
    }

    #[must_use]
    pub const fn empty(&self) -> u32 {
        self.empty
    }

    /// Returns what `work` took: instructions, or the number of a reading of
    /// [`Silicon`](silicon::Silicon).
    #[inline(always)]
    pub fn count<R>(&self, work: impl FnOnce() -> R) -> (R, u32) {
        let _masked = interrupts::mask_all();
        let before = pmu::begin();
        let result = work();
        let after = pmu::end();
        (result, after.wrapping_sub(before).wrapping_sub(self.empty))
    }
}

#[derive(Clone, Debug)]
pub struct Samples {
    values: [u32; RUNS],
    nr: usize,
}

impl Samples {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: [0; RUNS],
            nr: 0,
        }
    }

    #[must_use]
    pub fn values(&self) -> &[u32] {
        &self.values[..self.nr]
    }

    pub fn add(&mut self, instructions: u32) {
        self.values[self.nr] = instructions;
        self.nr += 1;
    }

    /// Returns instructions; with `bench.counters=pmu`, the number of a result in `median`.
    ///
    /// # Panics
    /// Without a sample.
    #[must_use]
    pub fn summary(&self) -> Summary {
        if let Some(silicon) = silicon::silicon() {
            return silicon.summary(self);
        }
        let mut sorted = self.values;
        let sorted = &mut sorted[..self.nr];
        assert!(!sorted.is_empty(), "a case without a run");
        sorted.sort_unstable();
        Summary {
            median: sorted[sorted.len() / 2],
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            runs: sorted.len(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    pub median: u32,
    pub min: u32,
    pub max: u32,
    pub runs: usize,
}
