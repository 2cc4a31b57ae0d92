use alloc::vec::Vec;

use kernel::mm::areas::kernel_vmalloc;
use paging::VirtAddr;
use vmalloc::{Error, FlushPolicy, MAX_DEFERRED_ADDRESSES, Request};

use super::refused;
use crate::selftest::backend::{SecondVmalloc, as_if_interrupted};
use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect, expect_value};
use crate::selftest::source::{BLOCK_SIZE, PAGE};
use crate::selftest::verify::{read, write};

pub fn lock_is_taken(_ctx: &Context) -> TestResult {
    let vm = kernel_vmalloc();
    let nolock = Request::new(5 * PAGE).nolock();
    let area = vm.allocate(&nolock)?;
    write(area.va().0 as usize, 5);
    expect(
        "memory is not as written",
        area.va().0,
        read(area.va().0 as usize) == 5,
    )?;
    drop(area);
    let second = SecondVmalloc::new(32 * BLOCK_SIZE, FlushPolicy::Strict)?;
    refused(
        "memory where the address space is another's",
        Error::WouldBlock,
        || as_if_interrupted(|| second.vm().allocate(&nolock)),
    )?;
    second.check_empty()?;
    Ok(())
}

pub fn too_many_deferred(_ctx: &Context) -> TestResult {
    let second = SecondVmalloc::new(32 * BLOCK_SIZE, FlushPolicy::Strict)?;
    let vm = second.vm();
    let raw = (0..=MAX_DEFERRED_ADDRESSES)
        .map(|_| vm.vmalloc(PAGE).map(|area| area.into_raw()))
        .collect::<Result<Vec<VirtAddr>, _>>()?;
    let (last, others) = match raw.split_last() {
        Some(split) => split,
        None => unreachable!("there is one more than there is room for"),
    };
    for va in others {
        second.owe(paging::VirtRange::new(*va, PAGE))?;
    }
    write(last.0 as usize, 9);
    for va in others {
        // SAFETY: raw, the test's own, and nothing lies in it.
        as_if_interrupted(|| unsafe { vm.vfree_atomic(*va) })?;
    }
    let waiting = vm.usage().deferred_addresses;
    expect_value(
        "addresses that wait",
        waiting as u64,
        MAX_DEFERRED_ADDRESSES as u64,
    )?;
    let error = Error::TooManyDeferred { va: *last };
    refused("one deferred free too many", error, || {
        // SAFETY: as above; and it is refused.
        as_if_interrupted(|| unsafe { vm.vfree_atomic(*last) })
    })?;
    expect("a refused free took the area", last.0, read(last.0 as usize) == 9)?;
    second.owe(paging::VirtRange::new(*last, PAGE))?;
    // SAFETY: as above.
    unsafe { vm.vfree(*last) }?;
    expect_value("addresses that wait", vm.usage().deferred_addresses as u64, 0)?;
    second.check_empty()?;
    Ok(())
}

pub fn deferred_bad_frees(_ctx: &Context) -> TestResult {
    let second = SecondVmalloc::new(32 * BLOCK_SIZE, FlushPolicy::Strict)?;
    let vm = second.vm();
    let (area, reserved) = (vm.vmalloc(4 * PAGE)?, vm.get_vm_area(PAGE, 1)?.into_raw());
    let raw = area.into_raw();
    let refused_before = vm.usage().refused;
    for va in [raw.add(PAGE), reserved, raw.add(16 << 20), raw, raw] {
        // SAFETY: the one that is right is raw, the test's own, and nothing lies in it.
        as_if_interrupted(|| unsafe { vm.vfree_atomic(va) })?;
    }
    second.owe(paging::VirtRange::new(raw, 4 * PAGE))?;
    vm.vm_unmap_aliases();
    let refused = vm.usage().refused - refused_before;
    expect_value("deferred frees that were refused", refused as u64, 4)?;
    // SAFETY: raw, the test's own.
    unsafe { vm.free_vm_area(reserved) }?;
    // SAFETY: it was freed, which is refused.
    let again = unsafe { vm.vfree_atomic(raw) };
    expect(
        "a double free is deferred",
        raw.0,
        matches!(again, Err(Error::Freed(_))),
    )?;
    second.check_empty()?;
    Ok(())
}
