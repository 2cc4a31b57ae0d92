//! The exception table: instructions that may fault, and where to continue. An entry is instruction
//! and fixup, relative to their words, and kind. The fixup gets ESR_EL1 in x9, FAR_EL1 in x10.

use super::Frame;
use crate::arch::syndrome::class;

#[repr(C)]
struct Entry {
    instruction: i32,
    fixup: i32,
    kind: u32,
}

/// It faults itself.
const KIND_ACCESS: u32 = 0;
/// It is a return address; the first one called faults.
const KIND_CALL: u32 = 1;

unsafe extern "C" {
    static __ex_table_start: Entry;
    static __ex_table_end: Entry;
}

fn entries() -> &'static [Entry] {
    let start = &raw const __ex_table_start;
    let end = &raw const __ex_table_end;
    let nr = (end as usize - start as usize) / size_of::<Entry>();
    // SAFETY: the linker script bounds whole entries.
    unsafe { core::slice::from_raw_parts(start, nr) }
}

fn target(word: &i32) -> u64 {
    (&raw const *word as u64).wrapping_add_signed(i64::from(*word))
}

pub fn fix_up(frame: &mut Frame) -> bool {
    let class = frame.syndrome().class();
    let fixup = entries().iter().find(|entry| match entry.kind {
        KIND_ACCESS => {
            matches!(class, class::DATA_ABORT | class::UNKNOWN) && target(&entry.instruction) == frame.elr
        }
        // Fetched without success, or undefined.
        KIND_CALL => {
            matches!(
                class,
                class::INSTRUCTION_ABORT | class::PC_ALIGNMENT | class::UNKNOWN
            ) && target(&entry.instruction) == frame.x[30]
                && frame.x[11] == frame.elr
        }
        _ => false,
    });
    let Some(entry) = fixup else { return false };
    frame.x[9] = frame.esr;
    frame.x[10] = frame.far;
    frame.elr = target(&entry.fixup);
    true
}
