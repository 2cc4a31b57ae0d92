//! Which UART the device tree means by `stdout-path`.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

/// Nodes from the root down to the console; a deeper one is not looked for.
const MAX_DEPTH: usize = 8;

/// The physical address of the PL011 that `/chosen/stdout-path` names, or `None` if it names none or something else.
pub fn stdout_pl011(fdt: Fdt<'_>) -> Option<u64> {
    let chosen = fdt.find_node("/chosen")?;
    let stdout = chosen.property("stdout-path")?;
    // Options follow a colon: "serial0:115200n8".
    let path = stdout.value_as::<&str>().ok()?.split(':').next()?;
    let mut nodes = [fdt.root(); MAX_DEPTH];
    if path.starts_with('/') {
        let depth = resolve(path, &mut nodes)?;
        pl011_address(&nodes[..=depth])
    } else {
        let aliases = fdt.find_node("/aliases")?;
        let alias = aliases.property(path)?;
        let depth = resolve(alias.value_as::<&str>().ok()?, &mut nodes)?;
        pl011_address(&nodes[..=depth])
    }
}

/// Fills `nodes[1..]` with the nodes along `path`, and returns the index of the last. `nodes[0]` is the root.
fn resolve<'a>(path: &str, nodes: &mut [FdtNode<'a>; MAX_DEPTH]) -> Option<usize> {
    let mut depth = 0;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let child = nodes[depth].child(name)?;
        depth += 1;
        *nodes.get_mut(depth)? = child;
    }
    Some(depth)
}

/// The address of the last of `nodes` as the CPU sees it: its `reg`, through the `ranges` of each bus above it.
fn pl011_address(nodes: &[FdtNode<'_>]) -> Option<u64> {
    let (node, buses) = nodes.split_last()?;
    if !node.is_compatible("arm,pl011") {
        return None;
    }
    let mut address: u64 = node.reg().ok()??.next()?.address().ok()?;
    // The root has no ranges: its child addresses are physical.
    for bus in buses.iter().skip(1).rev() {
        // No `ranges` at all: the bus is not mapped into its parent. An empty one: the addresses are the same.
        let ranges = bus.property("ranges")?;
        if ranges.value().is_empty() {
            continue;
        }
        address = bus.ranges().ok()??.find_map(|range| {
            let child: u64 = range.child_bus_address().ok()?;
            let parent: u64 = range.parent_bus_address().ok()?;
            let length: u64 = range.length().ok()?;
            let offset = address.checked_sub(child)?;
            (offset < length).then(|| parent.checked_add(offset))?
        })?;
    }
    Some(address)
}
