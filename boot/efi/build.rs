//! Takes the image that the loader carries, and links it as a PE file without relocations.

use std::path::Path;
use std::{env, fs};

fn main() {
    // Without one, as clippy compiles it, the loader carries nothing.
    println!("cargo::rerun-if-env-changed=VMWALK_IMAGE");
    let image = env::var("VMWALK_IMAGE").unwrap_or_default();
    let bytes = match image.as_str() {
        "" => Vec::new(),
        path => {
            println!("cargo::rerun-if-changed={path}");
            fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
        }
    };
    let copy = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("Image");
    fs::write(copy, bytes).expect("OUT_DIR can be written");

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("loader.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    for argument in [
        &format!("-T{}", script.display()),
        "--pie",
        "--no-dynamic-linker",
        // Constants that are addresses, which the entry relocates, lie in what is data here.
        "-znotext",
        "-znorelro",
        "-zmax-page-size=4096",
        // Cortex-A53 up to r0p4: a load behind an ADRP at the end of a page.
        "--fix-cortex-a53-843419",
    ] {
        if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}
