//! Break windows: tell a fault on a leaf that another CPU is between breaking and making from a
//! fault on a hole.
//!
//! Each CPU has one word, which only it writes: odd from before a break until after the make.
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
//! If AT translates, the access is retried. A translation fault is final only if no word was odd
//! before the question and none has changed after it; else AT is asked again.
//!
//! A break never gets a final answer. Let AT read a window's invalid descriptor. By (1) the odd
//! word is seen before that descriptor; by (3) the second sum is read after it, so it has the odd
//! word or a later one. Had the first sum had that, too, it would be the later even one, as none
//! was odd; by (4) and (2) AT would then have read the new descriptor. So the sums differ. Words
//! only grow, and do not wrap.
//!
//! The wait has no limit: a virtual CPU may be descheduled for any time. A CPU that fails says so,
//! and waiters look. Each new question means that some CPU opened or closed a window, so some CPU
//! makes progress. A CPU does not wait for its own window: it may not touch what it broke (DESIGN
//! rule 3).

use core::marker::PhantomData;

pub trait Platform {
    type Word;

    /// Loads another CPU's word, load-acquire.
    fn load(word: &Self::Word) -> u64;
    fn load_own(word: &Self::Word) -> u64;
    /// Stores `odd`, then (1) DMB ISH: seen by loads and walks before later stores (Arm ARM B2.3).
    fn open(word: &Self::Word, odd: u64);
    /// Stores `even`, store-release (4): earlier stores are seen before.
    fn close(word: &Self::Word, even: u64);
    /// (2): DSB ISH and ISB order AT after the loads of the words, as an acquire or DMB would not
    /// (Arm ARM, "Address translation instructions").
    fn before_question();
    /// (3): ISB, unless the question ends with one.
    fn after_question();
}

#[repr(align(64))]
#[derive(Debug)]
pub struct Line<W>(pub W);

pub trait Words {
    type Word;

    fn nr(&self) -> usize;
    /// Returns the word of `cpu`, below [`nr`](Self::nr).
    fn of(&self, cpu: usize) -> &Self::Word;
    /// Runs on `cpu`.
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

#[derive(Debug)]
pub struct Windows<P, W> {
    words: W,
    platform: PhantomData<P>,
}

/// The words of the other CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Grows with every open or close.
    pub sum: u64,
    pub open: Option<usize>,
}

impl<P: Platform, W: Words<Word = P::Word>> Windows<P, W> {
    /// Returns closed windows. `words` hold 0.
    pub const fn new(words: W) -> Self {
        Self {
            words,
            platform: PhantomData,
        }
    }

    /// Opens the window of `cpu`, which runs this, before a descriptor is made invalid.
    ///
    /// # Panics
    /// If its window is open.
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

    /// Closes it, after the new descriptor is stored.
    ///
    /// # Panics
    /// If the window is not open.
    #[inline]
    pub fn close(&self, cpu: usize) {
        let word = self.words.own(cpu);
        let open = P::load_own(word);
        assert!(open & 1 == 1, "CPU {cpu} closes a break window that is not open");
        P::close(word, open + 1);
    }

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
    /// other CPU has a window open. `question` asks the MMU; before it is asked again, `wait` gets
    /// a CPU with an open window, if any.
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
