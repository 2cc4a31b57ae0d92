/// Returns whether HCR_EL2.E2H is RES1: ID_AA64MMFR4_EL1.E2H0, bits 27:24 and signed, is negative
/// (Arm ARM, ID_AA64MMFR4_EL1). Older CPUs have 0 there.
#[inline(always)]
#[must_use]
pub const fn e2h_is_res1(mmfr4: u64) -> bool {
    (mmfr4 >> 24 & 0xf) as i64 >= 8
}

#[cfg(test)]
mod tests {
    use super::e2h_is_res1;

    #[test]
    fn the_field_is_signed() {
        for (mmfr4, res1) in [
            (0, false),
            (0xf << 24, true),
            (0xe << 24, true),
            (0x1 << 24, false),
            (0x7 << 24, false),
            (0xf0_f0ff_ffff & !(0xf << 24), false),
            (0xf << 28, false),
            (0xf << 20, false),
        ] {
            assert_eq!(e2h_is_res1(mmfr4), res1, "{mmfr4:#x}");
        }
    }
}
