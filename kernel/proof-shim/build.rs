//! Links what is only read: an entry point is not needed, what the kernel takes from the image's
//! linker script is left open, and nothing is dropped for not being called.

fn main() {
    println!("cargo::rustc-link-arg-bins=--entry=0");
    println!("cargo::rustc-link-arg-bins=--unresolved-symbols=ignore-all");
    println!("cargo::rustc-link-arg-bins=--no-gc-sections");
}
