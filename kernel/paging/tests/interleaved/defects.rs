use crate::interleaved::breaks::SPLIT;
use crate::interleaved::lazy::{LAZY, LAZY_NOT_FOREIGN};
use crate::interleaved::neighbours::{ONE_TABLE, WHOLE_SPAN};
use crate::interleaved::prune::PRUNE;
use crate::interleaved::seat::Defect;
use crate::interleaved::{Case, schedules};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The rarest takes some hundreds of schedules.
#[track_caller]
fn assert_found_out(case: Case, defect: Defect, verdict: &str) {
    let run = catch_unwind(AssertUnwindSafe(|| case.run_with(defect, schedules(30_000))));
    let Err(panic) = run else {
        panic!("{defect:?} is not found out");
    };
    let story = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(story.contains(verdict), "{defect:?} ends with: {story}");
}

#[test]
fn a_tlbi_that_is_left_out() {
    for case in [ONE_TABLE, WHOLE_SPAN, LAZY] {
        assert_found_out(case, Defect::NoTlbi, "no TLBI has matched it");
    }
}

#[test]
fn a_dsb_that_is_left_out_before_reuse() {
    for case in [ONE_TABLE, WHOLE_SPAN, LAZY] {
        assert_found_out(case, Defect::NoTrailingDsb, "waits for a DSB ISH");
    }
}

#[test]
fn a_dsb_that_is_left_out_before_the_tlbi() {
    for case in [ONE_TABLE, WHOLE_SPAN] {
        assert_found_out(case, Defect::NoLeadingDsb, "TlbiBeforeDsb");
    }
}

#[test]
fn a_flush_that_waits_for_the_stores_of_its_own_cpu_alone() {
    assert_found_out(
        LAZY_NOT_FOREIGN,
        Defect::None,
        "came before a DSB of its CPU had completed",
    );
}

#[test]
fn a_table_that_is_freed_before_the_flush() {
    for case in [WHOLE_SPAN, PRUNE] {
        assert_found_out(case, Defect::FreedBeforeFlush, "TableReused");
    }
}

#[test]
fn a_table_that_is_freed_after_a_tlbi_of_the_last_level() {
    for case in [WHOLE_SPAN, PRUNE] {
        assert_found_out(case, Defect::LastLevelOnly, "was for the last level only");
    }
}

#[test]
fn a_link_that_is_written_before_the_zeroing_of_its_table_is_visible() {
    assert_found_out(ONE_TABLE, Defect::PlainLink, "LinkedTooEarly");
}

#[test]
fn a_break_window_that_lacks_one_of_its_orders() {
    for defect in [Defect::NoDmb, Defect::PlainClose, Defect::NoBarrierBeforeQuestion] {
        assert_found_out(SPLIT, defect, "that no break window explains");
    }
}
