//! How firmware is called: the `/psci` node.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use kernel::arch::psci::Conduit;

/// `method` of the `/psci` node.
pub fn psci_conduit(fdt: Fdt<'_>) -> Option<Conduit> {
    let psci = fdt.find_node("/psci")?;
    match psci.property("method")?.value_as::<&str>().ok()? {
        "hvc" => Some(Conduit::Hvc),
        "smc" => Some(Conduit::Smc),
        _ => None,
    }
}
