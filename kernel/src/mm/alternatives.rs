use paging::{Attributes, PhysAddr};

use super::layout::{EDIT_SLOTS, PAGE_SIZE};
use super::slots;
use crate::BootInfo;
use crate::arch::alternatives::{self, Asked};
use crate::arch::cache;
use crate::arch::features::Features;

/// Replaces what is due. After [`cache::init`].
///
/// # Safety
/// No other CPU runs, and no caller is within a site.
pub unsafe fn apply_alternatives(info: &BootInfo, features: &Features, asked: Asked) {
    let slot = EDIT_SLOTS.start;
    let mut mapped = usize::MAX;
    let mut alias = 0;
    for site in alternatives::to_replace(features, asked) {
        let (mut first, mut bytes) = (0, 0);
        for (va, word) in site.words() {
            if va & !(PAGE_SIZE - 1) != mapped {
                mapped = va & !(PAGE_SIZE - 1);
                alias = slots::map(slot, PhysAddr(info.image_pa(mapped)), Attributes::KERNEL_DATA);
            }
            // SAFETY: this call's slot, mapped writable; nothing executes the site.
            unsafe { ((alias + va % PAGE_SIZE) as *mut u32).write_volatile(word) };
            bytes += size_of::<u32>();
            first = va + size_of::<u32>() - bytes;
        }
        cache::publish_instructions(first, bytes);
    }
    if mapped != usize::MAX {
        slots::unmap(slot);
    }
}
