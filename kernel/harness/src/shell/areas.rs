use kernel::arch::cache::publish_instructions;
use kernel::layout;
use kernel::mm::areas::kernel_vmalloc;
use kernel::mm::layout::PAGE_SIZE;
use kernel::mm::{self, kernel_tree};
use kernel::{print, println};
use paging::{Attributes, DisplaySize, VirtAddr, VirtRange};
use vmalloc::{Kind, Request};

use super::Shell;
use super::held::{Blocks, HeldArea};
use super::parse::{self, Part, Permission};
use super::refusal::Refusal;

const MAX_LINES: usize = 256;
const MAX_PAGES: u64 = 4096;

fn announce(held: &HeldArea) {
    let area = &held.area;
    println!(
        "{}: {:?} of {} at {}: {}",
        held.id,
        area.kind(),
        DisplaySize(area.size()),
        area.va(),
        area.outcome().leaves.display::<layout::Granule>()
    );
}

pub fn list<'a>(shell: &mut Shell, _: &[&'a str]) -> Result<(), Refusal<'a>> {
    let mut next = kernel_vmalloc().next_vm_area(VirtAddr(0));
    let mut nr = 0;
    while let Some(area) = next {
        if nr == MAX_LINES {
            println!("... and more");
            return Ok(());
        }
        nr += 1;
        match shell.held.at(area.va) {
            Some(held) => print!("{:>4}", held.id),
            None => print!("   -"),
        }
        print!(
            "  {}..{} {:?}, {}",
            area.range.start,
            area.range.end(),
            area.kind,
            DisplaySize(area.size)
        );
        if area.va != area.range.start {
            print!(" at {}", area.va);
        }
        println!(", made by {}", area.caller);
        next = kernel_vmalloc().next_vm_area(area.va.add(1));
    }
    println!("{nr} areas, {} of them the shell's", shell.held.nr());
    Ok(())
}

pub fn vmalloc<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let size = parse::size(words[0])?;
    let frames = size.div_ceil(PAGE_SIZE as u64);
    shell.held.admit(frames)?;
    // An undefined instruction, should it be executed.
    let area = kernel_vmalloc().allocate(&Request::new(size).zeroed())?;
    announce(shell.held.hold(area, Blocks::default(), frames));
    Ok(())
}

pub fn vmap<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let orders = parse::orders(words[0])?;
    let pages = orders.iter().map(|order| 1u64 << order).sum::<u64>();
    if pages > MAX_PAGES {
        return Err(Refusal::TooManyPages {
            pages,
            limit: MAX_PAGES,
        });
    }
    shell.held.admit(pages)?;
    let mut blocks = Blocks::default();
    orders.iter().try_for_each(|order| blocks.take(*order))?;
    let area = mm::vmap(blocks.frames().as_slice())?;
    announce(shell.held.hold(area, blocks, pages));
    Ok(())
}

pub fn ioremap<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let pa = parse::pa(words[0])?;
    let size = parse::size(words[1])?;
    shell.held.admit(0)?;
    let area = mm::ioremap(pa, size)?;
    announce(shell.held.hold(area, Blocks::default(), 0));
    Ok(())
}

pub fn free<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let held = shell.held.take(parse::number(words[0])?)?;
    println!(
        "{}: {:?} at {} is freed",
        held.id,
        held.area.kind(),
        held.area.va()
    );
    Ok(())
}

pub fn protect<'a>(shell: &mut Shell, words: &[&'a str]) -> Result<(), Refusal<'a>> {
    let held = shell.held.find(parse::number(words[0])?)?;
    let part = parse::part(words[1])?;
    let Permission { write, execute } = parse::permission(words[2])?;
    if execute && held.area.kind() == Kind::Ioremap {
        return Err(Refusal::ExecutableDevice);
    }
    let all = held.area.range();
    let range = match part {
        Part::All => all,
        Part::From(offset, size) if size <= all.size && offset <= all.size - size => {
            VirtRange::new(all.start.add(offset), size)
        }
        Part::From(offset, size) => {
            return Err(Refusal::OutOfArea {
                offset,
                size,
                area: all.size,
            });
        }
    };
    if execute {
        publish_instructions(range.start.0 as usize, range.size as usize);
    }
    let change = |attributes: Attributes| {
        let attributes = if write {
            attributes.writable()
        } else {
            attributes.read_only()
        };
        if execute {
            attributes.executable()
        } else {
            attributes.execute_never()
        }
    };
    let mut batch = kernel_tree().batch();
    // The range is the area's own. Walks are not excluded: freeing a table waits for all.
    let changed = kernel_tree().protect(range, change, &mut batch);
    batch.flush();
    let outcome = changed.map_err(|failure| Refusal::Engine(failure.error))?;
    println!(
        "{}: {} at {} is {}: {}",
        held.id,
        DisplaySize(range.size),
        range.start,
        words[2],
        outcome.leaves.display::<layout::Granule>()
    );
    Ok(())
}
