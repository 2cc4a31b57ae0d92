//! No entry point; undefined symbols are the image's; nothing is dropped.

fn main() {
    println!("cargo::rustc-link-arg-bins=--entry=0");
    println!("cargo::rustc-link-arg-bins=--unresolved-symbols=ignore-all");
    println!("cargo::rustc-link-arg-bins=--no-gc-sections");
}
