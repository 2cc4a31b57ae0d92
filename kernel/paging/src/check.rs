//! `check`: an audit of the whole tree, from the descriptors up.
//!
//! What an emulator does not show, the tables must: a contiguous group that is not whole,
//! misaligned or mixed works on a CPU that ignores the bit and breaks on one that does not (DESIGN
//! section 5). The audit reads every descriptor and trusts none of the engine's shortcuts: groups
//! are compared member by member.

use crate::addr::{PhysAddr, VirtAddr};
use crate::descriptor::{Attributes, CONTIGUOUS, Descriptor, TABLE_OR_PAGE, VALID};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{LeafCounts, LeafSize};
use crate::tables::Tables;
use crate::tree::{Node, Tree};
use crate::walk::Leaf;
use core::fmt;

/// What the audit found wrong: the first thing, with the place and the values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CheckError {
    /// A table is linked from two places, or is not memory that tables may lie in.
    BadTable {
        /// Where the link translates.
        va: VirtAddr,
        /// The table.
        table: PhysAddr,
    },
    /// A member of a contiguous group differs from its first in more than the consecutive address
    /// (DESIGN rule 1).
    MixedGroup {
        /// The member.
        va: VirtAddr,
        /// What it is.
        found: Descriptor,
        /// What it should be.
        expected: Descriptor,
    },
    /// A descriptor outside any contiguous group's first place carries the bit where the level has
    /// no such groups, or the group's output address is not a multiple of its size.
    MisalignedGroup {
        /// The group.
        va: VirtAddr,
        /// Its first descriptor.
        found: Descriptor,
    },
    /// A block at a level that has none, an address that is not a multiple of the block or beyond
    /// the implemented size, or a reserved encoding.
    BadDescriptor {
        /// Where.
        va: VirtAddr,
        /// Its level.
        level: Level,
        /// The descriptor.
        found: Descriptor,
    },
    /// Writable and executable at EL1 (DESIGN rule 10).
    WritableExecutable {
        /// Where.
        va: VirtAddr,
        /// With these attributes.
        attributes: Attributes,
    },
    /// A leaf that the caller did not expect.
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
    /// Tables, the root included.
    pub tables: u64,
    /// Of those, linked ones that are empty: what [`prune`](Tree::prune) frees.
    pub empty_tables: u64,
    /// Leaves by size.
    pub leaves: LeafCounts,
    /// Leaves that keep their place but are not valid.
    pub invalid_leaves: u64,
}

/// An audit under way.
struct Audit<FT, FL> {
    on_table: FT,
    on_leaf: FL,
    report: Report,
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Audits the whole tree. No operation may be writing to it.
    ///
    /// `on_table` hears every table once per link, root first, with its level, and says whether it
    /// may be there: a caller that keeps a set of the tables it handed out finds leaks and double
    /// links with it. `on_leaf` says whether a leaf is one that the caller knows of.
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

    /// Checks the table `node` that translates from `va` on.
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
        // Only what `Descriptor::table` writes: an attribute in a link would narrow everything
        // below it.
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
                // Its group's first descriptor must have been one of a group, or this one stands
                // alone.
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

    /// A leaf's own bits.
    fn check_bits(&self, level: Level, found: Descriptor, va: VirtAddr) -> Result<(), CheckError> {
        let pa = G::decode(found.0);
        let page_bit = found.0 & TABLE_OR_PAGE != 0;
        let attributes = found.attributes::<G>();
        let type_bits = found.0 & (VALID | TABLE_OR_PAGE | CONTIGUOUS);
        if !G::leaf_allowed(level)
            || page_bit != (level == LAST_LEVEL)
            || !pa.is_aligned(G::size(level))
            || pa.0 & self.unimplemented_pa() != 0
            // Bits that the engine never writes: reserved ones, and SH 0b01 (Arm ARM D8.3, D8.6.2).
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

    /// Every member of the group that begins at `index`, against the first.
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
