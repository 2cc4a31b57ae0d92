//! A machine for tests of many threads: each thread of the checker (`shuttle`) is a CPU of the
//! model.
//!
//! Every access to a table, every barrier and every lock is a step at which another thread may go
//! on. The model judges each, and knows what a CPU knows only by the locks that were really handed
//! over. It panics at the first violation.
//!
//! A [`Plant`] breaks one promise of the machine, so that a test can show that it notices.

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

/// 512 pages of 4 KiB in three levels of 8 descriptors: leaves of 1, 2, 8, 16, 64 and 128 pages.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Small;

impl Granule for Small {
    const NAME: &'static str = "small";
    const PAGE_SHIFT: u32 = 12;
    const INDEX_BITS: u32 = 3;
    const ROOT_LEVEL: Level = 1;
    const VA_BITS: u32 = 21;
    const TLBI_TG: u64 = 1;

    const FIRST_LEAF_LEVEL: Level = 1;
    fn cont_shift(_level: Level) -> u32 {
        1
    }
}

pub const PAGE: u64 = Small::PAGE_SIZE;

/// What is wrong with a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    Nothing,
    /// The DSB ISH in front of a TLBI is left out.
    NoLeadingDsb,
    /// The DSB ISH behind a TLBI is left out.
    NoTrailingDsb,
    /// TLBIs are left out.
    NoTlbi,
    /// The third CPU takes locks, and keeps no other out by them.
    LooksDoNotExclude,
    /// The taker of a lock does not see what was stored before it was dropped: a lock without
    /// acquire.
    LocksDoNotOrder,
    /// One block of frames in seven is lost when it is freed.
    FramesLeak,
    /// The linear map is not edited.
    AliasIsForgotten,
}
