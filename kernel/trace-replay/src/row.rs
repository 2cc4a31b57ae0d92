//! A line of a trace by itself: seven columns, each checked.

use crate::error::Problem;

/// The first line of every trace.
pub const HEADER: &str = "seq,cpu,op,id,size,align,kind";
/// Bytes of a page; every size is a multiple.
pub const PAGE: u64 = 4096;
/// The largest size, and the largest alignment: sums of any number of lines stay far from overflow.
pub const MAX_BYTES: u64 = 1 << 40;

const NR_COLUMNS: usize = 7;

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $type {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As a trace names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns the one that a trace names so.
            #[must_use]
            pub fn by_name(name: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name().as_bytes() == name)
            }
        }
    };
}

named! {
    /// What an area is for.
    Kind {
        /// Memory of its own.
        Vmalloc = "vmalloc",
        /// The same in large blocks.
        VmallocHuge = "vmalloc_huge",
        /// The stack of a thread.
        Stack = "stack",
        /// A part of a loaded module.
        Module = "module",
        /// Memory for code that is made at run time.
        Execmem = "execmem",
        /// Memory for programs that a just-in-time compiler makes.
        BpfJit = "bpf_jit",
        /// Pages of a caller.
        Vmap = "vmap",
        /// A physical range that is no RAM.
        Ioremap = "ioremap",
        /// A chunk of every CPU's own data: addresses first, pages in places.
        Percpu = "percpu",
        /// A call that maps pages for a short while.
        VmMapRam = "vm_map_ram",
        /// A block of addresses that such calls are served from.
        VmapBlock = "vmap_block",
        /// An area of its own for a call that is too large for a block.
        VmMapRamArea = "vm_map_ram_area",
    }
}

named! {
    /// Why areas that wait were flushed.
    PurgeKind {
        /// Enough of them waited.
        Drain = "drain",
        /// A caller asked.
        UnmapAliases = "unmap_aliases",
        /// There was no room left.
        Reclaim = "reclaim",
    }
}

impl Kind {
    /// Returns whether a guard page is part of the size.
    #[must_use]
    pub const fn has_guard(self) -> bool {
        !matches!(
            self,
            Self::Percpu | Self::VmMapRam | Self::VmapBlock | Self::VmMapRamArea
        )
    }

    /// Returns whether RAM is mapped in it.
    #[must_use]
    pub const fn is_ram(self) -> bool {
        !matches!(self, Self::Ioremap | Self::VmapBlock)
    }

    /// Returns whether it is code when it is done: written first, then read-only and executable.
    #[must_use]
    pub const fn is_code(self) -> bool {
        matches!(self, Self::Module | Self::Execmem | Self::BpfJit)
    }
}

/// What a line says happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// The area lives when the trace begins.
    Pre(Kind),
    /// The area is made.
    Alloc(Kind),
    /// The area ends.
    Free(Kind),
    /// What waits is flushed.
    Purge(PurgeKind),
}

/// A line, each column checked by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The CPU that did it.
    pub cpu: u32,
    /// What it did.
    pub op: Op,
    /// The area.
    pub id: u64,
    /// Its size in bytes; for a purge, how many areas were flushed.
    pub size: u64,
    /// Its alignment in bytes, as asked; for a purge, the bytes that the flush spanned.
    pub align: u64,
}

fn number<'a>(column: &'static str, found: &'a [u8]) -> Result<u64, Problem<'a>> {
    let bad = Problem::Number { column, found };
    if found.is_empty() {
        return Err(bad);
    }
    found.iter().try_fold(0u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10).ok_or(bad)?;
        number
            .checked_mul(10)
            .and_then(|number| number.checked_add(u64::from(digit)))
            .ok_or(bad)
    })
}

impl Row {
    /// Reads `line`, which has no line feed, for a machine with room for `max_cpus` CPUs.
    ///
    /// # Errors
    /// What is wrong with the first bad column, from left to right; the kind is looked at with the
    /// operation.
    pub fn parse(line: &[u8], max_cpus: u32) -> Result<Self, Problem<'_>> {
        let mut columns: [&[u8]; NR_COLUMNS] = [&[]; NR_COLUMNS];
        let mut nr = 0;
        for field in line.split(|byte| *byte == b',') {
            if let Some(column) = columns.get_mut(nr) {
                *column = field;
            }
            nr += 1;
        }
        if nr != NR_COLUMNS {
            return Err(Problem::Columns(nr));
        }
        let [seq, cpu, op, id, size, align, kind] = columns;
        number("seq", seq)?;
        let cpu = number("cpu", cpu)?;
        let limit = max_cpus;
        let cpu = u32::try_from(cpu)
            .ok()
            .filter(|cpu| *cpu < limit)
            .ok_or(Problem::Cpu { cpu, limit })?;
        let area = || Kind::by_name(kind).ok_or(Problem::AreaKind(kind));
        let op = match op {
            b"pre" => Op::Pre(area()?),
            b"alloc" => Op::Alloc(area()?),
            b"free" => Op::Free(area()?),
            b"purge" => Op::Purge(PurgeKind::by_name(kind).ok_or(Problem::PurgeKind(kind))?),
            _ => return Err(Problem::Op(op)),
        };
        let row = Self {
            cpu,
            op,
            id: number("id", id)?,
            size: number("size", size)?,
            align: number("align", align)?,
        };
        row.check_area()?;
        Ok(row)
    }

    fn check_area(&self) -> Result<(), Problem<'static>> {
        let Self { size, align, .. } = *self;
        let (Op::Pre(kind) | Op::Alloc(kind) | Op::Free(kind)) = self.op else {
            return Ok(());
        };
        if size == 0 || size > MAX_BYTES || !size.is_multiple_of(PAGE) {
            return Err(Problem::Size(size));
        }
        if kind.has_guard() && size == PAGE {
            return Err(Problem::NothingBesideGuard(size));
        }
        if align > MAX_BYTES || !align.is_power_of_two() {
            return Err(Problem::Align(align));
        }
        Ok(())
    }
}
