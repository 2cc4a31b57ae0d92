//! Instructions that are replaced at boot, by the features of all CPUs.
//!
//! Each site ([`alternative!`](crate::alternative!)) has an entry; with 0 words, one instruction
//! becomes a branch to the replacement:
//!
//! ```text
//!   from here to the site | from here to the replacement | words | condition
//! ```
//!
//! The text stays read-only: before other CPUs run, the boot CPU writes through a fixed slot, which
//! is not executable (DESIGN rule 10).

use core::arch::asm;

use super::features::Features;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Condition {
    /// All CPUs have FEAT_LSE.
    Lse = 0,
    Measured = 1,
    /// Time is counted, not instructions.
    Timed = 2,
}

#[repr(C)]
struct Site {
    site: i32,
    replacement: i32,
    words: u32,
    condition: u32,
}

unsafe extern "C" {
    static __alternatives_start: Site;
    static __alternatives_end: Site;
}

/// Text of inline assembly: `$first`, or `$second` in its place, of the same operands and length.
/// Labels 661 to 664 are taken; `664f` is the end of `$second`, which branches nowhere else.
#[macro_export]
macro_rules! alternative {
    ($first:expr, $second:expr, $condition:expr) => {
        concat!(
            "661:\n",
            $first,
            "\n662:\n",
            ".pushsection .alternatives, \"a\"\n",
            ".balign 4\n",
            ".word 661b - .\n",
            ".word 663f - .\n",
            ".word (664f - 663f) / 4\n",
            ".word ",
            $condition,
            "\n",
            ".popsection\n",
            ".pushsection .alternatives.text, \"a\"\n",
            ".arch_extension lse\n",
            "663:\n",
            $second,
            "\n664:\n",
            ".arch_extension nolse\n",
            // Equal lengths: `.org` cannot go back.
            ".org . - (664b - 663b) + (662b - 661b)\n",
            ".org . - (662b - 661b) + (664b - 663b)\n",
            ".popsection\n",
        )
    };
}

#[macro_export]
macro_rules! if_lse {
    () => {
        "0"
    };
}

/// Returns whether sections with interrupts masked are [measured](super::masked). Constant in
/// release builds: the NOPs cost up to 9 % of a call in lost inlining.
#[inline(always)]
pub(super) fn is_measured() -> bool {
    if !cfg!(debug_assertions) {
        return false;
    }
    // SAFETY: falls through, or branches to the label.
    unsafe {
        asm!(
            "661: nop",
            ".pushsection .alternatives, \"a\"",
            ".balign 4",
            ".word 661b - .",
            ".word {yes} - .",
            ".word 0",
            ".word {measured}",
            ".popsection",
            measured = const Condition::Measured as u32,
            yes = label { return true },
            options(nomem, nostack, preserves_flags)
        );
    }
    false
}

fn sites() -> &'static [Site] {
    let (start, end) = (&raw const __alternatives_start, &raw const __alternatives_end);
    // SAFETY: the section between the two holds only entries.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

impl Site {
    fn nr_words(&self) -> usize {
        self.words.max(1) as usize
    }

    fn word(&self, site: usize, replacement: usize, offset: usize) -> u32 {
        if self.words == 0 {
            // B (Arm ARM C6.2, "B").
            let words = (replacement.wrapping_sub(site) as isize >> 2) as u32;
            return 0b000101 << 26 | words & 0x03ff_ffff;
        }
        // SAFETY: a word in .rodata.
        unsafe { ((replacement + offset) as *const u32).read() }
    }

    fn address(field: &i32) -> usize {
        (&raw const *field as usize).wrapping_add_signed(*field as isize)
    }
}

#[must_use]
pub fn nr_sites(condition: Condition) -> usize {
    sites()
        .iter()
        .filter(|site| site.condition == condition as u32)
        .count()
}

#[must_use]
pub fn nr_replaced(condition: Condition) -> usize {
    let is_replaced = |site: &&'static Site| {
        Replacement(site).words().all(|(at, word)| {
            // SAFETY: an instruction of the image, readable.
            unsafe { (at as *const u32).read_volatile() == word }
        })
    };
    sites()
        .iter()
        .filter(|site| site.condition == condition as u32)
        .filter(is_replaced)
        .count()
}

/// What [`to_replace`] is told beside the features.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub measured: bool,
    pub timed: bool,
}

pub fn to_replace(features: &Features, asked: Asked) -> impl Iterator<Item = Replacement> {
    let lse = features.lse;
    let is_due = move |site: &&Site| {
        (asked.measured && site.condition == Condition::Measured as u32)
            || (asked.timed && site.condition == Condition::Timed as u32)
            || (lse && site.condition == Condition::Lse as u32)
    };
    sites().iter().filter(is_due).map(Replacement)
}

#[derive(Clone, Copy)]
pub struct Replacement(&'static Site);

impl Replacement {
    pub fn words(self) -> impl Iterator<Item = (usize, u32)> {
        let (at, from) = (Site::address(&self.0.site), Site::address(&self.0.replacement));
        (0..self.0.nr_words() * 4)
            .step_by(4)
            .map(move |offset| (at + offset, self.0.word(at, from, offset)))
    }
}
