// The Image header, the vectors of the time before the kernel has its own, and the end of a start that cannot go on.

// Linux arm64 Image header: 64 bytes (Documentation/arch/arm64/booting.rst).
    .section .head, "ax"
    .global _start
_start:
    b       primary_entry               // code0
    .long   0                           // code1
    .quad   0                           // text_offset: at the 2 MiB boundary itself
    .quad   __image_size                // with .bss and the boot stack
    .quad   0x8 | {page_size} << 1      // little endian, the size of pages, anywhere in memory
    .quad   0                           // res2
    .quad   0                           // res3
    .quad   0                           // res4
    .ascii  "ARM\x64"                   // magic
    .long   0                           // res5: no PE header

// Vectors while the MMU is off, of whichever exception level runs. No exception is expected, so each one says so and ends,
// but for one: the power-off below tries HVC and SMC, which are undefined where no such level exists.
    .section .boot.vectors, "ax"
    .balign 2048
early_vectors:
    .rept   16
    .balign 128
    b       early_exception
    .endr

// Vectors of EL2 after the drop to EL1. Nothing lives there: a hypervisor call from EL1 gets SMCCC's
// NOT_SUPPORTED. An instruction that traps is one that configure_el2 left to trap: its return address
// is itself, so it is said, once, and ends the kernel. Anything else stops the CPU.
    .balign 2048
    .global el2_vectors
el2_vectors:
    .rept   8
    .balign 128
    b       park
    .endr
    .balign 128                         // 0x400: synchronous, from a lower level in AArch64 state
    mrs     x0, esr_el2
    ubfx    x0, x0, #26, #6             // EC
    cmp     x0, #0x16                   // HVC; the flags come back with the SPSR
    b.ne    el2_trapped
    mov     x0, #-1
    eret
    .rept   7
    .balign 128
    b       park
    .endr
    .balign 128

    .section .boot.text, "ax"
el2_trapped:
    adr     x0, .Lmsg_trapped
    b       early_fail

early_exception:
    mrs     x9, CurrentEL
    cmp     x9, #(2 << 2)
    b.eq    1f
    b.hi    park
    mrs     x10, elr_el1
    b       2f
1:  mrs     x10, elr_el2
2:  adr     x11, .Lpower_off
    adr     x12, .Lpower_off_end
    cmp     x10, x11
    ccmp    x10, x12, #2, hs            // in [.Lpower_off, .Lpower_off_end): C clear after the second compare
    b.hs    3f
    // An undefined HVC or SMC: the preferred return address is the instruction itself, so step over it.
    add     x10, x10, #4
    cmp     x9, #(2 << 2)
    b.eq    4f
    msr     elr_el1, x10
    eret
4:  msr     elr_el2, x10
    eret
    // Say it once: should the guessed UART be what aborts, stop without another word. Nothing else uses TPIDR_EL0, and entry cleared it.
3:  mrs     x9, tpidr_el0
    cbnz    x9, park
    adr     x0, .Lmsg_exception
    // Falls through.

// Ends a start that cannot go on. x0: address of the reason, ends with NUL. Needs no stack, no MMU, no memory that can be written.
//
// The device tree was not read, so the UART is a guess: the PL011 of QEMU's virt machine. There is no safe way to ask an unknown
// board whether something is there: reading its PrimeCell identification is itself an access to an unknown address. On a
// board without it the stores go nowhere or abort, and the vectors park the CPU.
    .global early_fail
early_fail:
    mov     x9, #1
    msr     tpidr_el0, x9
    mov     x15, x0
    movz    x14, #({guessed_uart} >> 16), lsl #16
    movk    x14, #({guessed_uart} & 0xffff)
    adr     x0, .Lmsg_fatal
    bl      .Lputs
    mov     x0, x15
    bl      .Lputs
    adr     x0, .Lmsg_newline
    bl      .Lputs
    // PSCI SYSTEM_OFF by either conduit. EL3 has nobody to ask.
    mrs     x9, CurrentEL
    cmp     x9, #(3 << 2)
    b.eq    park
    movz    x0, #0x8400, lsl #16
    movk    x0, #0x0008
    cmp     x9, #(1 << 2)
    b.ne    .Lpower_off_smc             // at EL2 an HVC would only come back here
.Lpower_off:
    hvc     #0
.Lpower_off_smc:
    movz    x0, #0x8400, lsl #16
    movk    x0, #0x0008
    smc     #0
.Lpower_off_end:
    // Falls through.

    .global park
park:
    wfe
    b       park

// Writes the NUL-terminated bytes at x0 to the PL011 at x14; waits for room in the FIFO, but not forever.
.Lputs:
    ldrb    w10, [x0], #1
    cbz     w10, 3f
    mov     w11, #0x100000
1:  ldr     w12, [x14, #0x18]           // UARTFR
    tbz     w12, #5, 2f                 // TXFF
    subs    w11, w11, #1
    b.ne    1b
2:  str     w10, [x14]                  // UARTDR
    b       .Lputs
3:  ret

.Lmsg_fatal:        .asciz "vmwalk: FATAL: "
.Lmsg_newline:      .asciz "\r\n"
.Lmsg_exception:    .asciz "exception before the MMU was on"
.Lmsg_trapped:      .asciz "an instruction of EL1 trapped to EL2"
    .balign 4
