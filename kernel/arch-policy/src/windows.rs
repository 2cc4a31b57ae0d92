//! Break windows: how a CPU tells a fault on a leaf that another CPU is between breaking and making
//! from a fault on a hole.
//!
//! # The protocol
//! Each CPU has one word, which it alone writes: odd from before a break until after the make.
//!
//! ```text
//!   breaker                                    faulter, in its handler
//!     word += 1                                  loop:
//!     DMB ISH                           (1)        sum the other CPUs' words
//!     descriptor = invalid                         DSB ISH, ISB                      (2)
//!     DSB ISHST, TLBI, DSB ISH                     AT                         (the question)
//!     descriptor = new                             ISB                               (3)
//!     word += 1, store-release          (4)        sum them again
//! ```
//!
//! A question that the MMU answers with a translation says that the access may be made again. One
//! that it answers with a translation fault is final only if no window was open while it was asked:
//! no word was odd before it, and none has changed after it. Otherwise it is asked again.
//!
//! Why a final answer is never that of a break: let AT read the invalid descriptor of a window. By
//! (1) the odd word is seen before that descriptor, and by (3) the second sum is read after it. So
//! the second sum has the odd word, or what came after it. If the first sum had it too, it had the
//! even one, as none was odd; then by (4) and (2) AT read the new descriptor, against the
//! assumption. If not, the sums differ. Words only grow, and 64 bits do not wrap: the sums are
//! equal exactly if all words are.
//!
//! # Progress, not time
//! The faulter waits for as long as another CPU has a window open: a virtual CPU may be kept from
//! running for any time, and its window stays open for as long. What ends a wait for a CPU that
//! will never run again is the end of the whole kernel: a CPU that fails says so, and those that
//! wait look for it. Every further question is there because another CPU opened or closed a window,
//! so that some CPU always gets on.
//!
//! A CPU does not wait for its own window. What it has broken it may not touch (DESIGN rule 3), and
//! a fault on it is final.

use core::marker::PhantomData;

/// The memory and the barriers that the protocol runs on.
pub trait Platform {
    /// One CPU's word.
    type Word;

    /// Loads the word of another CPU, load-acquire.
    fn load(word: &Self::Word) -> u64;
    /// Loads the word of the CPU that runs this, the only one that stores to it.
    fn load_own(word: &Self::Word) -> u64;
    /// Stores `odd` to the word of the CPU that runs this, then (1) DMB ISH: it is seen before any
    /// later store, by loads and by walks. Stores to different places are seen in any order
    /// otherwise (Arm ARM B2.3).
    fn open(word: &Self::Word, odd: u64);
    /// Stores `even` to it, store-release (4): any earlier store is seen before.
    fn close(word: &Self::Word, even: u64);
    /// (2): DSB ISH and ISB. The question is asked after the loads of the words: AT is no access
    /// that an acquire or a DMB would order (Arm ARM, "Address translation instructions").
    fn before_question();
    /// (3): ISB, unless the question ends with one. It is asked before the loads that follow.
    fn after_question();
}

/// A word that shares its cache line with no other: a break writes to no line that another CPU's
/// break writes to.
#[repr(align(64))]
#[derive(Debug)]
pub struct Line<W>(pub W);

/// The words of all CPUs.
pub trait Words {
    /// One CPU's word.
    type Word;

    /// CPUs.
    fn nr(&self) -> usize;
    /// Returns the word of `cpu`, which is below [`nr`](Self::nr).
    fn of(&self, cpu: usize) -> &Self::Word;
    /// The word of `cpu`, which runs this.
    #[inline]
    fn own(&self, cpu: usize) -> &Self::Word {
        self.of(cpu)
    }
}

impl<W, const CPUS: usize> Words for [Line<W>; CPUS] {
    type Word = W;

    fn nr(&self) -> usize {
        CPUS
    }
    fn of(&self, cpu: usize) -> &W {
        &self[cpu].0
    }
}

/// The windows of all CPUs.
#[derive(Debug)]
pub struct Windows<P, W> {
    words: W,
    platform: PhantomData<P>,
}

/// The words of all CPUs but one, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Their sum: grows with every window that is opened or closed.
    pub sum: u64,
    /// A CPU whose window is open.
    pub open: Option<usize>,
}

impl<P: Platform, W: Words<Word = P::Word>> Windows<P, W> {
    /// None is open. `words` hold 0.
    pub const fn new(words: W) -> Self {
        Self {
            words,
            platform: PhantomData,
        }
    }

    /// Opens the window of `cpu`, which runs this: before a descriptor is made invalid.
    ///
    /// # Panics
    /// If it is open: a break within a break would close it too early.
    #[inline]
    pub fn open(&self, cpu: usize) {
        let word = self.words.own(cpu);
        let closed = P::load_own(word);
        assert!(
            closed & 1 == 0,
            "CPU {cpu} opens a break window in its break window"
        );
        P::open(word, closed + 1);
    }

    /// Closes the window of `cpu`, which runs this: after the new descriptor was stored.
    ///
    /// # Panics
    /// If it is not open.
    #[inline]
    pub fn close(&self, cpu: usize) {
        let word = self.words.own(cpu);
        let open = P::load_own(word);
        assert!(open & 1 == 1, "CPU {cpu} closes a break window that is not open");
        P::close(word, open + 1);
    }

    /// Returns the words of all CPUs but `cpu`.
    pub fn look(&self, cpu: usize) -> Look {
        let mut look = Look { sum: 0, open: None };
        for other in 0..self.words.nr() {
            if other != cpu {
                let word = P::load(self.words.of(other));
                look.sum = look.sum.wrapping_add(word);
                if word & 1 == 1 {
                    look.open = Some(other);
                }
            }
        }
        look
    }

    /// Returns whether the MMU translates an address on `cpu`, which runs this, now or once no
    /// other CPU has a window open.
    ///
    /// `question` asks the MMU. `wait` runs after each answer that is not final, with a CPU whose
    /// window is open, if one still is.
    pub fn translates(
        &self,
        cpu: usize,
        mut question: impl FnMut() -> bool,
        mut wait: impl FnMut(Option<usize>),
    ) -> bool {
        loop {
            let before = self.look(cpu);
            P::before_question();
            let translates = question();
            P::after_question();
            if translates {
                return true;
            }
            let after = self.look(cpu);
            if before.open.is_none() && after == before {
                return false;
            }
            wait(after.open);
        }
    }
}
