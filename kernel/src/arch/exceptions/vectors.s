// The exception vectors of EL1, and the save and restore around handle_exception.
//
// EL0 is not used, so TPIDR_EL0 and TPIDRRO_EL0 are free to hold x0 and x1 until there is a stack.

.macro vector number
    .balign 128
    msr     tpidr_el0, x0
    msr     tpidrro_el0, x1
    mov     x0, #\number
    b       exception_entry
.endm

    .section .vectors, "ax"
    .balign 2048
    .global exception_vectors
exception_vectors:
    vector 0
    vector 1
    vector 2
    vector 3
    vector 4
    vector 5
    vector 6
    vector 7
    vector 8
    vector 9
    vector 10
    vector 11
    vector 12
    vector 13
    vector 14
    vector 15
    .balign 128

exception_entry:
    mrs     x1, tpidr_el1
    str     x2, [x1, #{scratch}]
    str     x0, [x1, #({scratch} + 8)]
    // Is there room for the frame where SP points? Nothing is stored before that is known: a store into a guard page
    // would come back here for ever.
    mov     x0, sp
    tst     x0, #15
    b.ne    2f
    ldr     x2, [x1, #{stack_low}]
    add     x2, x2, #{frame_size}
    cmp     x0, x2
    b.lo    1f
    ldr     x2, [x1, #{stack_high}]
    cmp     x0, x2
    b.ls    3f
1:  ldr     x2, [x1, #{overflow_low}]
    add     x2, x2, #{frame_size}
    cmp     x0, x2
    b.lo    2f
    ldr     x2, [x1, #{overflow_high}]
    cmp     x0, x2
    b.ls    3f
    // SP is in neither: a stack that overflowed, or an SP that was never good.
2:  ldr     x2, [x1, #{overflow_high}]
    mov     sp, x2
3:  sub     sp, sp, #{frame_size}
    stp     x3, x4, [sp, #(3 * 8)]
    stp     x5, x6, [sp, #(5 * 8)]
    stp     x7, x8, [sp, #(7 * 8)]
    stp     x9, x10, [sp, #(9 * 8)]
    stp     x11, x12, [sp, #(11 * 8)]
    stp     x13, x14, [sp, #(13 * 8)]
    stp     x15, x16, [sp, #(15 * 8)]
    stp     x17, x18, [sp, #(17 * 8)]
    stp     x19, x20, [sp, #(19 * 8)]
    stp     x21, x22, [sp, #(21 * 8)]
    stp     x23, x24, [sp, #(23 * 8)]
    stp     x25, x26, [sp, #(25 * 8)]
    stp     x27, x28, [sp, #(27 * 8)]
    stp     x29, x30, [sp, #(29 * 8)]
    str     x0, [sp, #{frame_sp}]
    ldp     x4, x5, [x1, #{scratch}]    // x2 and the vector's number
    mrs     x2, tpidr_el0
    mrs     x3, tpidrro_el0
    stp     x2, x3, [sp]
    str     x4, [sp, #(2 * 8)]
    str     x5, [sp, #{frame_vector}]
    mrs     x2, elr_el1
    mrs     x3, spsr_el1
    stp     x2, x3, [sp, #{frame_elr}]
    mrs     x4, esr_el1
    mrs     x5, far_el1
    stp     x4, x5, [sp, #{frame_esr}]
    stp     x29, x2, [sp, #{frame_record}]
    add     x29, sp, #{frame_record}
    mov     x0, sp
    bl      {handle}

    // Everything is masked and nothing below can fault, so what lies below the restored SP is still whole.
    mov     x30, sp
    ldp     x2, x3, [x30, #{frame_elr}]
    msr     elr_el1, x2
    msr     spsr_el1, x3
    ldr     x2, [x30, #{frame_sp}]
    mov     sp, x2
    ldp     x0, x1, [x30]
    ldp     x2, x3, [x30, #(2 * 8)]
    ldp     x4, x5, [x30, #(4 * 8)]
    ldp     x6, x7, [x30, #(6 * 8)]
    ldp     x8, x9, [x30, #(8 * 8)]
    ldp     x10, x11, [x30, #(10 * 8)]
    ldp     x12, x13, [x30, #(12 * 8)]
    ldp     x14, x15, [x30, #(14 * 8)]
    ldp     x16, x17, [x30, #(16 * 8)]
    ldp     x18, x19, [x30, #(18 * 8)]
    ldp     x20, x21, [x30, #(20 * 8)]
    ldp     x22, x23, [x30, #(22 * 8)]
    ldp     x24, x25, [x30, #(24 * 8)]
    ldp     x26, x27, [x30, #(26 * 8)]
    ldp     x28, x29, [x30, #(28 * 8)]
    ldr     x30, [x30, #(30 * 8)]
    eret
