//! Bringing a CPU up: PSCI CPU_ON at the boot crate's `secondary_entry`, or a call to the [`pen`];
//! then [`secondary_main`].
//!
//! Each CPU is turned on twice. First, before the final tables, it only identifies itself
//! ([`identify`]) and is off again: the tables' policy depends on the features and errata of every
//! CPU (DESIGN rules 11 and 13).

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use super::pen;
use super::{ABANDONED, ABSENT, AWAKE, IDLE, OFF, SLOT, STARTING, Slot, WAKING, publish, serve};
use crate::BootInfo;
use crate::arch::identity;
use crate::arch::percpu;
use crate::arch::time::Deadline;
use crate::arch::{cache, early_console, exceptions, mmu, psci};
use crate::drivers::device_tree::EnableMethod;
use crate::mm::per_cpu as memory;
use crate::per_cpu;

/// What a CPU needs to come up. `secondary_entry` reads it by physical address, MMU off, so it is
/// cleaned to the point of coherency, and fills its cache lines.
#[repr(C, align(4096))]
pub struct SecondaryArgs {
    /// The identity map.
    pub ttbr0: u64,
    /// The final tables.
    pub ttbr1: u64,
    pub tcr: u64,
    pub mair: u64,
    /// With the MMU on.
    pub sctlr: u64,
    /// With the MMU on.
    pub stack_top: usize,
    pub entry: usize,
    /// In x0.
    pub argument: usize,
    stack_bottom: usize,
    /// Its first half is [`identify_main`]'s stack, its end the stack with the MMU off.
    scratch: [u64; 503],
}

/// In bytes, a multiple of 16.
const IDENTIFY_STACK_SIZE: usize = 1 << 11;

const EMPTY: SecondaryArgs = SecondaryArgs {
    ttbr0: 0,
    ttbr1: 0,
    tcr: 0,
    mair: 0,
    sctlr: 0,
    stack_top: 0,
    entry: 0,
    argument: 0,
    stack_bottom: 0,
    scratch: [0; 503],
};

/// In that CPU's block, written by the CPU that turns it on.
struct Args(UnsafeCell<SecondaryArgs>);

// SAFETY: written by the CPU that moved the slot to STARTING, and then read by the slot's own CPU.
unsafe impl Sync for Args {}

/// A CPU that can be turned on.
struct Start {
    mpidr: AtomicU64,
    /// The physical address of its arguments.
    context: AtomicU64,
    /// How often it was turned on.
    nr: AtomicU64,
    /// Where it goes back to the pen; 0 with PSCI.
    pen_return: AtomicU64,
    /// Not 0: identified, and in the pen again.
    gone: AtomicU64,
}

per_cpu! {
    /// Of each CPU, so that a late one finds its own.
    static ARGS: Args = Args(UnsafeCell::new(EMPTY));
}

per_cpu! {
    static START: Start = Start {
        mpidr: AtomicU64::new(0),
        context: AtomicU64::new(0),
        nr: AtomicU64::new(0),
        pen_return: AtomicU64::new(0),
        gone: AtomicU64::new(0),
    };
}

fn args_of(index: usize) -> *mut SecondaryArgs {
    ARGS.of(index).0.get()
}

/// How long a CPU polls for a job before it turns itself off.
pub const LINGER: Duration = Duration::from_micros(200);

/// Between attempts to turn on a CPU that is not off yet.
const RETRY: Duration = Duration::from_micros(50);

/// The longest from CPU_ON until a CPU is up: an emulated one may not run for seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a CPU did not come up. The boot goes on without it.
#[derive(Clone, Copy, Debug)]
pub enum StartError {
    /// There is no room for this number, or it was started before.
    Index(usize),
    /// The device tree has no PSCI conduit.
    NoConduit,
    /// Firmware refused.
    Firmware { mpidr: u64, error: psci::Error },
    /// It did not come. It may still, and parks then, so its stack stays taken.
    TimedOut { mpidr: u64 },
    /// It identified itself, and did not turn off.
    StaysOn { mpidr: u64 },
    /// It has not identified itself, so the tables may not suit it.
    Unidentified(usize),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "no room for CPU {index}, or started twice"),
            Self::NoConduit => write!(f, "the device tree does not say how PSCI is called"),
            Self::Firmware { mpidr, error } => write!(f, "PSCI CPU_ON for MPIDR {mpidr:#x}: {error}"),
            Self::TimedOut { mpidr } => {
                write!(f, "the CPU with MPIDR {mpidr:#x} did not come up in {PATIENCE:?}")
            }
            Self::StaysOn { mpidr } => {
                write!(
                    f,
                    "the CPU with MPIDR {mpidr:#x} did not turn itself off in {PATIENCE:?}"
                )
            }
            Self::Unidentified(index) => write!(f, "CPU {index} has not said what it is"),
        }
    }
}

/// Starts `cpu`, MPIDR and method, as number `index` (1 and up) on `stack` under `ttbr1`, a
/// TTBR1_EL1 value, and waits until it is up, for a bounded time.
///
/// # Errors
/// Why it is not up. Other CPUs are not affected.
///
/// # Safety
/// `stack` is mapped writable in `ttbr1`, its end 16-byte aligned, with an unmapped page below, and
/// is this CPU's for good, even after [`StartError::TimedOut`]. `ttbr1` maps the image at its
/// linked address.
pub unsafe fn start(
    info: &BootInfo,
    index: usize,
    cpu: (u64, EnableMethod),
    stack: Range<usize>,
    ttbr1: u64,
) -> Result<(), StartError> {
    let (mpidr, method) = cpu;
    let (slot, way) = claim(info, index, method)?;
    if identity::of_cpu(index).is_none() {
        slot.state.store(ABANDONED, Ordering::Release);
        return Err(StartError::Unidentified(index));
    }
    // SAFETY: STARTING is ours alone, and the CPU that used these arguments is off.
    unsafe { prepare(info, index, mpidr, ttbr1, stack, secondary_main) };
    turn_on(index, way, STARTING)
}

#[derive(Clone, Copy)]
enum Way {
    Psci(psci::Conduit),
    Pen,
}

/// Moves the slot of CPU `index` from ABSENT to STARTING, and returns it and how to turn it on.
fn claim(info: &BootInfo, index: usize, method: EnableMethod) -> Result<(&'static Slot, Way), StartError> {
    let slot = SLOT
        .get(index)
        .filter(|_| index != 0)
        .ok_or(StartError::Index(index))?;
    let way = match method {
        EnableMethod::Psci => Way::Psci(info.psci_conduit.ok_or(StartError::NoConduit)?),
        EnableMethod::SpinTable(_) => Way::Pen,
    };
    slot.state
        .compare_exchange(ABSENT, STARTING, Ordering::Acquire, Ordering::Relaxed)
        .map_err(|_| StartError::Index(index))?;
    Ok((slot, way))
}

/// Writes what CPU `index` comes up with.
///
/// # Safety
/// This call moved the slot to STARTING, and no CPU uses its arguments.
unsafe fn prepare(
    info: &BootInfo,
    index: usize,
    mpidr: u64,
    ttbr1: u64,
    stack: Range<usize>,
    main: extern "C" fn(usize) -> !,
) {
    let args = args_of(index);
    // SAFETY: the caller's promise.
    unsafe {
        args.write(SecondaryArgs {
            ttbr0: info.ttbr0_identity,
            ttbr1,
            tcr: info.tcr,
            mair: info.mair,
            sctlr: info.sctlr,
            stack_top: stack.end,
            entry: main as *const () as usize,
            argument: index,
            stack_bottom: stack.start,
            ..EMPTY
        });
    }
    ENTRY.store(info.secondary_entry, Ordering::Relaxed);
    let start = START.of(index);
    start.mpidr.store(mpidr, Ordering::Relaxed);
    start.context.store(memory::pa(args as usize), Ordering::Relaxed);
}

/// Turns CPU `index` on under the first tables until it has identified itself
/// ([`identity::of_cpu`]) and is off again.
///
/// # Errors
/// Why it is not known. [`start`] refuses it then.
pub fn identify(info: &BootInfo, index: usize, mpidr: u64, method: EnableMethod) -> Result<(), StartError> {
    let (slot, way) = claim(info, index, method)?;
    let scratch = args_of(index) as usize + offset_of!(SecondaryArgs, scratch);
    let bottom = scratch.next_multiple_of(16);
    // SAFETY: the slot was ABSENT, so nothing uses these arguments. The first tables map them.
    unsafe {
        prepare(
            info,
            index,
            mpidr,
            info.ttbr1_first,
            bottom..bottom + IDENTIFY_STACK_SIZE,
            identify_main,
        );
    }
    if let EnableMethod::SpinTable(release) = method {
        START
            .of(index)
            .pen_return
            .store(info.pen_return, Ordering::Relaxed);
        pen::let_go(info, release);
    }
    let result = match way {
        Way::Psci(conduit) => ask(index, conduit, mpidr),
        Way::Pen => ask_in_pen(index, mpidr),
    };
    // A CPU that may still be on keeps its arguments.
    let state = if result.is_ok() { ABSENT } else { ABANDONED };
    slot.state.store(state, Ordering::Release);
    result
}

/// Turns CPU `index` on until it is known and off.
fn ask(index: usize, conduit: psci::Conduit, mpidr: u64) -> Result<(), StartError> {
    let args = args_of(index);
    // As in `turn_on`.
    cache::clean_and_invalidate_to_poc(args as usize, size_of::<SecondaryArgs>());
    let (entry, context) = (&ENTRY, &START.of(index).context);
    psci::cpu_on(
        conduit,
        mpidr,
        entry.load(Ordering::Relaxed),
        context.load(Ordering::Relaxed),
    )
    .map_err(|error| StartError::Firmware { mpidr, error })?;
    let limit = Deadline::after(PATIENCE);
    if !limit.wait_until(|| identity::of_cpu(index).is_some()) {
        return Err(StartError::TimedOut { mpidr });
    }
    while !psci::is_off(conduit, mpidr) {
        if limit.is_past() {
            return Err(StartError::StaysOn { mpidr });
        }
        // As in `turn_on`.
        Deadline::after(RETRY).wait();
    }
    Ok(())
}

/// [`ask`] of a CPU in the pen.
fn ask_in_pen(index: usize, mpidr: u64) -> Result<(), StartError> {
    let args = args_of(index);
    // As in `turn_on`.
    cache::clean_and_invalidate_to_poc(args as usize, size_of::<SecondaryArgs>());
    let start = START.of(index);
    pen::call(mpidr, start.context.load(Ordering::Relaxed));
    let gone = || start.gone.load(Ordering::Acquire) != 0;
    let came = Deadline::after(PATIENCE).wait_until(gone);
    pen::end_call();
    if came {
        Ok(())
    } else {
        Err(StartError::TimedOut { mpidr })
    }
}

/// The first Rust of a CPU to be identified. Without per-CPU data and vectors, it must not fault.
extern "C" fn identify_main(index: usize) -> ! {
    identity::record(index);
    let start = START.of(index);
    let pen_return = start.pen_return.load(Ordering::Relaxed);
    if pen_return != 0 {
        // SAFETY: `secondary_entry` turned the identity map on; the address is `BootInfo`'s.
        unsafe { pen::go_back(pen_return, &start.gone) };
    }
    if let Some(conduit) = psci::conduit() {
        // Firmware cleans the caches of a CPU that it turns off (PSCI, CPU_OFF), so the record is
        // seen.
        psci::cpu_off(conduit);
    }
    psci::park()
}

/// `secondary_entry`, for every turn-on.
static ENTRY: AtomicU64 = AtomicU64::new(0);

/// Returns how often CPU `cpu` was turned on.
///
/// # Panics
/// If the machine has no such CPU.
#[must_use]
pub fn nr_turned_on(cpu: usize) -> u64 {
    START.of(cpu).nr.load(Ordering::Relaxed)
}

/// Firmware refused CPU_OFF: not asked again.
static STAYS_ON: AtomicBool = AtomicBool::new(false);

/// Turns CPU `index` on, whose state the caller made `from` and whose arguments are written, and
/// waits until the state changes.
fn turn_on(index: usize, way: Way, from: u32) -> Result<(), StartError> {
    let (slot, start) = (SLOT.of(index), START.of(index));
    let mpidr = start.mpidr.load(Ordering::Relaxed);
    let args = args_of(index);
    // That CPU reads with caches off, and no line of ours may be written back over its scratch
    // stack: clean and invalidate.
    cache::clean_and_invalidate_to_poc(args as usize, size_of::<SecondaryArgs>());
    let limit = Deadline::after(PATIENCE);
    let conduit = match way {
        Way::Psci(conduit) => conduit,
        Way::Pen => {
            start.nr.fetch_add(1, Ordering::Relaxed);
            pen::call(mpidr, start.context.load(Ordering::Relaxed));
            let result = wait_for_change(slot, mpidr, from, limit);
            pen::end_call();
            return result;
        }
    };
    loop {
        let answer = psci::cpu_on(
            conduit,
            mpidr,
            ENTRY.load(Ordering::Relaxed),
            start.context.load(Ordering::Relaxed),
        );
        match answer {
            Ok(()) => {
                start.nr.fetch_add(1, Ordering::Relaxed);
                break;
            }
            // It is turning itself off; or could not, and is IDLE.
            Err(psci::Error::AlreadyOn | psci::Error::OnPending) if !limit.is_past() => {
                if slot.state.load(Ordering::Acquire) != from {
                    return Ok(());
                }
                // Lets firmware, or the emulator, finish that.
                Deadline::after(RETRY).wait();
            }
            Err(error) => {
                slot.state.store(ABANDONED, Ordering::Release);
                return Err(StartError::Firmware { mpidr, error });
            }
        }
    }
    wait_for_change(slot, mpidr, from, limit)
}

/// Waits until a CPU's state is no longer `from`. Gives it up after `limit`.
fn wait_for_change(slot: &Slot, mpidr: u64, from: u32, limit: Deadline) -> Result<(), StartError> {
    // No WFE: a CPU that never comes sends no event.
    if !limit.wait_until(|| slot.state.load(Ordering::Acquire) != from) {
        // Either it parks, or it was just in time.
        let gave_up = slot
            .state
            .compare_exchange(from, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
        if gave_up.is_ok() {
            return Err(StartError::TimedOut { mpidr });
        }
    }
    Ok(())
}

/// Turns CPU `index` on again, if no other CPU does, and calls `woken`. Returns whether it is AWAKE
/// for the caller to post a job.
pub(super) fn wake(index: usize, woken: impl FnOnce()) -> bool {
    let slot = SLOT.of(index);
    let ours = slot
        .state
        .compare_exchange(OFF, WAKING, Ordering::Acquire, Ordering::Relaxed);
    if ours.is_err() {
        return false;
    }
    // It was started by PSCI.
    let Some(conduit) = psci::conduit() else {
        return false;
    };
    let turned_on = turn_on(index, Way::Psci(conduit), WAKING);
    woken();
    match turned_on {
        // Otherwise it could not turn itself off: IDLE, or claimed.
        Ok(()) => slot.state.load(Ordering::Acquire) == AWAKE,
        Err(error) => {
            early_console::print(format_args!("vmwalk: CPU {index} is lost: {error}\n"));
            false
        }
    }
}

/// Returns whether CPU `cpu` turns itself off without work; one in a pen does not.
#[must_use]
pub fn turns_off(cpu: usize) -> bool {
    START.of(cpu).pen_return.load(Ordering::Relaxed) == 0
}

/// Turns this CPU off, whose slot is OFF. Returns if firmware does not.
pub(super) fn turn_off(slot: &Slot) {
    if !STAYS_ON.load(Ordering::Relaxed)
        && let Some(conduit) = psci::conduit()
    {
        // Firmware cleans the caches of a CPU that it turns off (PSCI, CPU_OFF).
        psci::cpu_off(conduit);
        STAYS_ON.store(true, Ordering::Relaxed);
    }
    // Still on, as the CPU that wakes it expects.
    publish(slot, IDLE);
}

/// The first Rust of a started CPU, on its own stack.
extern "C" fn secondary_main(index: usize) -> ! {
    // SAFETY: the index is `start`'s; the arguments were written before this CPU was turned on, and
    // are not again.
    let (bottom, top) = unsafe {
        let args = &*args_of(index);
        (args.stack_bottom, args.stack_top)
    };
    // SAFETY: this CPU is `index`, and runs on this stack.
    unsafe { percpu::init_secondary(index, bottom..top) };
    exceptions::install_vectors();
    mmu::disable_ttbr0();
    let slot = SLOT.of(index);
    let step = |from, to| {
        slot.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    };
    if !step(STARTING, IDLE) && !step(WAKING, AWAKE) {
        psci::park();
    }
    // The waiting CPU polls, so no event. And no second store: a job may be posted by now.
    serve(index)
}
