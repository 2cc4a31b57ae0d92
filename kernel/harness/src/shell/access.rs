//! `probe`: an access. Loads are tried where the tables have RAM or nothing; stores and calls in
//! the shell's own areas, which hold zeros, and where they must fault. Otherwise the MMU is asked.

use kernel::arch::mmu::{Abort, Translation, at_s1e1r, at_s1e1w};
use kernel::arch::probe::{FaultInfo, probe_exec, probe_read, probe_read32, probe_write};
use kernel::mm::{kernel_tree, walk_lock};
use kernel::println;
use paging::{Leaf, MemoryType, VirtAddr};

use super::Shell;
use super::parse::{self, Access};
use super::refusal::Refusal;

pub fn probe<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let va = parse::va(words[0])?;
    let access = parse::access(words[1])?;
    let align = if access == Access::Execute { 4 } else { 8 };
    if !va.is_aligned(align) {
        return Err(Refusal::Unaligned(va, align));
    }
    let leaf = {
        let _walk = walk_lock().walk();
        kernel_tree().translate(va)
    };
    let own = shell.held.at(va).is_some();
    match access {
        Access::Read => read(va, leaf.as_ref(), own),
        Access::Write => write(va, leaf.as_ref(), own),
        Access::Execute => execute(va, leaf.as_ref(), own)?,
    }
    Ok(())
}

fn is_device(leaf: &Leaf) -> bool {
    [MemoryType::DEVICE_NGNRNE, MemoryType::DEVICE_NGNRE].contains(&leaf.attributes.memory())
}

fn read(va: VirtAddr, leaf: Option<&Leaf>, own: bool) {
    let address = va.0 as usize;
    match leaf {
        Some(leaf) if is_device(leaf) && !own => answer("load", va, at_s1e1r(address)),
        Some(leaf) if is_device(leaf) => report("32-bit load", va, probe_read32(address).map(u64::from)),
        _ => report("load", va, probe_read(address)),
    }
}

fn write(va: VirtAddr, leaf: Option<&Leaf>, own: bool) {
    let address = va.0 as usize;
    // A store may do anything to a device or to other code.
    if !own || leaf.is_none_or(is_device) {
        return answer("store", va, at_s1e1w(address));
    }
    let done = probe_read(address).and_then(|value| {
        // SAFETY: the shell's own memory, without references, and the value that it has.
        unsafe { probe_write(address, value) }.map(|()| value)
    });
    report("store", va, done);
}

fn execute<'a>(va: VirtAddr, leaf: Option<&Leaf>, own: bool) -> Result<(), Refusal<'a>> {
    if !kernel_tree().range().contains(va) {
        return Err(Refusal::NotUpperHalf(va));
    }
    if leaf.is_some_and(|leaf| leaf.attributes.is_executable()) && !own {
        println!("{va}: the tables permit execution; it is the kernel's own code, and not called");
        return Ok(());
    }
    // SAFETY: what is executable is the shell's own: zeros, each an undefined instruction.
    match unsafe { probe_exec(va.0 as usize) } {
        Ok(()) => println!("{va}: the call returned"),
        Err(fault) if fault.was_executed() => println!("{va}: executed (an undefined instruction)"),
        Err(fault) => println!("{va}: {fault}"),
    }
    Ok(())
}

fn report(what: &str, va: VirtAddr, done: Result<u64, FaultInfo>) {
    match done {
        Ok(value) => println!("{va}: {what} of {value:#x}"),
        Err(fault) => println!("{va}: {fault}"),
    }
}

fn answer(what: &str, va: VirtAddr, said: Result<Translation, Abort>) {
    match said {
        Ok(translation) => println!(
            "{va}: the MMU permits a {what} at PA {:#x}; not tried",
            translation.pa
        ),
        Err(abort) => println!("{va}: {}", abort.status),
    }
}
