//! One operation each on a prepared tree, for every path that takes memory, splits, folds or
//! unlinks. Sizes are in pages of any granule.

use super::Shape;
use super::ops::{Change, Op};
use paging::{Attributes, Extent, Granule, LeafSet, LeafSize, MemoryType, Mmu, Pfn, Tables, Tree, VirtAddr};

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub setup: Vec<Op>,
    pub op: Op,
}

/// Aligned to the largest leaf of any granule.
pub fn base<G: Granule, T: Tables, M: Mmu>(tree: &Tree<G, T, M>) -> VirtAddr {
    tree.range().start.add(1 << (G::VA_BITS - 2))
}

struct Sizes {
    table: u64,
    group: u64,
    block: u64,
    block_group: u64,
    /// 0 where there is no such block.
    block1: u64,
    block1_group: u64,
}

impl Sizes {
    fn of<G: Granule>() -> Self {
        let pages = |size: LeafSize| {
            if size.exists::<G>() {
                size.bytes::<G>() >> G::PAGE_SHIFT
            } else {
                0
            }
        };
        Self {
            table: G::ENTRIES as u64,
            group: pages(LeafSize::PAGE_GROUP),
            block: pages(LeafSize::BLOCK2),
            block_group: pages(LeafSize::BLOCK2_GROUP),
            block1: pages(LeafSize::BLOCK1),
            block1_group: pages(LeafSize::BLOCK1_GROUP),
        }
    }
}

fn scattered(first: u64, pages: u64) -> Shape {
    let mut frames = Vec::new();
    let mut at = first;
    for run in (1..).map(|i| 1 + i * 7 % 23) {
        frames.extend((at..at + run).map(Pfn));
        at += run + 1;
        if frames.len() as u64 >= pages {
            break;
        }
    }
    frames.truncate(pages as usize);
    Shape::Array(frames)
}

fn extents(first: u64, lengths: &[u64]) -> Shape {
    let mut at = first;
    Shape::Extents(
        lengths
            .iter()
            .map(|pages| {
                let start = Pfn(at);
                at += pages + 1;
                Extent { start, pages: *pages }
            })
            .collect(),
    )
}

pub fn corpus<G: Granule>() -> Vec<Case> {
    let s = Sizes::of::<G>();
    let a = 1 << 24;
    let mut cases = Vec::new();
    let mut add = |name, setup: Vec<Op>, op| cases.push(Case { name, setup, op });
    let range = |page, pages| Op::map(page, Shape::Range(a + page, pages));
    let unmap = |page, pages| Op::Unmap { page, pages };
    let read_only = |page, pages| Op::Protect {
        page,
        pages,
        change: Change::ReadOnly,
    };
    let uncached = |page, pages| Op::Protect {
        page,
        pages,
        change: Change::Memory(MemoryType::NORMAL_NC),
    };

    add("map one page", vec![], range(5, 1));
    add(
        "map one page into a table that is there",
        vec![range(5, 1)],
        range(7, 1),
    );
    add(
        "map a range over three tables",
        vec![],
        range(s.table - 3, s.table + 8),
    );
    add(
        "map a range with heads, groups and blocks",
        vec![],
        range(s.block - s.group - 1, 2 * s.block + 2 * s.group),
    );
    add(
        "map an array over three tables",
        vec![],
        Op::map(s.table - 3, scattered(a, s.table + 8)),
    );
    add("map an array that gives blocks", vec![], {
        let frames = (a - 3..a - 3 + 2 * s.block + 5).map(Pfn).collect();
        Op::map(s.block - 3, Shape::Array(frames))
    });
    add(
        "map extents over three tables",
        vec![],
        Op::map(s.table - 5, extents(a, &[3, s.group, 2, s.table + 3])),
    );
    add(
        "map beside what is there, over four tables",
        vec![range(s.table, 1), range(2 * s.table + 4, 1)],
        Op::map(2 * s.table + 5, scattered(a, 2 * s.table)),
    );
    add(
        "map over the border of two level 2 tables",
        vec![],
        range(s.table * s.table - s.group - 1, 2 * s.group + 2),
    );
    add(
        "map pages only",
        vec![],
        Op::Map {
            page: s.block - 2,
            shape: Shape::Range(a + s.block - 2, s.block + 4),
            attributes: Attributes::KERNEL_RODATA,
            allowed: LeafSet::PAGES,
        },
    );

    let group = range(s.group, s.group);
    let block = range(s.block, s.block);
    let blocks = range(s.block_group, s.block_group);
    let leaves = [
        ("a group of pages", &group, s.group, s.group, 1),
        ("a block", &block, s.block, s.block, 1),
        ("a block, mid group", &block, s.block, s.block, s.group),
        ("a group of blocks", &blocks, s.block_group, s.block_group, 1),
        (
            "a group of blocks, at a block",
            &blocks,
            s.block_group,
            s.block_group,
            s.block,
        ),
    ];
    let names = |what: &str, part: &str, leaf: &str| -> &'static str {
        Box::leak(format!("{what} {part} of {leaf}").into_boxed_str())
    };
    let mut add_cuts = |leaf: &str, map: &Op, at: u64, size: u64, cut: u64| {
        let parts = [
            ("the whole", at, size),
            ("the head", at, cut),
            ("the tail", at + size - cut, cut),
            ("the middle", at + cut, (size - 2 * cut).max(1)),
            ("a page in the middle", at + size / 2 + cut % s.group, 1),
            ("all but the first part", at + cut, size - cut),
        ];
        for (part, page, pages) in parts {
            let setup = vec![map.clone()];
            add(names("unmap", part, leaf), setup.clone(), unmap(page, pages));
            add(
                names("protect", part, leaf),
                setup.clone(),
                read_only(page, pages),
            );
            add(
                names("change the memory type of", part, leaf),
                setup.clone(),
                uncached(page, pages),
            );
            add(
                names("split", part, leaf),
                setup.clone(),
                Op::Split { page, pages },
            );
            add(
                names("make invalid", part, leaf),
                setup.clone(),
                Op::SetValid {
                    page,
                    pages,
                    valid: false,
                },
            );
            let invalid = vec![
                map.clone(),
                Op::SetValid {
                    page: at,
                    pages: size,
                    valid: false,
                },
            ];
            add(
                names("make valid again", part, leaf),
                invalid.clone(),
                Op::SetValid {
                    page,
                    pages,
                    valid: true,
                },
            );
            add(names("unmap, invalid,", part, leaf), invalid, unmap(page, pages));
        }
    };
    for (leaf, map, at, size, cut) in leaves {
        add_cuts(leaf, map, at, size, cut);
    }
    let block1 = range(s.block1, s.block1);
    let block1s = range(s.block1_group, s.block1_group);
    if s.block1 != 0 {
        add_cuts("a level 1 block", &block1, s.block1, s.block1, 1);
        add_cuts(
            "a level 1 block, at a block",
            &block1,
            s.block1,
            s.block1,
            s.block,
        );
        add_cuts(
            "a level 1 block, at a group of blocks",
            &block1,
            s.block1,
            s.block1,
            s.block_group,
        );
        add_cuts(
            "a level 1 block, mid group",
            &block1,
            s.block1,
            s.block1,
            s.block + s.group + 1,
        );
        add_cuts(
            "a group of level 1 blocks",
            &block1s,
            s.block1_group,
            s.block1_group,
            1,
        );
    }
    let two = vec![range(s.block, 2 * s.block)];
    add(
        "unmap across two blocks",
        two.clone(),
        unmap(s.block + 3, 2 * s.block - 7),
    );
    add(
        "protect across two blocks",
        two.clone(),
        read_only(s.block + 3, 2 * s.block - 7),
    );
    add(
        "split across two blocks",
        two,
        Op::Split {
            page: s.block + 3,
            pages: 2 * s.block - 7,
        },
    );
    let mixture = vec![range(s.block - 2 * s.group - 3, 2 * s.block + 4 * s.group)];
    add(
        "unmap a mixture from mid group to mid block",
        mixture.clone(),
        unmap(s.block - s.group - 1, s.block + s.group),
    );
    add(
        "protect a mixture from mid group to mid block",
        mixture.clone(),
        read_only(s.block - s.group - 1, s.block + s.group),
    );
    add(
        "change the memory type of a mixture",
        mixture,
        uncached(s.block - s.group - 1, s.block + s.group),
    );
    add(
        "unmap a range with holes",
        vec![range(1, 2), range(s.table + 5, 3), range(3 * s.table, 1)],
        unmap(0, 4 * s.table),
    );
    add(
        "unmap a subtree",
        vec![range(s.table - 4, 3 * s.table + 8)],
        unmap(0, 5 * s.table),
    );
    add("unmap of nothing", vec![range(5, 1)], unmap(100, 50));
    add(
        "unmap of part of a table",
        vec![Op::map(0, scattered(a, s.table))],
        unmap(10, 33),
    );

    add(
        "prune what an unmap left empty",
        vec![
            range(s.table - 4, 3 * s.table + 8),
            unmap(s.table - 4, 3 * s.table),
            range(9 * s.table, 1),
            unmap(9 * s.table, 1),
        ],
        Op::Prune {
            page: 0,
            pages: 20 * s.table,
        },
    );
    add(
        "map pages where an empty table is linked",
        vec![range(s.block + 3, 1), unmap(s.block + 3, 1)],
        Op::map(s.block, scattered(a, s.table)),
    );

    let split = |pages: u64| {
        vec![
            range(pages, pages),
            Op::Protect {
                page: pages + 1,
                pages: 1,
                change: Change::Software(1),
            },
            Op::Protect {
                page: pages + 1,
                pages: 1,
                change: Change::Software(0),
            },
        ]
    };
    add(
        "coalesce a group",
        split(s.group),
        Op::Coalesce {
            page: 0,
            pages: 4 * s.group,
        },
    );
    add(
        "coalesce a block",
        split(s.block),
        Op::Coalesce {
            page: s.block,
            pages: s.block,
        },
    );
    add(
        "coalesce a group of blocks",
        split(s.block_group),
        Op::Coalesce {
            page: 0,
            pages: 4 * s.block_group,
        },
    );
    if s.block1 != 0 {
        add(
            "coalesce a level 1 block",
            split(s.block1),
            Op::Coalesce {
                page: s.block1,
                pages: s.block1,
            },
        );
    }
    let forms: Vec<_> = cases
        .iter()
        .filter(|_| G::INDEX_BITS == 9)
        .filter_map(|case| {
            let Op::Unmap { page, pages } = case.op else {
                return None;
            };
            Some(Case {
                name: Box::leak(format!("{}, flushed later", case.name).into_boxed_str()),
                setup: case.setup.clone(),
                op: Op::UnmapLater { page, pages },
            })
        })
        .collect();
    cases.extend(forms);
    cases
}
