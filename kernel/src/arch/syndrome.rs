//! ESR_EL1 (Arm ARM, "ESR_EL1, Exception Syndrome Register (EL1)").

use core::fmt;

pub mod class {
    /// Undefined instruction and others.
    pub const UNKNOWN: u64 = 0x00;
    /// Trapped by CPACR_EL1.
    pub const FP: u64 = 0x07;
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    pub const PC_ALIGNMENT: u64 = 0x22;
    pub const DATA_ABORT: u64 = 0x25;
    pub const SP_ALIGNMENT: u64 = 0x26;
    pub const SERROR: u64 = 0x2f;
    pub const BRK: u64 = 0x3c;
}

/// DFSC, IFSC or PAR_EL1.FST, with the level of the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultStatus {
    /// In the tables, or the output.
    AddressSize(i8),
    Translation(i8),
    AccessFlag(i8),
    Permission(i8),
    /// Synchronous, on the access.
    External,
    /// Synchronous, on the walk.
    ExternalOnWalk(i8),
    Alignment,
    /// Several TLB entries matched.
    TlbConflict,
    Other(u8),
}

impl FaultStatus {
    #[must_use]
    pub const fn from_fsc(fsc: u8) -> Self {
        let level = (fsc & 0b11) as i8;
        match fsc & 0x3f {
            0b00_0000..=0b00_0011 => Self::AddressSize(level),
            0b00_0100..=0b00_0111 => Self::Translation(level),
            0b00_1000..=0b00_1011 => Self::AccessFlag(level),
            0b00_1100..=0b00_1111 => Self::Permission(level),
            0b10_1001 => Self::AddressSize(-1),
            0b10_1011 => Self::Translation(-1),
            0b01_0011 => Self::ExternalOnWalk(-1),
            0b01_0000 => Self::External,
            0b01_0100..=0b01_0111 => Self::ExternalOnWalk(level),
            0b10_0001 => Self::Alignment,
            0b11_0000 => Self::TlbConflict,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressSize(level) => write!(f, "address size fault level {level}"),
            Self::Translation(level) => write!(f, "translation fault level {level}"),
            Self::AccessFlag(level) => write!(f, "access flag fault level {level}"),
            Self::Permission(level) => write!(f, "permission fault level {level}"),
            Self::External => write!(f, "synchronous external abort"),
            Self::ExternalOnWalk(level) => write!(f, "synchronous external abort on the walk, level {level}"),
            Self::Alignment => write!(f, "alignment fault"),
            Self::TlbConflict => write!(f, "TLB conflict abort"),
            Self::Other(code) => write!(f, "fault status {code:#04x}"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Syndrome(pub u64);

impl Syndrome {
    #[must_use]
    pub const fn class(self) -> u64 {
        self.0 >> 26 & 0x3f
    }

    #[must_use]
    pub const fn is_abort(self) -> bool {
        matches!(self.class(), class::DATA_ABORT | class::INSTRUCTION_ABORT)
    }

    #[must_use]
    pub const fn fault_status(self) -> Option<FaultStatus> {
        if self.is_abort() {
            Some(FaultStatus::from_fsc((self.0 & 0x3f) as u8))
        } else {
            None
        }
    }

    /// Returns WnR: set for cache maintenance and AT, too.
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.class() == class::DATA_ABORT && self.0 & 1 << 6 != 0
    }

    #[must_use]
    pub const fn far_valid(self) -> bool {
        self.is_abort() && self.0 & 1 << 10 == 0 || self.class() == class::PC_ALIGNMENT
    }

    #[must_use]
    pub const fn class_name(self) -> &'static str {
        match self.class() {
            class::UNKNOWN => "undefined instruction",
            0x01 => "trapped WFI or WFE",
            class::FP => "trapped FP or SIMD access",
            0x0d => "branch target exception",
            0x0e => "illegal execution state",
            0x15 => "SVC",
            0x16 => "HVC",
            0x17 => "SMC",
            0x18 => "trapped MSR, MRS or system instruction",
            0x19 => "trapped SVE access",
            0x1c => "pointer authentication failure",
            class::INSTRUCTION_ABORT => "instruction abort",
            class::PC_ALIGNMENT => "PC alignment fault",
            class::DATA_ABORT => "data abort",
            class::SP_ALIGNMENT => "SP alignment fault",
            class::SERROR => "SError",
            0x31 => "breakpoint",
            0x33 => "software step",
            0x35 => "watchpoint",
            class::BRK => "BRK instruction",
            _ => "unexpected exception class",
        }
    }
}

impl fmt::Display for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class_name())?;
        if self.class() == class::DATA_ABORT {
            f.write_str(if self.is_write() {
                " on a write"
            } else {
                " on a read"
            })?;
        }
        if let Some(status) = self.fault_status() {
            write!(f, ", {status}")?;
        }
        Ok(())
    }
}
