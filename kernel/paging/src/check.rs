//! `check`: an audit. A mixed group breaks only on a CPU that uses the bit, so members are compared
//! one by one.

use crate::addr::{PhysAddr, VirtAddr};
use crate::descriptor::{Attributes, CONTIGUOUS, Descriptor, TABLE_OR_PAGE, VALID};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{LeafCounts, LeafSize};
use crate::tables::Tables;
use crate::tree::{Node, Tree};
use crate::walk::Leaf;
use core::fmt;

/// The first thing found wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CheckError {
    /// A table is linked twice, or is no table memory.
    BadTable {
        /// Where the link translates.
        va: VirtAddr,
        /// Its address.
        table: PhysAddr,
    },
    /// A group's member differs from its first (DESIGN rule 1).
    MixedGroup {
        /// The member.
        va: VirtAddr,
        /// What it is.
        found: Descriptor,
        /// What it should be.
        expected: Descriptor,
    },
    /// The contiguous bit at a level without groups, or a misaligned group.
    MisalignedGroup {
        /// The group.
        va: VirtAddr,
        /// Its first descriptor.
        found: Descriptor,
    },
    /// A block at a level without, a bad address, or a reserved encoding.
    BadDescriptor {
        /// Where.
        va: VirtAddr,
        /// Its level.
        level: Level,
        /// The descriptor.
        found: Descriptor,
    },
    /// Writable and executable (DESIGN rule 10).
    WritableExecutable {
        /// Where.
        va: VirtAddr,
        /// Its attributes.
        attributes: Attributes,
    },
    /// A leaf that `on_leaf` refused.
    UnexpectedLeaf(Leaf),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadTable { va, table } => {
                write!(f, "table {table} at {va} is linked twice or is no table memory")
            }
            Self::MixedGroup { va, found, expected } => {
                write!(f, "group member at {va} is {found:?}, not {expected:?}")
            }
            Self::MisalignedGroup { va, found } => {
                write!(f, "misaligned contiguous group {found:?} at {va}")
            }
            Self::BadDescriptor { va, level, found } => {
                write!(f, "level {level} descriptor {found:?} at {va} is malformed")
            }
            Self::WritableExecutable { va, attributes } => {
                write!(f, "{va} is writable and executable: {attributes:?}")
            }
            Self::UnexpectedLeaf(leaf) => write!(
                f,
                "unexpected leaf {:?} at {} to {}: {:?}",
                leaf.size, leaf.va, leaf.pa, leaf.attributes
            ),
        }
    }
}

impl core::error::Error for CheckError {}

/// What an audit counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// With the root.
    pub tables: u64,
    /// Empty ones: see [`prune`](Tree::prune).
    pub empty_tables: u64,
    /// Leaves by size.
    pub leaves: LeafCounts,
    /// Leaves that keep their place, invalid.
    pub invalid_leaves: u64,
}

struct Audit<FT, FL> {
    on_table: FT,
    on_leaf: FL,
    report: Report,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Audits the whole tree, to which no operation may be writing. `on_table` gets every table
    /// once per link, root first, and returns whether it may be there. `on_leaf` returns whether a
    /// leaf is expected.
    ///
    /// # Errors
    /// The first [`CheckError`], in ascending order of addresses.
    pub fn check(
        &self,
        on_table: impl FnMut(PhysAddr, Level) -> bool,
        on_leaf: impl FnMut(&Leaf) -> bool,
    ) -> Result<Report, CheckError> {
        let mut audit = Audit {
            on_table,
            on_leaf,
            report: Report::default(),
        };
        self.check_table(self.root_node(), self.range().start, &mut audit)?;
        Ok(audit.report)
    }

    fn check_table<FT, FL>(
        &self,
        node: Node,
        va: VirtAddr,
        audit: &mut Audit<FT, FL>,
    ) -> Result<(), CheckError>
    where
        FT: FnMut(PhysAddr, Level) -> bool,
        FL: FnMut(&Leaf) -> bool,
    {
        if !(audit.on_table)(node.table, node.level) {
            return Err(CheckError::BadTable {
                va,
                table: node.table,
            });
        }
        audit.report.tables += 1;
        let entries = G::root_entries_at(node.level);
        let mut is_empty = true;
        for i in 0..entries {
            let found = self.load(node.table, i);
            if found == Descriptor::VACANT {
                continue;
            }
            is_empty = false;
            let va = va.add((i as u64) << G::shift(node.level));
            if found.is_table(node.level) {
                self.check_link(node, found, va, audit)?;
            } else {
                self.check_leaf(node, i, found, va, audit)?;
            }
        }
        audit.report.empty_tables += u64::from(is_empty && node.level != G::ROOT_LEVEL);
        Ok(())
    }

    fn check_link<FT, FL>(
        &self,
        node: Node,
        found: Descriptor,
        va: VirtAddr,
        audit: &mut Audit<FT, FL>,
    ) -> Result<(), CheckError>
    where
        FT: FnMut(PhysAddr, Level) -> bool,
        FL: FnMut(&Leaf) -> bool,
    {
        let child = self.child(node, found);
        // Attributes in a link narrow everything below it.
        if found != Descriptor::table::<G>(child.table) {
            return Err(CheckError::BadDescriptor {
                va,
                level: node.level,
                found,
            });
        }
        self.check_table(child, va, audit)
    }

    fn check_leaf<FT, FL>(
        &self,
        node: Node,
        index: usize,
        found: Descriptor,
        va: VirtAddr,
        audit: &mut Audit<FT, FL>,
    ) -> Result<(), CheckError>
    where
        FL: FnMut(&Leaf) -> bool,
    {
        let level = node.level;
        self.check_bits(level, found, va)?;
        let pa = G::decode(found.0);
        let size = LeafSize::new(level, found.is_contiguous());
        let within = index & (size.descriptors::<G>() - 1);
        if found.is_contiguous() {
            if G::cont_shift(level) == 0 || (within == 0 && !pa.is_aligned(G::cont_size(level))) {
                return Err(CheckError::MisalignedGroup { va, found });
            }
            if within == 0 {
                self.check_group(node, index, found, va)?;
            } else {
                let first = self.load(node.table, index - within);
                let expected = Descriptor(first.0.wrapping_add((within as u64) << G::shift(level)));
                return if found == expected {
                    Ok(())
                } else {
                    Err(CheckError::MixedGroup { va, found, expected })
                };
            }
        }
        let leaf = Leaf {
            va,
            pa,
            size,
            attributes: found.attributes::<G>(),
            valid: found.is_valid(),
        };
        if !(audit.on_leaf)(&leaf) {
            return Err(CheckError::UnexpectedLeaf(leaf));
        }
        audit.report.leaves.add(size, 1);
        audit.report.invalid_leaves += u64::from(!leaf.valid);
        Ok(())
    }

    fn check_bits(&self, level: Level, found: Descriptor, va: VirtAddr) -> Result<(), CheckError> {
        let pa = G::decode(found.0);
        let page_bit = found.0 & TABLE_OR_PAGE != 0;
        let attributes = found.attributes::<G>();
        let type_bits = found.0 & (VALID | TABLE_OR_PAGE | CONTIGUOUS);
        if !G::leaf_allowed(level)
            || page_bit != (level == LAST_LEVEL)
            || !pa.is_aligned(G::size(level))
            || pa.0 & self.unimplemented_pa() != 0
            // Never written: reserved bits, SH 0b01 (Arm ARM D8.3, D8.6.2).
            || found.0 != G::encode(pa) | attributes.in_descriptor::<G>() | type_bits
            || attributes.memory().shareability() == 0b01
        {
            return Err(CheckError::BadDescriptor { va, level, found });
        }
        if attributes.is_writable_and_executable() {
            return Err(CheckError::WritableExecutable { va, attributes });
        }
        Ok(())
    }

    fn check_group(
        &self,
        node: Node,
        index: usize,
        first: Descriptor,
        va: VirtAddr,
    ) -> Result<(), CheckError> {
        let step = G::size(node.level);
        for i in 1..G::cont_entries(node.level) {
            let offset = i as u64 * step;
            let found = self.load(node.table, index + i);
            let expected = Descriptor(first.0.wrapping_add(offset));
            if found != expected {
                return Err(CheckError::MixedGroup {
                    va: va.add(offset),
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}
