//! Each thread of the checker (`shuttle`) is a CPU of the model, and every table access, barrier
//! and lock a step where another may run. What a CPU knows, it learned through locks. A [`Plant`]
//! breaks one promise of the machine, to show that a test notices.

mod by_address;
mod locks;
mod machine;
mod ram;
mod rig;
mod scenario;
mod seen;
mod story;

pub use by_address::ByAddress;
pub use locks::{CheckedLock, me};
pub use machine::Area;
pub use ram::POISON;
pub use rig::Rig;
pub use scenario::{Scenario, Schedules};

use paging::{Granule, Level};

/// 512 pages, three levels of 8 descriptors: leaves of 1, 2, 8, 16, 64 and 128 pages.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Small;

impl Granule for Small {
    const NAME: &'static str = "small";
    const PAGE_SHIFT: u32 = 12;
    const VA_BITS: u32 = 21;
    const INDEX_BITS: u32 = 3;

    fn cont_shift(_level: Level) -> u32 {
        1
    }
}

pub const PAGE: u64 = Small::PAGE_SIZE;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    Nothing,
    NoLeadingDsb,
    NoTrailingDsb,
    NoTlbi,
    LooksDoNotExclude,
    /// A lock is taken when what it guards is first accessed, or never.
    NoHoldOfNothing,
    LocksDoNotOrder,
    /// One block in seven is lost.
    FramesLeak,
    AliasIsForgotten,
}
