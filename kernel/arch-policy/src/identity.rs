//! What a CPU says of itself: the identification registers that anything is decided by.

macro_rules! registers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A register of [`Identity`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Register {
            $($(#[$doc])* $variant,)*
        }

        impl Register {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// All of them, by the names that boot arguments have for them.
            pub const NAMES: &[(&str, Self)] = &[$(($name, Self::$variant),)*];

            /// As boot arguments name it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

registers! {
    /// MIDR_EL1: whose core it is, and which revision.
    Midr = "midr",
    /// ID_AA64PFR0_EL1.
    Pfr0 = "pfr0",
    /// ID_AA64DFR0_EL1.
    Dfr0 = "dfr0",
    /// ID_AA64ISAR0_EL1.
    Isar0 = "isar0",
    /// ID_AA64MMFR0_EL1.
    Mmfr0 = "mmfr0",
    /// ID_AA64MMFR1_EL1.
    Mmfr1 = "mmfr1",
    /// ID_AA64MMFR2_EL1.
    Mmfr2 = "mmfr2",
    /// CTR_EL0: cache lines, and what instruction fetches need.
    Ctr = "ctr",
    /// DCZID_EL0: what DC ZVA zeroes.
    Dczid = "dczid",
    /// PMCR_EL0 as it was read; 0 without a PMUv3.
    Pmcr = "pmcr",
}

/// Number of [`Register`]s.
pub const NR_REGISTERS: usize = Register::ALL.len();

/// The identification registers of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Identity(pub [u64; NR_REGISTERS]);

impl Identity {
    /// Returns the value of `register`.
    #[must_use]
    pub const fn get(&self, register: Register) -> u64 {
        self.0[register as usize]
    }

    /// The same, but for `register`, which has `value`.
    #[must_use]
    pub const fn with(mut self, register: Register, value: u64) -> Self {
        self.0[register as usize] = value;
        self
    }
}

/// Something that a CPU is taken to say: a machine whose CPUs differ, where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Override {
    /// The CPU's number.
    pub cpu: usize,
    /// The register.
    pub register: Register,
    /// What it is taken to hold.
    pub value: u64,
}

impl Override {
    /// Returns what CPU `cpu` says by all of `overrides`, if it really says `identity`.
    #[must_use]
    pub fn applied(overrides: impl Iterator<Item = Self>, cpu: usize, identity: Identity) -> Identity {
        overrides
            .filter(|forced| forced.cpu == cpu)
            .fold(identity, |identity, forced| {
                identity.with(forced.register, forced.value)
            })
    }
}
