use crate::error::Problem;

/// The first line.
pub const HEADER: &str = "seq,cpu,op,id,size,align,kind";
/// Sizes are multiples.
pub const PAGE: u64 = 4096;
/// Sums do not overflow.
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

            /// Returns the name in a trace.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns the one so named.
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
        /// In large blocks.
        VmallocHuge = "vmalloc_huge",
        /// The stack of a thread.
        Stack = "stack",
        /// Part of a module.
        Module = "module",
        /// Code made at run time.
        Execmem = "execmem",
        /// Just-in-time compiled code.
        BpfJit = "bpf_jit",
        /// Pages of a caller.
        Vmap = "vmap",
        /// A physical range that is not RAM.
        Ioremap = "ioremap",
        /// Pages in places.
        Percpu = "percpu",
        /// A short mapping.
        VmMapRam = "vm_map_ram",
        /// Serves `vm_map_ram`.
        VmapBlock = "vmap_block",
        /// For large calls.
        VmMapRamArea = "vm_map_ram_area",
    }
}

named! {
    /// Why lazy areas were flushed.
    PurgeKind {
        /// Enough waited.
        Drain = "drain",
        /// A caller asked.
        UnmapAliases = "unmap_aliases",
        /// No room was left.
        Reclaim = "reclaim",
    }
}

impl Kind {
    /// Whether a guard page is part of the size.
    #[must_use]
    pub const fn has_guard(self) -> bool {
        !matches!(
            self,
            Self::Percpu | Self::VmMapRam | Self::VmapBlock | Self::VmMapRamArea
        )
    }

    /// Whether RAM is mapped in it.
    #[must_use]
    pub const fn is_ram(self) -> bool {
        !matches!(self, Self::Ioremap | Self::VmapBlock)
    }

    /// Whether it ends up read-only and executable.
    #[must_use]
    pub const fn is_code(self) -> bool {
        matches!(self, Self::Module | Self::Execmem | Self::BpfJit)
    }
}

/// The operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Lives at the start.
    Pre(Kind),
    /// Made.
    Alloc(Kind),
    /// Freed.
    Free(Kind),
    /// What waits is flushed.
    Purge(PurgeKind),
}

/// A line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The CPU.
    pub cpu: u32,
    /// What happened.
    pub op: Op,
    /// The area.
    pub id: u64,
    /// Bytes; of a purge, areas.
    pub size: u64,
    /// Bytes; of a purge, the bytes its flush spanned.
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
    /// Parses `line`, without its line feed.
    ///
    /// # Errors
    /// The first bad column from left to right, but the kind with the operation.
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
