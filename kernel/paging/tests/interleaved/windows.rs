//! `arch_policy::windows` on the model's words.

use crate::interleaved::seat::{Defect, Seat};
use arch_policy::windows::Platform;
use mmu_model::Word;
use paging::Mmu;
use shuttle::rand::Rng;
use std::cell::RefCell;

shuttle::thread_local! {
    static HERE: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

pub struct Here;

impl Here {
    pub fn is(seat: &Seat) {
        HERE.with(|here| here.replace(Some(seat.clone())));
    }

    fn with<R>(work: impl FnOnce(&Seat) -> R) -> R {
        HERE.with(|here| work(here.borrow().as_ref().expect("every thread is a CPU")))
    }
}

impl Platform for Here {
    type Word = Word;

    fn load(word: &Word) -> u64 {
        // Any value that the memory model permits.
        let any = |nr| shuttle::rand::thread_rng().gen_range(0..nr);
        Self::with(|seat| seat.turn().load_acquire(*word, any))
    }

    fn load_own(word: &Word) -> u64 {
        Self::with(|seat| seat.cpu().load_acquire(*word, |_| 0))
    }

    fn open(word: &Word, odd: u64) {
        Self::with(|seat| {
            seat.turn().store_plain(*word, odd);
            if !seat.has(Defect::NoDmb) {
                seat.turn().dmb_ish();
            }
        });
    }

    fn close(word: &Word, even: u64) {
        Self::with(|seat| {
            if seat.has(Defect::PlainClose) {
                seat.turn().store_plain(*word, even);
            } else {
                seat.turn().store_release(*word, even);
            }
        });
    }

    fn before_question() {
        Self::with(|seat| {
            if !seat.has(Defect::NoBarrierBeforeQuestion) {
                seat.dsb_ish();
                seat.isb();
            }
        });
    }

    /// The model's AT ends with an ISB.
    fn after_question() {}
}
