//! A device tree of what ACPI says, so that the image has one reader: console (SPCR), CPUs (MADT),
//! how they are called (FADT) and PCIe's configuration space (MCFG). It has no RAM yet.

use alloc::format;
use alloc::vec::Vec;
use core::ptr::NonNull;

use acpi::address::{AccessSize, AddressSpace, GenericAddress};
use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::mcfg::Mcfg;
use acpi::spcr::{Spcr, SpcrInterfaceType};
use acpi::{AcpiError, AcpiHandler, AcpiTables, PhysicalMapping};
use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

/// The CPU can use it (ACPI 6.5, "GICC CPU Interface Flags").
const ENABLED: u32 = 1;

/// Returns the tree of the tables that the RSDP at `rsdp` leads to.
///
/// # Errors
/// There are no such tables, or they are broken.
///
/// # Safety
///
/// What the tables point to is where it is said to be, at these very addresses.
pub unsafe fn describe(rsdp: usize) -> Result<DeviceTree, AcpiError> {
    // SAFETY: the caller's promise.
    let tables = unsafe { AcpiTables::from_rsdp(OneToOne, rsdp) }?;
    let mut tree = DeviceTree::new();
    set(&mut tree.root, "#address-cells", 2_u32);
    set(&mut tree.root, "#size-cells", 2_u32);
    let psci = tables.find_table::<Fadt>().ok().map(|fadt| fadt.arm_boot_arch);
    let psci = psci.filter(|flags| flags.implements_psci());
    if let Some(flags) = psci {
        let mut node = DeviceTreeNode::new_unchecked("psci");
        set(&mut node, "compatible", &b"arm,psci-1.0\0arm,psci-0.2\0"[..]);
        let method = if flags.use_hvc_as_psci_conduit() {
            "hvc"
        } else {
            "smc"
        };
        set(&mut node, "method", method);
        tree.root.add_child(node);
    }
    if let Ok(madt) = tables.find_table::<Madt>() {
        let mut cpus = DeviceTreeNode::new_unchecked("cpus");
        set(&mut cpus, "#address-cells", 2_u32);
        set(&mut cpus, "#size-cells", 0_u32);
        for entry in madt.get().entries() {
            match entry {
                MadtEntry::Gicc(cpu) if cpu.flags & ENABLED != 0 => {
                    cpus.add_child(cpu_node(cpu.mpidr, psci.is_some()))
                }
                _ => {}
            }
        }
        tree.root.add_child(cpus);
    }
    let console = tables.find_table::<Spcr>().ok().and_then(|spcr| {
        let registers = spcr.base_address()?.ok()?;
        console_node(spcr.interface_type(), &registers)
    });
    if let Some((path, node)) = console {
        let mut chosen = DeviceTreeNode::new_unchecked("chosen");
        set(&mut chosen, "stdout-path", path.as_str());
        tree.root.add_child(chosen);
        tree.root.add_child(node);
    }
    if let Ok(mcfg) = tables.find_table::<Mcfg>()
        && let Some(entry) = mcfg.entries().first()
    {
        // The address is bus 0's, whichever is the first.
        let (first, last) = (u64::from(entry.bus_number_start), u64::from(entry.bus_number_end));
        let start = entry.base_address + (first << 20);
        let mut node = DeviceTreeNode::new_unchecked(format!("pcie@{start:x}"));
        set(&mut node, "compatible", "pci-host-ecam-generic");
        set(&mut node, "device_type", "pci");
        set(
            &mut node,
            "reg",
            reg(start, (last.saturating_sub(first) + 1) << 20).as_slice(),
        );
        tree.root.add_child(node);
    }
    Ok(tree)
}

fn cpu_node(mpidr: u64, by_psci: bool) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(format!("cpu@{mpidr:x}"));
    set(&mut node, "device_type", "cpu");
    set(&mut node, "reg", &mpidr.to_be_bytes()[..]);
    if by_psci {
        set(&mut node, "enable-method", "psci");
    }
    node
}

/// Returns the node of a UART in memory, and its path, if the kernel may know such a UART.
fn console_node(
    kind: SpcrInterfaceType,
    at: &GenericAddress,
) -> Option<(alloc::string::String, DeviceTreeNode)> {
    use SpcrInterfaceType as Kind;
    let compatible = match kind {
        Kind::ArmPL011 | Kind::ArmSBSAGeneric | Kind::ArmSBSAGeneric32bit => "arm,pl011",
        Kind::Full16550 | Kind::Full16450 | Kind::Generic16550 => "ns16550a",
        Kind::Bcm2835 => "brcm,bcm2835-aux-uart",
        _ => return None,
    };
    if at.address_space != AddressSpace::SystemMemory {
        return None;
    }
    let name = format!("serial@{:x}", at.address);
    let mut node = DeviceTreeNode::new_unchecked(name.as_str());
    set(&mut node, "compatible", compatible);
    set(&mut node, "reg", reg(at.address, 0x1000).as_slice());
    // Registers as far apart as each is wide.
    if compatible == "ns16550a" {
        let shift = at.bit_width.max(8).trailing_zeros() - 3;
        let width = match at.access_size {
            AccessSize::ByteAccess => 1,
            AccessSize::WordAccess => 2,
            AccessSize::DWordAccess => 4,
            _ => 1_u32 << shift,
        };
        set(&mut node, "reg-shift", shift);
        set(&mut node, "reg-io-width", width);
    }
    Some((format!("/{name}"), node))
}

fn reg(start: u64, size: u64) -> Vec<u8> {
    [start.to_be_bytes(), size.to_be_bytes()].concat()
}

fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

/// Tables are read where they are.
#[derive(Clone)]
struct OneToOne;

impl AcpiHandler for OneToOne {
    unsafe fn map_physical_region<T>(&self, at: usize, size: usize) -> PhysicalMapping<Self, T> {
        let table = NonNull::new(at as *mut T).expect("a table at address 0");
        // SAFETY: the caller's promise: it is there.
        unsafe { PhysicalMapping::new(at, table, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}
