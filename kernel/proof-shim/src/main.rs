//! Functions of the engine that are inlined everywhere in the image, each out of line under a name
//! that `scripts/prove` looks for. It is executed symbolically and never booted.
//!
//! A wrapper takes numbers, calls the engine's own function, and writes what that returns.
//! [`planted`] has copies with bugs, which the proofs must refute.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod bulk;
#[cfg(target_os = "none")]
mod descriptors;
#[cfg(target_os = "none")]
mod flush;
#[cfg(target_os = "none")]
mod leaves;
#[cfg(target_os = "none")]
mod planted;

/// There is nothing to run on the host.
#[cfg(not(target_os = "none"))]
fn main() {}

/// Defines a function for the proofs: never inlined, under its own name, and kept by the linker.
#[cfg(target_os = "none")]
macro_rules! shim {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) $(-> $result)? $body
        const _: () = {
            #[used]
            static KEPT: extern "C" fn($($type),*) $(-> $result)? = $name;
        };
    )*};
}
#[cfg(target_os = "none")]
pub(crate) use shim;
