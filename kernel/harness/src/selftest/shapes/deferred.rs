//! `kvfree_rcu`: a thread publishes a page and takes out the one before, which is freed after each
//! thread was seen not reading.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::percpu::nr_cpus;
use kernel::arch::time::relax;
use kernel::mm;
use paging::VirtAddr;

use super::{Run, loops};
use crate::selftest::failure::{Failure, expect};
use crate::selftest::source::PAGE;
use crate::selftest::verify::{read, write};

const BATCH: usize = 16;

#[derive(Debug)]
pub(crate) struct Readers {
    /// 0 for none.
    published: AtomicU64,
    /// Odd while it reads.
    reading: Box<[AtomicU64]>,
}

impl Readers {
    pub fn new() -> Self {
        Self {
            published: AtomicU64::new(0),
            reading: (0..nr_cpus()).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn look(&self, thread: usize) -> bool {
        // SeqCst: a CPU that does not see this thread reading has taken the page out before this
        // thread can load its address.
        self.reading[thread].fetch_add(1, Ordering::SeqCst);
        let va = self.published.load(Ordering::SeqCst);
        let right = va == 0 || (0..4).all(|_| read(va as usize + 8) == stamp(va));
        self.reading[thread].fetch_add(1, Ordering::SeqCst);
        right
    }

    fn synchronize(&self) {
        for reading in &*self.reading {
            let seen = reading.load(Ordering::SeqCst);
            while seen % 2 == 1 && reading.load(Ordering::SeqCst) == seen {
                relax();
            }
        }
    }
}

fn stamp(va: u64) -> u64 {
    va.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// # Safety
/// `va` is raw, and no longer read.
unsafe fn end(va: u64) -> Result<(), Failure> {
    expect(
        "a page whose free was deferred has changed",
        va,
        read(va as usize + 8) == stamp(va),
    )?;
    // SAFETY: the caller's promise.
    Ok(unsafe { mm::vfree(VirtAddr(va)) }?)
}

fn replace(
    run: &mut Run<'_>,
    mut defer: impl FnMut(&Readers, u64) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let readers = &run.backing.readers;
    let right = loops(run, |run| {
        let va = mm::vmalloc(PAGE)?.into_raw().0;
        write(va as usize + 8, stamp(va));
        let right = readers.look(run.thread);
        let before = readers.published.swap(va, Ordering::SeqCst);
        if before != 0 {
            defer(readers, before)?;
        }
        Ok(right && readers.look(run.thread))
    })?;
    let last = readers.published.swap(0, Ordering::SeqCst);
    if last != 0 {
        readers.synchronize();
        // SAFETY: it is no longer published, and every reader has been outside since.
        unsafe { end(last) }?;
    }
    Ok(right)
}

/// With one argument.
pub(super) fn noted_apart(run: &mut Run<'_>) -> Result<u64, Failure> {
    let (mut waiting, mut nr) = ([0; BATCH], 0);
    let readers = &run.backing.readers;
    let right = replace(run, |readers, va| {
        waiting[nr] = va;
        nr += 1;
        if nr == BATCH {
            nr = 0;
            readers.synchronize();
            // SAFETY: as in `replace`, for each of them.
            waiting.into_iter().try_for_each(|va| unsafe { end(va) })?;
        }
        Ok(())
    });
    readers.synchronize();
    // SAFETY: as above.
    waiting[..nr].iter().try_for_each(|va| unsafe { end(*va) })?;
    right
}

/// With two: what waits is linked through its first words.
pub(super) fn linked_through(run: &mut Run<'_>) -> Result<u64, Failure> {
    let (mut head, mut nr) = (0u64, 0);
    let readers = &run.backing.readers;
    let right = replace(run, |readers, va| {
        write(va as usize, head);
        head = va;
        nr += 1;
        if nr == BATCH {
            nr = 0;
            end_all(readers, core::mem::take(&mut head))?;
        }
        Ok(())
    });
    end_all(readers, head)?;
    right
}

fn end_all(readers: &Readers, mut head: u64) -> Result<(), Failure> {
    readers.synchronize();
    while head != 0 {
        let next = read(head as usize);
        // SAFETY: as in `replace`, for each of them.
        unsafe { end(head) }?;
        head = next;
    }
    Ok(())
}
