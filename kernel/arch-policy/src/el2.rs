//! What EL2 can be made to be.

/// Returns whether ID_AA64MMFR4_EL1 says that HCR_EL2.E2H is RES1: FEAT_E2H0 is not implemented.
///
/// E2H0, bits 27:24, is signed: 0 says that it is implemented, -1 and -2 that it is not (Arm ARM,
/// ID_AA64MMFR4_EL1). A CPU that is older than the field reads as 0, whichever it is.
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
            // Its neighbours.
            (0xf0_f0ff_ffff & !(0xf << 24), false),
            (0xf << 28, false),
            (0xf << 20, false),
        ] {
            assert_eq!(e2h_is_res1(mmfr4), res1, "{mmfr4:#x}");
        }
    }
}
