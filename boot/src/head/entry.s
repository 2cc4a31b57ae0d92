// From the first instruction to the high half.

    .section .boot.text, "ax"

// x0: physical address of the device tree. MMU off. EL2 or EL1.
//
// x19: device tree, x20: exception level, x21: physical address of the image
    .global primary_entry
primary_entry:
    msr     daifset, #0xf
    msr     tpidr_el0, xzr              // see early_exception
    mov     x19, x0
    adr     x21, _start
    mrs     x20, CurrentEL
    lsr     x20, x20, #2
    cmp     x20, #3
    b.eq    .Lfail_el3
    tst     x21, #0x1fffff
    b.ne    .Lfail_alignment

    adr     x9, early_vectors
    cmp     x20, #2
    b.eq    1f
    msr     vbar_el1, x9
    mrs     x9, sctlr_el1
    b       2f
1:  msr     vbar_el2, x9
    mrs     x9, sctlr_el2
2:  isb
    tbnz    x9, #0, .Lfail_mmu          // SCTLR_ELx.M
    tbnz    x9, #25, .Lfail_endian      // SCTLR_ELx.EE

    // The loader cleaned what it loaded, and that does not include .bss and the stack: a stale dirty line there
    // could be written back over what is stored now with the cache off. Invalidate first, then zero.
    bl      invalidate_bss
    adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __image_end
    add     x1, x1, :lo12:__image_end
3:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    3b
    dsb     sy

    adrp    x9, __boot_stack_end
    add     x9, x9, :lo12:__boot_stack_end
    cmp     x20, #2
    b.ne    .Lprimary_el1
    mov     sp, x9
    mov     x29, xzr
    bl      {configure_el2}
    adr     x9, .Lprimary_el1
    bl      drop_to_el1

.Lprimary_el1:
    bl      reset_el1
    adrp    x9, __boot_stack_end
    add     x9, x9, :lo12:__boot_stack_end
    mov     sp, x9
    mov     x29, xzr
    mov     x0, x19
    mov     x1, x20
    mov     x2, x21
    bl      {early_setup}               // returns the physical address of an Early

    ldr     x22, [x0, #{early_ttbr0}]
    ldr     x23, [x0, #{early_ttbr1}]
    ldr     x24, [x0, #{early_tcr}]
    ldr     x25, [x0, #{early_mair}]
    ldr     x26, [x0, #{early_sctlr}]
    // All of it was stored past the caches. Lines that were allocated meanwhile (speculation, another agent) hold what was there
    // before: drop them, so that the walker and the kernel read what was stored. No stack from here on.
    dsb     sy
    bl      invalidate_bss
    ldr     x27, =__boot_stack_end
    ldr     x28, ={start_high}
    ldr     x19, ={early}
    b       enable_mmu

.Lfail_el3:
    adr     x0, .Lmsg_el3
    b       early_fail
.Lfail_alignment:
    adr     x0, .Lmsg_alignment
    b       early_fail
.Lfail_mmu:
    adr     x0, .Lmsg_mmu
    b       early_fail
.Lfail_endian:
    adr     x0, .Lmsg_endian
    b       early_fail
.Lmsg_el3:          .asciz "entered at EL3, the arm64 boot protocol says EL2 or EL1"
.Lmsg_alignment:    .asciz "the image is not loaded at a multiple of 2 MiB"
.Lmsg_mmu:          .asciz "entered with the MMU on"
.Lmsg_endian:       .asciz "entered in big-endian state"
    .balign 4

// Entry of a CPU that waits in a spin table of its firmware, which lets it go once. It waits here until the kernel calls its
// number; then it comes as one that was turned on. MMU off. EL2 or EL1.
    .global pen_entry
pen_entry:
    msr     daifset, #0xf
.Lpen:
    adrp    x10, {pen}
    add     x10, x10, :lo12:{pen}
    mrs     x11, mpidr_el1
    ldr     x9, ={affinity}
    and     x11, x11, x9
1:  ldr     x9, [x10]                   // Device memory, as all is with the MMU off: in order with the next
    cmp     x9, x11
    b.eq    2f
    wfe
    b       1b
2:  ldr     x0, [x10, #{pen_context}]
    b       secondary_entry

// Back to the pen, from EL1 with the MMU on. x0: address of a word that is 1 once nothing but registers is used. Entered at its
// physical address, in the identity map, so that the MMU may go off.
    .global pen_return
pen_return:
    ldr     x9, ={sctlr_mmu_off}
    mov     x10, #1
    stlr    x10, [x0]
    msr     sctlr_el1, x9
    isb
    b       .Lpen

// Entry of every other CPU, from PSCI CPU_ON. x0: physical address of its SecondaryArgs, which the caller cleaned to the
// point of coherency. MMU off. EL2 or EL1. What stops it here, stops it silently: the CPU that asked reports who did not come.
    .global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    mov     x9, #1                      // an early exception parks without a word: the UART has an owner
    msr     tpidr_el0, x9
    mov     x19, x0
    adr     x9, early_vectors
    mrs     x20, CurrentEL
    lsr     x20, x20, #2
    cmp     x20, #2
    b.hi    park
    b.lo    1f
    msr     vbar_el2, x9
    isb
    add     x9, x19, #{args_size}       // its own scratch stack is the upper end of its arguments
    mov     sp, x9
    mov     x29, xzr
    bl      {configure_el2}
    adr     x9, 1f
    bl      drop_to_el1
1:  bl      reset_el1
    ldr     x22, [x19, #{args_ttbr0}]
    ldr     x23, [x19, #{args_ttbr1}]
    ldr     x24, [x19, #{args_tcr}]
    ldr     x25, [x19, #{args_mair}]
    ldr     x26, [x19, #{args_sctlr}]
    // All CPUs have one TCR_EL1 but for IPS: this one's own size of physical addresses, up to what
    // the tables can name. Without the granule of the tables, or its 52 bits, it cannot go on.
    mrs     x9, id_aa64mmfr0_el1
    ubfx    x10, x9, #{granule_field}, #4
    add     x10, x10, #1                // TGran4 and TGran64: 0xf is none; TGran16: 0
    and     x10, x10, #0xf
    cmp     x10, #{granule_least}
    b.lo    park
    mrs     x10, s3_0_c0_c7_2            // ID_AA64MMFR2_EL1
    ubfx    x10, x10, #16, #4           // VARange: 1 is FEAT_LVA
    cmp     x10, #{va_range_least}
    b.lo    park
    and     x9, x9, #0xf                // PARange
    mov     x10, #{most_ips}
    cmp     x9, x10
    csel    x9, x9, x10, lo
    bfi     x24, x9, #32, #3            // IPS
    ldr     x27, [x19, #{args_stack_top}]
    ldr     x28, [x19, #{args_entry}]
    ldr     x19, [x19, #{args_argument}]
    // Falls through.

// x19: argument, x22: TTBR0, x23: TTBR1, x24: TCR, x25: MAIR, x26: SCTLR, x27: stack, x28: where to go. The code here is mapped by
// the identity map of TTBR0, so that the next instruction is the same one before and after the MMU goes on.
enable_mmu:
    // Nothing in the TLBs is ours (Arm ARM, "TLB maintenance": their content is UNKNOWN out of reset).
    tlbi    vmalle1
    dsb     nsh
    msr     mair_el1, x25
    msr     tcr_el1, x24
    msr     ttbr0_el1, x22
    msr     ttbr1_el1, x23
    isb                                 // all of the above before the MMU is on
    // The instruction cache may hold anything for these addresses (boot protocol: it may have been on).
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x26
    isb                                 // from here on translated
    mov     sp, x27
    mov     x0, x19
    mov     x29, xzr                    // the last frame record of a backtrace
    mov     x30, xzr
    br      x28

// EL2 to EL1h, everything masked. x9: physical address to go on at. Clobbers x10.
drop_to_el1:
    mov     x10, #0x3c5                 // SPSR_EL2: D A I F, EL1h
    msr     spsr_el2, x10
    msr     elr_el2, x9
    eret

// A known EL1: MMU and caches off, RES1 bits set, early vectors, Advanced SIMD allowed (arch::table_ops uses it), SVE not, no debug
// events, PAN off, nothing of TCR2_EL1 and SCTLR2_EL1. x20: exception level of entry. Clobbers x9.
reset_el1:
    ldr     x9, ={sctlr_mmu_off}
    msr     sctlr_el1, x9
    adr     x9, early_vectors
    msr     vbar_el1, x9
    mov     x9, #3 << 20                // FPEN
    msr     cpacr_el1, x9
    msr     mdscr_el1, xzr
    msr     spsel, #1
    // What these two switch on gives bits of descriptors another meaning (TCR2_EL1.HAFT: bit 10 of
    // a link), and no reset clears them where a loader or a hypervisor set them. After an EL2 of
    // ours they count as 0, and would trap (HCRX_EL2).
    cmp     x20, #2
    b.eq    2f
    mrs     x9, s3_0_c0_c7_3            // ID_AA64MMFR3_EL1
    tst     x9, #0xf                    // TCRX
    b.eq    1f
    msr     s3_0_c2_c0_3, xzr           // TCR2_EL1
1:  tst     x9, #0xf0                   // SCTLRX
    b.eq    2f
    msr     s3_0_c1_c0_3, xzr           // SCTLR2_EL1
2:  isb
    // PSTATE.PAN is of no use without EL0, and SCTLR_EL1.SPAN keeps exceptions from setting it.
    mrs     x9, id_aa64mmfr1_el1
    ubfx    x9, x9, #20, #4             // PAN
    cbz     x9, 1f
    .inst   0xd500409f                  // MSR PAN, #0 (an assembler for Armv8.0 does not know it)
1:  ret

// Invalidates [__bss_start, __image_end) to the point of coherency. Both ends are page-aligned, so no line is shared with a neighbour.
// Under a stage 2 translation the architecture makes this a clean and invalidate. Clobbers x9 to x12.
invalidate_bss:
    mrs     x9, ctr_el0
    ubfx    x9, x9, #16, #4             // DminLine: log2 of words
    mov     x10, #4
    lsl     x10, x10, x9
    adrp    x11, __bss_start
    add     x11, x11, :lo12:__bss_start
    adrp    x12, __image_end
    add     x12, x12, :lo12:__image_end
1:  dc      ivac, x11
    add     x11, x11, x10
    cmp     x11, x12
    b.lo    1b
    dsb     sy
    ret
    .ltorg
