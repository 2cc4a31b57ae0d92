// memcpy, memmove and memset (C11 7.24.2, 7.24.6.1), for calls that the compiler makes. AAPCS64: x0 to x2, result x0; x3 to x15 are free.
//
// They run with the MMU on, on Normal memory, SCTLR_EL1.A clear: accesses need no alignment (Arm ARM, "Alignment support"). Code before that
// calls nothing outside .boot.text.
//
// Ends are moved as one overlapping access of 16, 8 or 4 bytes instead of byte by byte; all of them is loaded before any of it is stored.

    .section .text.mem, "ax"
    .balign 16
    .global memmove
    .type memmove, %function
memmove:
    sub     x3, x0, x1
    cmp     x3, x2
    b.lo    move_down                   // the destination begins inside the source: from the end

    .global memcpy
    .type memcpy, %function
memcpy:
    add     x3, x0, x2                  // ends
    add     x4, x1, x2
    cmp     x2, #16
    b.lo    copy_short
    ldp     x6, x7, [x4, #-16]          // the last 16 bytes
    mov     x5, x0
    subs    x2, x2, #32
    b.lo    2f
1:  ldp     x8, x9, [x1], #32
    ldp     x10, x11, [x1, #-16]
    stp     x8, x9, [x5], #32
    subs    x2, x2, #32
    stp     x10, x11, [x5, #-16]
    b.hs    1b
2:  tbz     x2, #4, 3f                  // 16 or more of less than 32 are left
    ldp     x8, x9, [x1]
    stp     x8, x9, [x5]
3:  stp     x6, x7, [x3, #-16]
    ret

copy_short:
    tbz     x2, #3, 4f
    ldr     x6, [x1]
    ldr     x7, [x4, #-8]
    str     x6, [x0]
    str     x7, [x3, #-8]
    ret
4:  tbz     x2, #2, 5f
    ldr     w6, [x1]
    ldr     w7, [x4, #-4]
    str     w6, [x0]
    str     w7, [x3, #-4]
    ret
5:  cbz     x2, 6f                      // 1 to 3: the first, the middle and the last
    lsr     x5, x2, #1
    ldrb    w6, [x1]
    ldrb    w7, [x1, x5]
    ldrb    w8, [x4, #-1]
    strb    w6, [x0]
    strb    w7, [x0, x5]
    strb    w8, [x3, #-1]
6:  ret

move_down:
    add     x3, x0, x2
    add     x4, x1, x2
    cmp     x2, #16
    b.lo    copy_short
    ldp     x6, x7, [x1]                // the first 16 bytes
    sub     x2, x2, #16
1:  ldp     x8, x9, [x4, #-16]!
    subs    x2, x2, #16
    stp     x8, x9, [x3, #-16]!
    b.hi    1b                          // down to the first 16, or into them
    stp     x6, x7, [x0]
    ret

    .global memset
    .type memset, %function
memset:
    and     x1, x1, #0xff
    orr     x1, x1, x1, lsl #8
    orr     x1, x1, x1, lsl #16
    orr     x1, x1, x1, lsl #32
    add     x3, x0, x2
    cmp     x2, #16
    b.lo    3f
    mov     x5, x0
    subs    x2, x2, #32
    b.lo    2f
1:  stp     x1, x1, [x5], #32
    subs    x2, x2, #32
    stp     x1, x1, [x5, #-16]
    b.hs    1b
2:  tbz     x2, #4, 21f
    stp     x1, x1, [x5]
21: stp     x1, x1, [x3, #-16]
    ret
3:  tbz     x2, #3, 4f
    str     x1, [x0]
    str     x1, [x3, #-8]
    ret
4:  tbz     x2, #2, 5f
    str     w1, [x0]
    str     w1, [x3, #-4]
    ret
5:  cbz     x2, 6f
    lsr     x5, x2, #1
    strb    w1, [x0]
    strb    w1, [x0, x5]
    strb    w1, [x3, #-1]
6:  ret
