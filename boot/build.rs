//! Links the image with the workspace's linker script.

use std::path::Path;

/// As `layout::Granule` has it.
fn page_shift() -> u32 {
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    match (has("GRANULE_16K"), has("GRANULE_64K")) {
        (true, _) => 14,
        (_, true) => 16,
        _ => 12,
    }
}

fn main() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../linker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    println!(
        "cargo::rustc-link-arg-bins=--defsym=PAGE_SIZE={:#x}",
        1 << page_shift()
    );
    // No larger alignment of segments is wanted in the file.
    println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    println!("cargo::rustc-link-arg-bins=--no-dynamic-linker");
    // Cortex-A53 up to r0p4: a load behind an ADRP at the end of a page may use a wrong address.
    // scripts/check-silicon.py looks whether one is left.
    println!("cargo::rustc-link-arg-bins=--fix-cortex-a53-843419");
    // Relocations stay in the ELF: scripts/check-boot-pic proves that code which runs before the
    // MMU is on refers to nothing by absolute address.
    println!("cargo::rustc-link-arg-bins=--emit-relocs");
}
