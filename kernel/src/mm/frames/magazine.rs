//! A cache of a few single frames for each CPU. Any CPU can drain it when memory is short.
//!
//! A magazine is a ring of slots. Only its own CPU puts frames in and keeps the count, with
//! interrupts masked. A frame is taken out by an atomic exchange of its slot with [`EMPTY`]: by the
//! magazine's own CPU, one at a time, or by a CPU that is short, all at once ([`drain`]). So each
//! frame is taken out once, the hot path writes no line that another CPU writes, and a CPU that is
//! busy or turned off holds nothing back. After a drain the count may be too high; an empty slot is
//! then skipped.
//!
//! Putting a frame in is a store-release, and the exchange in a drain is an acquire: what was
//! written to the frame before it was freed is ordered before what the buddy allocator writes to it.
//! The exchange by the magazine's own CPU needs no order: it finds its own store, or `EMPTY`.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};

use paging::Pfn;

use super::buddy;
use super::buddy::{BadFree, Buddy, State, Zones};
use crate::arch::interrupts;
use crate::arch::percpu::{MAX_CPUS, cpu_index};
use crate::mm::layout::PAGE_SIZE;
use crate::mm::linear_va;

/// Frames in a magazine at most.
const CAPACITY: usize = 32;
/// The order of the block that fills it, and as many frames as leave it when it is full.
const BATCH_ORDER: u8 = 4;
const BATCH: usize = 1 << BATCH_ORDER;

/// No frame.
const EMPTY: u64 = u64::MAX;

/// On cache lines of its own.
#[repr(align(128))]
struct Magazine {
    /// All but `nr` slots from the `first` on are empty.
    slots: [AtomicU64; CAPACITY],
    /// The slot that was filled first. Only the magazine's own CPU uses it, and `nr`.
    first: AtomicUsize,
    nr: AtomicUsize,
}

static MAGAZINES: [Magazine; MAX_CPUS] = [const {
    Magazine {
        slots: [const { AtomicU64::new(EMPTY) }; CAPACITY],
        first: AtomicUsize::new(0),
        nr: AtomicUsize::new(0),
    }
}; MAX_CPUS];

/// Frames that came back [without waiting](super::without_waiting) to a full magazine: the number of the last one, plus one, or 0. The first word of
/// each is the same of the next. Pushed one by one, taken all at once.
static ASIDE: AtomicU64 = AtomicU64::new(0);
static NR_ASIDE: AtomicUsize = AtomicUsize::new(0);

/// The first word of a frame in the linear map.
fn link(frame: u64) -> *mut u64 {
    linear_va(frame * PAGE_SIZE as u64) as *mut u64
}

#[cold]
fn put_aside(frame: u64) {
    NR_ASIDE.fetch_add(1, Relaxed);
    let mut last = ASIDE.load(Relaxed);
    loop {
        // SAFETY: a free frame, in the linear map, that this call alone knows of.
        unsafe { link(frame).write(last) };
        match ASIDE.compare_exchange_weak(last, frame + 1, Release, Relaxed) {
            Ok(_) => return,
            Err(found) => last = found,
        }
    }
}

/// Gives what was put aside to `buddy`.
fn take_aside(zones: &Zones, buddy: &mut Buddy) {
    if ASIDE.load(Relaxed) == 0 {
        return;
    }
    let mut last = ASIDE.swap(0, Acquire);
    while let Some(frame) = last.checked_sub(1) {
        // SAFETY: a free frame, in the linear map, that is this call's now; `put_aside` wrote the link.
        last = unsafe { link(frame).read() };
        buddy.free_cached(zones, frame);
        NR_ASIDE.fetch_sub(1, Relaxed);
    }
}

/// Frames in all magazines, and those put aside.
pub fn nr_cached() -> u64 {
    let slots = MAGAZINES.iter().flat_map(|magazine| &magazine.slots);
    let in_magazines = slots.filter(|slot| slot.load(Relaxed) != EMPTY).count();
    (in_magazines + NR_ASIDE.load(Relaxed)) as u64
}

impl Magazine {
    /// The `n`-th slot in the order in which they are filled.
    #[inline(always)]
    fn slot(&self, n: usize) -> &AtomicU64 {
        &self.slots[(self.first.load(Relaxed) + n) % CAPACITY]
    }

    /// Puts a frame in, whose state is [`State::CACHED`]. There is room.
    #[inline(always)]
    fn push(&self, frame: u64) {
        let nr = self.nr.load(Relaxed);
        self.slot(nr).store(frame, Release);
        self.nr.store(nr + 1, Relaxed);
    }

    /// Takes the newest frame out.
    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        loop {
            let nr = self.nr.load(Relaxed).checked_sub(1)?;
            self.nr.store(nr, Relaxed);
            // Empty if another CPU has drained this magazine.
            let frame = self.slot(nr).swap(EMPTY, Relaxed);
            if frame != EMPTY {
                return Some(frame);
            }
        }
    }
}

/// Runs `f` with this CPU's magazine.
#[inline(always)]
fn with_own<R>(f: impl FnOnce(&Magazine) -> R) -> R {
    let _masked = interrupts::mask();
    f(&MAGAZINES[cpu_index()])
}

#[inline]
pub fn allocate(zones: &Zones) -> Option<Pfn> {
    with_own(|own| {
        let frame = own.pop().or_else(|| refill(zones, own))?;
        zones.set_state(frame, State::used(0));
        Some(Pfn(frame))
    })
}

#[inline]
pub fn free(zones: &Zones, frame: Pfn) -> Result<(), BadFree> {
    with_own(|own| {
        let found = zones.state(frame.0);
        if found != State::used(0) {
            return Err(BadFree {
                frame,
                order: 0,
                found,
            });
        }
        let has_room = own.nr.load(Relaxed) < CAPACITY || give_back(zones, own);
        zones.set_state(frame.0, State::CACHED);
        if has_room {
            own.push(frame.0);
        } else {
            put_aside(frame.0);
        }
        Ok(())
    })
}

/// Gives the frames in the magazines of all CPUs, and those put aside, to the buddy allocator. The
/// buddy's lock is held for one magazine at a time. Stops where it would have to wait for the lock and
/// this CPU may not.
#[cold]
pub fn drain(zones: &Zones) {
    for magazine in &MAGAZINES {
        let Some(mut buddy) = buddy() else { return };
        take_aside(zones, &mut buddy);
        for slot in &magazine.slots {
            take(zones, &mut buddy, slot);
        }
    }
}

/// Gives the frame in `slot`, if there is one, to `buddy`.
fn take(zones: &Zones, buddy: &mut Buddy, slot: &AtomicU64) {
    // The load keeps the lines of empty magazines shared: an exchange would take them.
    if slot.load(Relaxed) == EMPTY {
        return;
    }
    let frame = slot.swap(EMPTY, Acquire);
    if frame != EMPTY {
        buddy.free_cached(zones, frame);
    }
}

/// Returns the first frame of a new batch. The others fill the magazine, which is empty, and will come
/// out in ascending order.
#[cold]
fn refill(zones: &Zones, own: &Magazine) -> Option<u64> {
    let mut buddy = buddy()?;
    take_aside(zones, &mut buddy);
    let (first, nr) = match buddy.allocate(zones, BATCH_ORDER) {
        Some(first) => (first.0, BATCH as u64),
        // Memory is short or in pieces: one will do.
        None => (buddy.allocate(zones, 0)?.0, 1),
    };
    for frame in (first + 1..first + nr).rev() {
        zones.set_state(frame, State::CACHED);
        own.push(frame);
    }
    Some(first)
}

/// Gives the oldest frames of a full magazine back. Whether it has room now.
#[cold]
fn give_back(zones: &Zones, own: &Magazine) -> bool {
    let Some(mut buddy) = buddy() else {
        return false;
    };
    take_aside(zones, &mut buddy);
    (0..BATCH).for_each(|n| take(zones, &mut buddy, own.slot(n)));
    own.first
        .store((own.first.load(Relaxed) + BATCH) % CAPACITY, Relaxed);
    own.nr.store(CAPACITY - BATCH, Relaxed);
    true
}
