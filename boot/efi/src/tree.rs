//! Changes to a device tree before the image sees it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};

/// The kernel's own limit, `machine::regions::MAX_REGIONS`, less what its reservations may split.
pub const MAX_BANKS: usize = 64;

/// A run of RAM, and whether it is free once the firmware's boot services are over.
pub type Piece = (Range<u64>, bool);

/// Returns the free runs of `pieces` in ascending order, joined, of whole pages of `page_size`
/// bytes; the largest ones if they are too many.
#[must_use]
pub fn banks(pieces: impl IntoIterator<Item = Piece>, page_size: u64) -> Vec<Range<u64>> {
    let free = pieces.into_iter().filter(|(_, free)| *free);
    let mut runs: Vec<Range<u64>> = free.map(|(run, _)| run).collect();
    runs.sort_unstable_by_key(|run| run.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => joined.push(run),
        }
    }
    let whole = joined.into_iter().filter_map(|run| {
        let start = run.start.checked_next_multiple_of(page_size)?;
        let end = run.end & !(page_size - 1);
        (start < end).then_some(start..end)
    });
    let mut banks: Vec<Range<u64>> = whole.collect();
    banks.sort_unstable_by_key(|bank| bank.start.wrapping_sub(bank.end));
    banks.truncate(MAX_BANKS);
    banks.sort_unstable_by_key(|bank| bank.start);
    banks
}

/// Makes `banks` the RAM of `tree`: what its memory nodes say is not what is left of it.
pub fn set_memory(tree: &mut DeviceTree, banks: &[Range<u64>]) {
    let memory = |node: &DeviceTreeNode| text(node, "device_type").as_deref() == Some("memory");
    let old: Vec<String> = tree
        .root
        .children()
        .filter(|node| memory(node))
        .map(|node| node.name().into())
        .collect();
    for name in old {
        tree.root.remove_child(&name);
    }
    let address = cells(&tree.root, "#address-cells", 2);
    let size = cells(&tree.root, "#size-cells", 1);
    let mut reg = Vec::new();
    for bank in banks {
        if let (Some(start), Some(length)) =
            (encode(bank.start, address), encode(bank.end - bank.start, size))
        {
            reg.extend(start);
            reg.extend(length);
        }
    }
    let first = banks.first().map_or(0, |bank| bank.start);
    let mut node = DeviceTreeNode::new_unchecked(format!("memory@{first:x}"));
    node.add_property(DeviceTreeProperty::new_unchecked("device_type", "memory"));
    node.add_property(DeviceTreeProperty::new_unchecked("reg", reg));
    tree.root.add_child(node);
}

/// Makes `bootargs` the command line of `tree`.
pub fn set_bootargs(tree: &mut DeviceTree, bootargs: &str) {
    let mut chosen = tree
        .root
        .remove_child("chosen")
        .unwrap_or_else(|| DeviceTreeNode::new_unchecked("chosen"));
    chosen.add_property(DeviceTreeProperty::new_unchecked("bootargs", bootargs));
    tree.root.add_child(chosen);
}

fn text(node: &DeviceTreeNode, name: &str) -> Option<String> {
    Some(node.property(name)?.value_as::<&str>().ok()?.into())
}

fn cells(node: &DeviceTreeNode, name: &str, default: usize) -> usize {
    let cells = node.property(name).and_then(|cells| cells.value_as::<u32>().ok());
    cells.map_or(default, |cells| cells as usize)
}

/// Returns `value` in as many cells, if it fits.
fn encode(value: u64, cells: usize) -> Option<Vec<u8>> {
    match cells {
        1 => Some(u32::try_from(value).ok()?.to_be_bytes().into()),
        2 => Some(value.to_be_bytes().into()),
        _ => None,
    }
}
