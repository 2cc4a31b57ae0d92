//! Bringing a CPU up, by CPU_ON or a call to the [`pen`]: first to be identified ([`identify`]), as
//! the final tables depend on every CPU (DESIGN rules 11 and 13), then in [`secondary_main`].

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

/// Read by physical address, MMU off: cleaned to the point of coherency, on its own cache lines.
#[repr(C, align(4096))]
pub struct SecondaryArgs {
    pub ttbr0: u64,
    pub ttbr1: u64,
    pub tcr: u64,
    pub mair: u64,
    /// MMU on.
    pub sctlr: u64,
    pub stack_top: usize,
    pub entry: usize,
    pub argument: usize,
    stack_bottom: usize,
    /// The first half is [`identify_main`]'s stack, the end that with the MMU off.
    scratch: [u64; 503],
}

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

struct Args(UnsafeCell<SecondaryArgs>);

// SAFETY: written by the CPU that made the slot STARTING, then read by the slot's own.
unsafe impl Sync for Args {}

struct Start {
    mpidr: AtomicU64,
    context: AtomicU64,
    nr: AtomicU64,
    /// 0 with PSCI.
    pen_return: AtomicU64,
    /// Not 0: back in the pen.
    gone: AtomicU64,
}

per_cpu! {
    /// A late CPU finds its own.
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

/// Then it turns itself off.
pub const LINGER: Duration = Duration::from_micros(200);
/// Before an idle CPU looks again at deferred work that another CPU has locked: it writes a line
/// that all share.
pub const LOOK_AGAIN: Duration = Duration::from_micros(10);

const RETRY: Duration = Duration::from_micros(50);

/// An emulated CPU may not run for seconds.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub enum StartError {
    Index(usize),
    NoConduit,
    Firmware {
        mpidr: u64,
        error: psci::Error,
    },
    /// It parks if it comes, so its stack stays taken.
    TimedOut {
        mpidr: u64,
    },
    StaysOn {
        mpidr: u64,
    },
    /// The tables may not suit it.
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

/// Starts `cpu`, MPIDR and method, as `index` and waits, bounded, until it is up.
///
/// # Errors
/// Why it is not up.
///
/// # Safety
/// `stack` is mapped writable in `ttbr1`, its end 16-byte aligned, above an unmapped page, and this
/// CPU's for good, even after [`StartError::TimedOut`]. `ttbr1` maps the image at its linked
/// address.
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
    // SAFETY: STARTING is ours, and the CPU that used these arguments is off.
    unsafe { prepare(info, index, mpidr, ttbr1, stack, secondary_main) };
    turn_on(index, way, STARTING)
}

#[derive(Clone, Copy)]
enum Way {
    Psci(psci::Conduit),
    Pen,
}

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

/// # Safety
/// This call made the slot STARTING, and no CPU uses its arguments.
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

/// Has CPU `index` identified ([`identity::of_cpu`]) under the first tables, and off again.
///
/// # Errors
/// Why it is not; [`start`] refuses it then.
pub fn identify(info: &BootInfo, index: usize, mpidr: u64, method: EnableMethod) -> Result<(), StartError> {
    let (slot, way) = claim(info, index, method)?;
    let scratch = args_of(index) as usize + offset_of!(SecondaryArgs, scratch);
    let bottom = scratch.next_multiple_of(16);
    // SAFETY: ABSENT before, so nothing uses them. The first tables map them.
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
    // It may still be on.
    let state = if result.is_ok() { ABSENT } else { ABANDONED };
    slot.state.store(state, Ordering::Release);
    result
}

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

/// Must not fault, without per-CPU data and vectors.
extern "C" fn identify_main(index: usize) -> ! {
    identity::record(index);
    let start = START.of(index);
    let pen_return = start.pen_return.load(Ordering::Relaxed);
    if pen_return != 0 {
        // SAFETY: `secondary_entry` turned the identity map on; `BootInfo`'s address.
        unsafe { pen::go_back(pen_return, &start.gone) };
    }
    if let Some(conduit) = psci::conduit() {
        // Firmware cleans its caches (PSCI, CPU_OFF).
        psci::cpu_off(conduit);
    }
    psci::park()
}

static ENTRY: AtomicU64 = AtomicU64::new(0);

/// # Panics
/// If there is no such CPU.
#[must_use]
pub fn nr_turned_on(cpu: usize) -> u64 {
    START.of(cpu).nr.load(Ordering::Relaxed)
}

static STAYS_ON: AtomicBool = AtomicBool::new(false);

/// Its state `from` is the caller's.
fn turn_on(index: usize, way: Way, from: u32) -> Result<(), StartError> {
    let (slot, start) = (SLOT.of(index), START.of(index));
    let mpidr = start.mpidr.load(Ordering::Relaxed);
    let args = args_of(index);
    // Read with caches off, and no line may be written back over the scratch stack: clean and
    // invalidate.
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
            // It is going off; or could not, and is IDLE.
            Err(psci::Error::AlreadyOn | psci::Error::OnPending) if !limit.is_past() => {
                if slot.state.load(Ordering::Acquire) != from {
                    return Ok(());
                }
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

fn wait_for_change(slot: &Slot, mpidr: u64, from: u32, limit: Deadline) -> Result<(), StartError> {
    // No WFE: a CPU that never comes sends no event.
    if !limit.wait_until(|| slot.state.load(Ordering::Acquire) != from) {
        // It parks, or was just in time.
        let gave_up = slot
            .state
            .compare_exchange(from, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
        if gave_up.is_ok() {
            return Err(StartError::TimedOut { mpidr });
        }
    }
    Ok(())
}

/// Turns CPU `index` on, unless another does, and returns whether it is AWAKE, for the caller's
/// job.
pub(super) fn wake(index: usize, woken: impl FnOnce()) -> bool {
    let slot = SLOT.of(index);
    let ours = slot
        .state
        .compare_exchange(OFF, WAKING, Ordering::Acquire, Ordering::Relaxed);
    if ours.is_err() {
        return false;
    }
    let Some(conduit) = psci::conduit() else {
        return false;
    };
    let turned_on = turn_on(index, Way::Psci(conduit), WAKING);
    woken();
    match turned_on {
        // Else it could not turn off: IDLE, or claimed.
        Ok(()) => slot.state.load(Ordering::Acquire) == AWAKE,
        Err(error) => {
            early_console::print(format_args!("vmwalk: CPU {index} is lost: {error}\n"));
            false
        }
    }
}

/// Returns `false` in a pen.
#[must_use]
pub fn turns_off(cpu: usize) -> bool {
    START.of(cpu).pen_return.load(Ordering::Relaxed) == 0
}

/// Returns if firmware refuses.
pub(super) fn turn_off(slot: &Slot) {
    if !STAYS_ON.load(Ordering::Relaxed)
        && let Some(conduit) = psci::conduit()
    {
        // Firmware cleans its caches (PSCI, CPU_OFF).
        psci::cpu_off(conduit);
        STAYS_ON.store(true, Ordering::Relaxed);
    }
    publish(slot, IDLE);
}

extern "C" fn secondary_main(index: usize) -> ! {
    // SAFETY: `start`'s index; written before this CPU was on, and not again.
    let (bottom, top) = unsafe {
        let args = &*args_of(index);
        (args.stack_bottom, args.stack_top)
    };
    // SAFETY: this is CPU `index`, on this stack.
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
    // No second store: a job may be posted.
    serve(index)
}
