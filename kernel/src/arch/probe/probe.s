// The instructions behind arch::probe. Each stands in the exception table; its fixup gets ESR_EL1 in x9 and FAR_EL1 in x10 and stores
// them where x1 points to. x0 to x18 are the caller's to lose (AAPCS64).

.macro ex_entry instruction, fixup, kind
    .pushsection .ex_table, "a"
    .balign 4
    .long   \instruction - .
    .long   \fixup - .
    .long   \kind
    .popsection
.endm

    .section .text.probe, "ax"

// x0: address, x1: fault. Returns the value, or 0.
    .global probe_read64_or_fault
probe_read64_or_fault:
10: ldr     x0, [x0]
    ret
    ex_entry 10b, probe_fault, 0

    .global probe_read32_or_fault
probe_read32_or_fault:
11: ldr     w0, [x0]
    ret
    ex_entry 11b, probe_fault, 0

// x0: address, x1: fault, x2: value.
    .global probe_write64_or_fault
probe_write64_or_fault:
12: str     x2, [x0]
    ret
    ex_entry 12b, probe_fault, 0

    .global probe_write32_or_fault
probe_write32_or_fault:
13: str     w2, [x0]
    ret
    ex_entry 13b, probe_fault, 0

// x0: address, x1: fault. x11 tells the exception handler what was called: only a fault on that very instruction is taken for the
// probe's own, not one somewhere below a call that succeeded.
    .global probe_call_or_fault
probe_call_or_fault:
    stp     x29, x30, [sp, #-32]!
    mov     x29, sp
    str     x1, [sp, #16]
    mov     x11, x0
    blr     x0
14: ldp     x29, x30, [sp], #32
    ret
15: ldr     x1, [sp, #16]
    stp     x9, x10, [x1]
    ldp     x29, x30, [sp], #32
    ret
    ex_entry 14b, 15b, 1

// x0: first line, x1: end, x2: bytes of a line. Returns where it stopped: at the end, or at a line that faulted. For arch::cache.
    .global clean_to_pou_or_fault
clean_to_pou_or_fault:
18: dc      cvau, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    18b
19: ret
    ex_entry 18b, 19b, 0

    .global clean_and_invalidate_or_fault
clean_and_invalidate_or_fault:
22: dc      civac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    22b
23: ret
    ex_entry 22b, 23b, 0

    .global invalidate_icache_or_fault
invalidate_icache_or_fault:
20: ic      ivau, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    20b
21: ret
    ex_entry 20b, 21b, 0

// x0: SMCCC function, x1: fault. SMCCC lets x0 to x17 be lost; the fixup is only reached if the instruction did nothing.
    .global hvc_or_fault
hvc_or_fault:
16: hvc     #0
    ret
    ex_entry 16b, probe_fault, 0

    .global smc_or_fault
smc_or_fault:
17: smc     #0
    ret
    ex_entry 17b, probe_fault, 0

probe_fault:
    stp     x9, x10, [x1]
    mov     x0, #0
    ret
