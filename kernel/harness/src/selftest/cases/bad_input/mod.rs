//! Impossible requests and wrong frees get the error that tells why, and change nothing. A new
//! error does not compile until it is listed with a test.

mod contexts;
mod exhaustion;
mod frees;
mod requests;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

use kernel::mm::areas::kernel_vmalloc;
use paging::VirtAddr;
use vmalloc::Error;

use crate::selftest::balance::Balance;
use crate::selftest::by_address::ByAddress;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult};

pub use contexts::{deferred_bad_frees, lock_is_taken, too_many_deferred};
pub(super) use exhaustion::AllFrames;
pub use exhaustion::{addresses_run_out, frames_run_out};
pub use frees::{
    anothers_area, double_free, foreign_address, guard_page, interior_address, nothing_mapped, odd_address,
    wrong_kind, wrong_length,
};
pub use requests::{
    alignment_of_no_power_of_two, changed_permissions, device_that_is_ram, duplicate_pages,
    nothing_asked_for, null_page, pages_taken_over, part_outside, physical_overflow, too_large,
    writable_and_executable,
};

/// As bits of [`number`].
static PRODUCED: AtomicU32 = AtomicU32::new(0);

fn refused<T>(
    what: &'static str,
    expected: Error,
    call: impl FnOnce() -> Result<T, Error>,
) -> Result<(), Failure> {
    refused_as(what, |_| expected, call)
}

/// The value is known only afterwards.
fn refused_as<T>(
    what: &'static str,
    expected: impl FnOnce(&Error) -> Error,
    call: impl FnOnce() -> Result<T, Error>,
) -> Result<(), Failure> {
    let before = Balance::take();
    let found = match call() {
        Err(found) => found,
        Ok(_) => return Err(Failure::NotRefused(what)),
    };
    let expected = expected(&found);
    if found != expected {
        return Err(Failure::Refusal {
            what,
            found_and_expected: Box::new([found, expected]),
        });
    }
    PRODUCED.fetch_or(1 << number(&found), Ordering::Relaxed);
    Balance::take().check_against(&before)
}

fn refuses(call: ByAddress, va: VirtAddr, expected: Error) -> Result<(), Failure> {
    // SAFETY: refused; otherwise `va` is of the test's area or of none, and the test has failed.
    refused(call.name(), expected, || unsafe { call.at(kernel_vmalloc(), va) })
}

macro_rules! errors {
    ($($error:ident => $test:path,)*) => {
        #[derive(Clone, Copy)]
        enum Listed {
            $($error,)*
        }

        fn number(error: &Error) -> u32 {
            (match error {
                $(Error::$error { .. } => Listed::$error,)*
                _ => panic!("an error that is not in the list: {error}"),
            }) as u32
        }

        const LIST: &[(Listed, &str, fn(&Context) -> TestResult)] = &[
            $((Listed::$error, stringify!($error), $test),)*
        ];
    };
}

errors! {
    Empty => nothing_asked_for,
    TooLarge => too_large,
    BadAlignment => alignment_of_no_power_of_two,
    BadPhysical => physical_overflow,
    Ram => device_that_is_ram,
    MemoryType => device_that_is_ram,
    OutOfSpace => addresses_run_out,
    OutOfFrames => frames_run_out,
    NotToBeTakenOver => pages_taken_over,
    OutOfNodes => frames_run_out,
    Map => null_page,
    Misaligned => odd_address,
    Outside => foreign_address,
    NotMapped => nothing_mapped,
    NoArea => foreign_address,
    Interior => interior_address,
    Guard => guard_page,
    Owned => anothers_area,
    WrongKind => wrong_kind,
    Freed => double_free,
    WrongLength => wrong_length,
    PermissionsChanged => changed_permissions,
    OutOfBounds => part_outside,
    WouldBlock => lock_is_taken,
    TooManyDeferred => too_many_deferred,
}

pub fn every_error_has_a_test(ctx: &Context) -> TestResult {
    for (error, name, test) in LIST {
        PRODUCED.store(0, Ordering::Relaxed);
        test(ctx)?;
        if PRODUCED.load(Ordering::Relaxed) >> *error as u32 & 1 == 0 {
            return Err(Failure::NotRefused(name).into());
        }
    }
    Ok(())
}
