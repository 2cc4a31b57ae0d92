// Runs in the identity map, so it lies in the section that the identity map covers. No stack, no data.
//
// x0: new root, x1: TCR_EL1 with walks of the upper half disabled, x2: TCR_EL1 as it is to be. x30: where to return to, in the upper half.
    .section .boot.text, "ax"
    .global replace_ttbr1_identity
replace_ttbr1_identity:
    msr     tcr_el1, x1
    isb                                 // no new walk of the upper half from here on
    tlbi    vmalle1                     // this CPU's entries only: others switch by themselves
    dsb     nsh
    isb
    msr     ttbr1_el1, x0
    isb                                 // the new root is there before walks are enabled again
    msr     tcr_el1, x2
    isb
    ret
