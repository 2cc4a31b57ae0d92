//! Functions that the image inlines, out of line for `scripts/prove`. [`planted`] has copies with
//! bugs to refute.
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

#[cfg(not(target_os = "none"))]
fn main() {}

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
