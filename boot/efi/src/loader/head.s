// The PE header, the entry, and the way from the firmware's MMU to the image.

    .section .head, "ax"
    .global _start
_start:
    .ascii  "MZ"
    .skip   58
    .long   .Lpe - _start
.Lpe:
    .ascii  "PE\0\0"
    .short  0xaa64                      // Machine: ARM64
    .short  2                           // NumberOfSections
    .long   0, 0, 0                     // TimeDateStamp, symbols
    .short  .Lsections - .Loptional
    .short  0x206                       // executable, without line numbers and debug information
.Loptional:
    .short  0x20b                       // PE32+
    .byte   0, 0
    .long   __text_size
    .long   __data_file_size
    .long   0                           // SizeOfUninitializedData
    .long   __entry_rva
    .long   __text_rva
    .quad   0                           // ImageBase
    .long   4096, 4096                  // SectionAlignment, FileAlignment
    .short  0, 0, 0, 0, 0, 0            // versions
    .long   0
    .long   __size                      // SizeOfImage
    .long   4096                        // SizeOfHeaders
    .long   0                           // CheckSum
    .short  10                          // Subsystem: EFI application
    .short  0x100                       // NX_COMPAT: no section is writable and executable
    .quad   0, 0, 0, 0                  // stack and heap: the firmware's
    .long   0
    .long   6                           // NumberOfRvaAndSizes
    .quad   0, 0, 0, 0, 0, 0            // no relocations: see efi_entry
.Lsections:
    .ascii  ".text\0\0\0"
    .long   __text_size, __text_rva, __text_size, __text_rva
    .long   0, 0, 0
    .long   0x60000020                  // code, execute, read
    .ascii  ".data\0\0\0"
    .long   __data_size, __data_rva, __data_file_size, __data_rva
    .long   0, 0, 0
    .long   0xc0000040                  // data, read, write

    .text
// x0: the application's handle, x1: the system table. Relocates what was linked at 0; there is
// nothing to do but R_AARCH64_RELATIVE (scripts/flatten refuses others).
    .global efi_entry
efi_entry:
    adrp    x9, __rela_start
    add     x9, x9, :lo12:__rela_start
    adrp    x10, __rela_end
    add     x10, x10, :lo12:__rela_end
    adrp    x11, _start
1:  cmp     x9, x10
    b.hs    efi_main
    ldp     x12, x13, [x9], #16         // r_offset, r_info: R_AARCH64_RELATIVE
    ldr     x14, [x9], #8               // r_addend
    add     x14, x14, x11
    str     x14, [x11, x12]
    b       1b

// x0: device tree, x1: image. Enters it as the arm64 boot protocol demands (Documentation/arch/arm64/booting.rst): MMU and data
// cache off, x1 to x3 zero. The caller cleaned to the point of coherency what is read from here on, this code too.
    .global enter_image
    .balign 64
enter_image:
    msr     daifset, #0xf
    mov     x16, x1
    mov     x10, #0x1005                // SCTLR_ELx: I, C, M
    mrs     x9, CurrentEL
    cmp     x9, #(2 << 2)
    b.eq    1f
    mrs     x9, sctlr_el1
    bic     x9, x9, x10
    msr     sctlr_el1, x9
    isb
    tlbi    vmalle1
    b       2f
1:  mrs     x9, sctlr_el2
    bic     x9, x9, x10
    msr     sctlr_el2, x9
    isb
    tlbi    alle2
2:  ic      iallu                       // the image was written as data
    dsb     nsh
    isb
    mov     x1, xzr
    mov     x2, xzr
    mov     x3, xzr
    br      x16
    .balign 64
    .global enter_image_end
enter_image_end:
