//! The other CPUs: bringing them up, and running closures on them.
//!
//! Without inter-processor interrupts: a CPU polls its slot for a job, and the poster waits for
//! completion. After `start::LINGER` without work, a CPU turns itself off through PSCI until the
//! next job. The holder of a slot's state may take the step after it:
//!
//! ```text
//!     identify, start          that CPU        run_on, on_each_cpu            that CPU
//!   ABSENT ---------> STARTING -------> IDLE ---------> CLAIMED --> POSTED ----------> IDLE
//!                      |                 |   (job is written) ^       ^   (job runs)
//!   start, after       |                 | that CPU, after    |       | who turned it on
//!   PATIENCE           v                 v LINGER             |       |
//!              ABANDONED <-- WAKING <-- OFF                   |       |
//!     (parks if it comes)     |      next job                 |       |
//!                             +----------------> AWAKE -------|-------+
//!                                 that CPU                    job is written
//! ```
//!
//! A CPU turned on for a job waits for it: on a busy host, LINGER may end before the poster runs.
//!
//! A change of state is a store-release, then DSB ISHST: visible before SEV. The event register is
//! set even for a CPU about to wait (Arm ARM, "Wait for Event").
//!
//! # Code
//! Before a CPU executes [published](crate::arch::cache::publish_instructions) instructions, it
//! needs a context synchronisation event (Arm ARM B2.7.4). A job begins with an ISB, and so does
//! what follows its result. An address that comes by memory alone needs another.

mod pen;
mod start;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::arch::mmu::{dsb_ishst, isb};
use crate::arch::percpu;
use crate::arch::time::{Deadline, relax};
use crate::mm::areas;
use crate::per_cpu;

pub use pen::{PEN, Pen};
pub use start::{LINGER, SecondaryArgs, StartError, identify, nr_turned_on, start, turns_off};

const ABSENT: u32 = 0;
const STARTING: u32 = 1;
const IDLE: u32 = 2;
const CLAIMED: u32 = 3;
const POSTED: u32 = 4;
const ABANDONED: u32 = 5;
const OFF: u32 = 6;
const WAKING: u32 = 7;
const AWAKE: u32 = 8;

#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const ()),
    closure: *const (),
}

unsafe fn no_closure(_: *const ()) {}

#[repr(align(128))]
struct Slot {
    state: AtomicU32,
    job: UnsafeCell<Job>,
}

// SAFETY: `job` is written in CLAIMED, or AWAKE, by the CPU that made it so, and read by the slot's
// own in POSTED.
unsafe impl Sync for Slot {}

per_cpu! {
    static SLOT: Slot = Slot {
        state: AtomicU32::new(ABSENT),
        job: UnsafeCell::new(Job {
            call: no_closure,
            closure: core::ptr::null(),
        }),
    };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOnline(pub usize);

fn publish(slot: &Slot, state: u32) {
    slot.state.store(state, Ordering::Release);
    dsb_ishst();
    aarch64_cpu::asm::sev();
}

fn wait_until(mut done: impl FnMut() -> bool) {
    while !done() {
        aarch64_cpu::asm::wfe();
    }
}

#[must_use]
pub fn is_online(cpu: usize) -> bool {
    cpu == percpu::cpu_index()
        || SLOT.get(cpu).is_some_and(|slot| {
            let state = slot.state.load(Ordering::Acquire);
            matches!(state, IDLE | CLAIMED | POSTED | OFF | WAKING | AWAKE)
        })
        || cpu == 0
}

#[must_use]
pub fn is_turned_off(cpu: usize) -> bool {
    SLOT.get(cpu)
        .is_some_and(|slot| slot.state.load(Ordering::Acquire) == OFF)
}

pub fn online() -> impl Iterator<Item = usize> {
    (0..percpu::nr_cpus()).filter(|&cpu| is_online(cpu))
}

#[must_use]
pub fn nr_online() -> usize {
    online().count()
}

/// Posts `job` once `cpu` is idle. Calls `woken` if it turned it on.
///
/// # Safety
/// What the job refers to lives until it is done.
unsafe fn post(cpu: usize, job: Job, mut woken: impl FnMut()) -> Result<(), NotOnline> {
    let slot = SLOT.get(cpu).ok_or(NotOnline(cpu))?;
    loop {
        match slot.state.load(Ordering::Acquire) {
            ABSENT | ABANDONED => return Err(NotOnline(cpu)),
            // One turns it on; others wait for IDLE.
            OFF => {
                if start::wake(cpu, &mut woken) {
                    break;
                }
            }
            IDLE => {
                let claimed =
                    slot.state
                        .compare_exchange(IDLE, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
                if claimed.is_ok() {
                    break;
                }
            }
            // No WFE: a start that is given up sends no event.
            _ => relax(),
        }
    }
    // SAFETY: CLAIMED, or AWAKE, is ours.
    unsafe { slot.job.get().write(job) };
    publish(slot, POSTED);
    Ok(())
}

struct Call<F, R> {
    closure: UnsafeCell<Option<F>>,
    result: UnsafeCell<MaybeUninit<R>>,
    done: AtomicU32,
}

impl<F: FnOnce() -> R, R> Call<F, R> {
    unsafe fn run(this: *const ()) {
        let this = this.cast::<Self>();
        // SAFETY: the caller waits; until `done` the cells are this CPU's.
        let call = unsafe { &*this };
        // SAFETY: as above.
        let closure = unsafe { &mut *call.closure.get() }.take();
        if let Some(closure) = closure {
            let result = closure();
            // SAFETY: as above.
            unsafe { (*call.result.get()).write(result) };
        }
        call.done.store(1, Ordering::Release);
        dsb_ishst();
        aarch64_cpu::asm::sev();
    }
}

/// Runs `f` on `cpu` and returns its result. CPU 0 takes no jobs from others. Two other CPUs that
/// post to each other deadlock.
///
/// # Errors
/// `cpu` is not up, or is CPU 0 and not the caller.
pub fn run_on<R: Send>(cpu: usize, f: impl FnOnce() -> R + Send) -> Result<R, NotOnline> {
    run_on_woken(cpu, || (), f)
}

/// Calls `woken` after each turn-on of `cpu`, before the job.
///
/// # Errors
/// As for [`run_on`].
pub fn run_on_woken<R: Send>(
    cpu: usize,
    woken: impl FnMut(),
    f: impl FnOnce() -> R + Send,
) -> Result<R, NotOnline> {
    fn job_of<F: FnOnce() -> R, R>(call: &Call<F, R>) -> Job {
        Job {
            call: Call::<F, R>::run,
            closure: (&raw const *call).cast(),
        }
    }
    if cpu == percpu::cpu_index() {
        return Ok(f());
    }
    let call = Call {
        closure: UnsafeCell::new(Some(f)),
        result: UnsafeCell::new(MaybeUninit::uninit()),
        done: AtomicU32::new(0),
    };
    // SAFETY: `call` outlives the wait.
    unsafe { post(cpu, job_of(&call), woken) }?;
    wait_until(|| call.done.load(Ordering::Acquire) != 0);
    // The result may be code's address (Arm ARM B2.7.4).
    isb();
    // SAFETY: done: written, and not used by the other CPU.
    Ok(unsafe { call.result.into_inner().assume_init() })
}

/// Runs `f(cpu)` on all CPUs that are up, and waits.
///
/// # Panics
/// On another CPU than 0.
pub fn on_each_cpu(f: impl Fn(usize) + Sync) {
    struct Shared<'a, F> {
        f: &'a F,
        left: AtomicU32,
    }
    unsafe fn run<F: Fn(usize) + Sync>(shared: *const ()) {
        // SAFETY: the caller waits for all CPUs.
        let shared = unsafe { &*shared.cast::<Shared<'_, F>>() };
        (shared.f)(percpu::cpu_index());
        shared.left.fetch_sub(1, Ordering::AcqRel);
        dsb_ishst();
        aarch64_cpu::asm::sev();
    }
    fn runner<F: Fn(usize) + Sync>(_: &F) -> unsafe fn(*const ()) {
        run::<F>
    }
    let this = percpu::cpu_index();
    assert!(this == 0, "CPU {this} hands work to all CPUs; only CPU 0 can");
    let shared = Shared {
        f: &f,
        left: AtomicU32::new(0),
    };
    for cpu in online().filter(|&cpu| cpu != this) {
        shared.left.fetch_add(1, Ordering::AcqRel);
        let job = Job {
            call: runner(&f),
            closure: (&raw const shared).cast(),
        };
        // SAFETY: `shared` outlives the wait.
        if unsafe { post(cpu, job, || ()) }.is_err() {
            shared.left.fetch_sub(1, Ordering::AcqRel);
        }
    }
    f(this);
    wait_until(|| shared.left.load(Ordering::Acquire) == 0);
    // As in `run_on`.
    isb();
}

fn serve(cpu: usize) -> ! {
    let slot = SLOT.of(cpu);
    loop {
        // No WFE: LINGER must pass, and there is no event stream.
        let is_posted = || slot.state.load(Ordering::Acquire) == POSTED;
        let has_work =
            Deadline::after(start::LINGER).wait_until(|| is_posted() || areas::has_deferred_work());
        if has_work && !is_posted() {
            if !areas::do_deferred_work() {
                Deadline::after(start::LOOK_AGAIN).wait_until(is_posted);
            }
            continue;
        }
        if !has_work
            && start::turns_off(cpu)
            && slot
                .state
                .compare_exchange(IDLE, OFF, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        {
            start::turn_off(slot);
        }
        if slot.state.load(Ordering::Acquire) == POSTED {
            // The job may be published code (Arm ARM B2.7.4).
            isb();
            // SAFETY: POSTED: not written before IDLE.
            let job = unsafe { slot.job.get().read() };
            // SAFETY: lives until the job is done.
            unsafe { (job.call)(job.closure) };
            publish(slot, IDLE);
        }
    }
}
