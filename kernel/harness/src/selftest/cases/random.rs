use alloc::vec::Vec;

use paging::{Attributes, VirtAddr, VirtRange};

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult};
use crate::selftest::live::TestTree;
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK, BLOCK_ORDER, BLOCK_SIZE, PAGE, Source, Walker};
use crate::selftest::verify::{Expected, Memory, verify_pages};

type Model = Vec<Option<Expected>>;

pub fn random_edits_equal_a_page_model(ctx: &Context) -> TestResult {
    const PAGES: u64 = 4 * BLOCK;
    let block = Block::allocate(ctx, BLOCK_ORDER + 2)?;
    let window = Window::reserve(PAGES * PAGE, BLOCK_SIZE, 0)?;
    let tree = ctx.tree();
    let result = edit_at_random(ctx, &tree, window.start, &block, PAGES);
    let mut batch = tree.batch();
    tree.unmap(VirtRange::new(window.start, PAGES * PAGE), &mut batch)?;
    batch.flush();
    result?;
    verify_pages(&tree, window.start, PAGES, |_| None, Memory::Untouched)?;
    Ok(())
}

fn edit_at_random(
    ctx: &Context,
    tree: &TestTree,
    start: VirtAddr,
    block: &Block,
    pages: u64,
) -> Result<(), Failure> {
    const STEPS: u32 = 120;
    let mut rng = ctx.rng();
    let mut model: Model = Vec::new();
    model.resize(pages as usize, None);
    for step in 0..STEPS {
        let first = rng.u64(0..pages);
        let most = 1 << rng.u32(0..u32::from(BLOCK_ORDER) + 3);
        let nr = rng.u64(1..=most).min(pages - first);
        let range = VirtRange::new(start.add(first * PAGE), nr * PAGE);
        let part = &mut model[first as usize..(first + nr) as usize];
        let mut batch = tree.batch();
        match rng.u32(0..6) {
            0 | 1 => {
                // Two mappings never share a frame.
                let source = Source::Range {
                    start: block.start().add(first * PAGE),
                    pages: nr,
                    walker: rng.choice(Walker::ALL).unwrap_or(Walker::Range),
                };
                let vacant = part.iter().all(Option::is_none);
                match source.map(tree, range.start, Attributes::KERNEL_DATA, ctx.leaves()) {
                    Ok(_) if !vacant => return Err(Failure::NotRefused("a map over pages that are taken")),
                    Err(failure) if vacant => return Err(failure.into()),
                    Err(_) => {}
                    Ok(_) => {
                        for (i, page) in part.iter_mut().enumerate() {
                            *page = Some(Expected {
                                pa: source.pa(i as u64),
                                attributes: Attributes::KERNEL_DATA,
                            });
                        }
                    }
                }
            }
            2 => {
                tree.unmap(range, &mut batch)?;
                part.fill(None);
            }
            3 => {
                let read_only = rng.bool();
                let change = |old: Attributes| {
                    if read_only {
                        old.read_only()
                    } else {
                        old.writable()
                    }
                };
                let whole = part.iter().all(Option::is_some);
                match tree.protect(range, change, &mut batch) {
                    Ok(_) if whole => {
                        for page in part.iter_mut().flatten() {
                            page.attributes = change(page.attributes);
                        }
                    }
                    Ok(_) => return Err(Failure::NotRefused("a permission change over a hole")),
                    Err(failure) if whole => return Err(failure.into()),
                    Err(_) => {}
                }
            }
            4 => {
                tree.split(range, &mut batch)?;
            }
            _ => {
                tree.coalesce(range, &mut batch)?;
            }
        }
        batch.flush();
        let (from, to) = if step % 16 == 15 {
            (0, pages)
        } else {
            (first.saturating_sub(20), (first + nr + 20).min(pages))
        };
        verify_pages(
            tree,
            start.add(from * PAGE),
            to - from,
            |page| model[(from + page) as usize],
            ctx.owned(),
        )?;
    }
    Ok(())
}
