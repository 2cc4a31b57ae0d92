//! Instructions that are replaced at boot, once it is known what all CPUs have.
//!
//! Inline assembly names, beside its instructions, others to put in their place, and when: one
//! image runs on every CPU, and what runs has no test in it. The sites are a section of the image
//! ([`alternative!`](crate::alternative!)), an entry of four words each:
//!
//! ```text
//!   from here to the site | from here to the replacement | words | condition
//! ```
//!
//! An entry of no words has a branch to its replacement put in the place of one instruction.
//!
//! The text is mapped read-only and stays so: a site is written through a fixed slot, which is not
//! executable, by the CPU that boots while no other runs (DESIGN rule 10). Stores to instructions
//! are published as any are (Arm ARM B2.7.4), and the other CPUs fetch theirs later.

use core::arch::asm;

use super::features::Features;

/// When a site is replaced. What assembly has in its entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Condition {
    /// All CPUs have FEAT_LSE: atomics that are one instruction.
    Lse = 0,
    /// Sections with interrupts masked are measured: a NOP becomes a branch to the replacement.
    Measured = 1,
}

/// An entry of the section.
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

/// The text of an inline assembly with an alternative: `$first` until it is replaced by `$second`,
/// which has as many instructions. Operands are the same for both; labels 661 to 664 are taken.
///
/// A branch in `$second` goes to a place in `$second`; its end, which is that of the site, is
/// `664f`.
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
            // Both are of one length, or this is not assembled: `.org` does not go back.
            ".org . - (664b - 663b) + (662b - 661b)\n",
            ".org . - (662b - 661b) + (664b - 663b)\n",
            ".popsection\n",
        )
    };
}

/// [`Condition::Lse`], as [`alternative!`](crate::alternative!) takes it.
#[macro_export]
macro_rules! if_lse {
    () => {
        "0"
    };
}

/// Whether sections with interrupts masked are [measured](super::masked). A NOP if they are not,
/// and nothing in a build without debug assertions: two NOPs to a lock cost up to 9 % of a call, by
/// what the compiler no longer inlines.
#[inline(always)]
pub(super) fn is_measured() -> bool {
    if !cfg!(debug_assertions) {
        return false;
    }
    // SAFETY: goes on behind the NOP, or where the branch goes that takes its place.
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
    // SAFETY: the section between the two, which is read-only, holds entries and nothing else.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

impl Site {
    /// Instructions that are replaced.
    fn nr_words(&self) -> usize {
        self.words.max(1) as usize
    }

    /// The instruction for the place `offset` bytes into the site.
    fn word(&self, site: usize, replacement: usize, offset: usize) -> u32 {
        if self.words == 0 {
            // B: a signed 26-bit number of words (Arm ARM C6.2, "B").
            let words = (replacement.wrapping_sub(site) as isize >> 2) as u32;
            return 0b000101 << 26 | words & 0x03ff_ffff;
        }
        // SAFETY: a word of the image, in .rodata.
        unsafe { ((replacement + offset) as *const u32).read() }
    }

    /// The first address that an offset in the field at `field` leads to.
    fn address(field: &i32) -> usize {
        (&raw const *field as usize).wrapping_add_signed(*field as isize)
    }
}

/// Sites with this condition.
#[must_use]
pub fn nr_sites(condition: Condition) -> usize {
    sites()
        .iter()
        .filter(|site| site.condition == condition as u32)
        .count()
}

/// Sites with this condition that hold their replacement now.
#[must_use]
pub fn nr_replaced(condition: Condition) -> usize {
    let is_replaced = |site: &&'static Site| {
        Replacement(site).words().all(|(at, word)| {
            // SAFETY: an instruction of the image, which is mapped readable.
            unsafe { (at as *const u32).read_volatile() == word }
        })
    };
    sites()
        .iter()
        .filter(|site| site.condition == condition as u32)
        .filter(is_replaced)
        .count()
}

/// The sites to replace where all CPUs together have `features`, and where sections are `measured`.
pub fn to_replace(features: &Features, measured: bool) -> impl Iterator<Item = Replacement> {
    let lse = features.lse;
    let is_due = move |site: &&Site| {
        (measured && site.condition == Condition::Measured as u32)
            || (lse && site.condition == Condition::Lse as u32)
    };
    sites().iter().filter(is_due).map(Replacement)
}

/// A site, with what is put in its place.
#[derive(Clone, Copy)]
pub struct Replacement(&'static Site);

impl Replacement {
    /// Returns the addresses and the new words of its instructions, in order.
    pub fn words(self) -> impl Iterator<Item = (usize, u32)> {
        let (at, from) = (Site::address(&self.0.site), Site::address(&self.0.replacement));
        (0..self.0.nr_words() * 4)
            .step_by(4)
            .map(move |offset| (at + offset, self.0.word(at, from, offset)))
    }
}
