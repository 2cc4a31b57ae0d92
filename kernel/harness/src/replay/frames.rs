//! Frames for areas that map a caller's pages, whose physical layout a trace does not tell: drawn
//! from the area's id. A per-CPU chunk has single pages, as in Linux.

use kernel::mm::frames;
use paging::Pfn;
use trace_replay::{Area, Kind};

use super::contents::mix;

/// Also in `docs/TRACES.md`.
pub const MIX: &str = "8 of order 0, 4 of order 2, 2 of order 4, 1 of order 6, 1 of order 9 in 16 chunks";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoFrame;

fn order(area: &Area, chunk: u64, pages: usize) -> u8 {
    let drawn = match (area.kind, mix(area.id, chunk) & 15) {
        (Kind::Percpu, _) | (_, 0..8) => 0,
        (_, 8..12) => 2,
        (_, 12..14) => 4,
        (_, 14) => 6,
        _ => 9,
    };
    drawn.min(pages.ilog2() as u8)
}

/// Fills `pages` with frames, each to be freed by itself.
///
/// # Errors
/// Too few; none is taken.
pub fn allocate(area: &Area, pages: &mut [Pfn]) -> Result<(), NoFrame> {
    let mut done = 0;
    let mut chunk = 0;
    while done < pages.len() {
        let mut order = order(area, chunk, pages.len() - done);
        chunk += 1;
        let first = loop {
            match (frames::allocate(order), order) {
                (Some(first), _) => break first,
                (None, 0) => {
                    free(&pages[..done]);
                    return Err(NoFrame);
                }
                (None, _) => order -= 1,
            }
        };
        if order != 0 {
            frames::split(first, order);
        }
        for (page, frame) in pages[done..done + (1 << order)].iter_mut().zip(first.0..) {
            *page = Pfn(frame);
        }
        done += 1 << order;
    }
    Ok(())
}

pub fn free(pages: &[Pfn]) {
    pages.iter().for_each(|frame| frames::free(*frame, 0));
}
