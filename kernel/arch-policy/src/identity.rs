macro_rules! registers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Register {
            $($(#[$doc])* $variant,)*
        }

        impl Register {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            pub const NAMES: &[(&str, Self)] = &[$(($name, Self::$variant),)*];

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
    /// MIDR_EL1.
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
    /// CTR_EL0.
    Ctr = "ctr",
    /// DCZID_EL0.
    Dczid = "dczid",
    /// PMCR_EL0; 0 without a PMUv3.
    Pmcr = "pmcr",
}

pub const NR_REGISTERS: usize = Register::ALL.len();

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Identity(pub [u64; NR_REGISTERS]);

impl Identity {
    #[must_use]
    pub const fn get(&self, register: Register) -> u64 {
        self.0[register as usize]
    }

    #[must_use]
    pub const fn with(mut self, register: Register, value: u64) -> Self {
        self.0[register as usize] = value;
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Override {
    pub cpu: usize,
    pub register: Register,
    pub value: u64,
}

impl Override {
    #[must_use]
    pub fn applied(overrides: impl Iterator<Item = Self>, cpu: usize, identity: Identity) -> Identity {
        overrides
            .filter(|forced| forced.cpu == cpu)
            .fold(identity, |identity, forced| {
                identity.with(forced.register, forced.value)
            })
    }
}
