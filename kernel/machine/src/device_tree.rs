//! The device tree, read once into plain values.
//!
//! `dtoolkit` does the parsing: it validates the whole blob before anything is read from it, needs
//! no heap, and names what the specification names. What is here is the meaning: which nodes count,
//! and what an address in them is to the CPU.
//!
//! Source: Devicetree Specification 0.4, chapters 2 and 3; for `/cpus`, `/reserved-memory` and
//! `/chosen` also the Linux bindings.

mod bus;

use core::fmt;

use arrayvec::ArrayVec;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

use crate::arch::percpu::{MAX_CPUS, this_cpu};
use crate::arch::psci::Conduit;
use crate::mm::regions::{MAX_REGIONS, PhysRegion};

pub use bus::Path;

/// What the device tree says of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// RAM, bank by bank, as it is written.
    pub memory: ArrayVec<PhysRegion, MAX_REGIONS>,
    /// Ranges of RAM that are not the kernel's, from the reservation block and from
    /// `/reserved-memory`.
    pub reserved: ArrayVec<Reserved, MAX_REGIONS>,
    /// The initial RAM disk.
    pub initrd: Option<PhysRegion>,
    /// `/chosen/bootargs`.
    pub bootargs: &'static str,
    /// The PL011 that `stdout-path` names, or else the first there is.
    pub console: Option<PhysRegion>,
    /// The first `arm,pl031`.
    pub rtc: Option<PhysRegion>,
    /// The configuration space of the first `pci-host-ecam-generic`.
    pub ecam: Option<PhysRegion>,
    /// CPUs of the tree that may be used.
    pub nr_listed_cpus: usize,
    tree: Tree,
    /// How firmware is called.
    pub psci: Option<Conduit>,
}

/// A range of RAM that is not the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// Where.
    pub region: PhysRegion,
    /// It must not even be mapped: the CPU shall not fetch from it ahead.
    pub no_map: bool,
}

/// A CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// The affinity fields of its MPIDR_EL1.
    pub mpidr: u64,
    /// Its `enable-method` is `psci`.
    pub by_psci: bool,
}

/// Why a device tree is of no use. It was valid as a blob; what it says is not.
#[derive(Clone, Debug)]
pub enum Error {
    /// The blob is not valid.
    Blob(dtoolkit::error::FdtParseError),
    /// No memory node has a bank.
    NoMemory,
    /// A property of this node has a value that is none.
    Property {
        /// The node.
        node: &'static str,
        /// The property.
        property: &'static str,
    },
    /// There are more memory banks, or more reserved ranges, than the kernel has room for.
    TooManyRegions,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(error) => write!(f, "{error}"),
            Self::NoMemory => write!(f, "there is no memory node with a bank of RAM"),
            Self::Property { node, property } => {
                write!(f, "property `{property}` of node `{node}` cannot be understood")
            }
            Self::TooManyRegions => write!(f, "more than {MAX_REGIONS} memory banks or reserved ranges"),
        }
    }
}

type Tree = Fdt<'static>;
type TreeNode = FdtNode<'static>;

/// Reads what `blob`, a whole device tree, says.
///
/// # Errors
/// Why it is of no use.
pub fn read(blob: &'static [u8]) -> Result<Machine, Error> {
    let tree = Fdt::new(blob).map_err(Error::Blob)?;
    let chosen = tree.find_node("/chosen");
    let mut machine = Machine {
        memory: read_memory(tree)?,
        reserved: read_reserved(tree)?,
        initrd: chosen.map_or(Ok(None), read_initrd)?,
        bootargs: chosen.map_or(Ok(""), read_bootargs)?,
        console: stdout_pl011(tree),
        rtc: None,
        ecam: None,
        nr_listed_cpus: read_cpus(tree)?,
        tree,
        psci: psci_conduit(tree),
    };
    bus::for_each_node(tree, &mut |path| {
        let slots = [
            (&mut machine.console, "arm,pl011"),
            (&mut machine.rtc, "arm,pl031"),
            (&mut machine.ecam, "pci-host-ecam-generic"),
        ];
        for (slot, compatible) in slots {
            if slot.is_none() {
                *slot = compatible_region(path, compatible);
            }
        }
    });
    Ok(machine)
}

/// Returns the registers of the PL011 that `stdout-path` names, or `None` if it names none or
/// something else.
#[must_use]
pub fn stdout_pl011(tree: Tree) -> Option<PhysRegion> {
    compatible_region(&stdout(tree)?, "arm,pl011")
}

/// Returns the node that `stdout-path` names, with those above it.
#[must_use]
pub fn stdout(tree: Tree) -> Option<Path<'static>> {
    let chosen = tree.find_node("/chosen")?;
    // Options follow a colon: "serial0:115200n8".
    let path = string(chosen, "stdout-path")?.split(':').next()?;
    if path.starts_with('/') {
        return Path::resolve(tree, path);
    }
    // A path that does not begin at the root begins with an alias.
    let (alias, rest) = path.split_once('/').unwrap_or((path, ""));
    let alias = string(tree.find_node("/aliases")?, alias)?;
    Path::resolve(tree, alias)?.descend(rest)
}

/// `method` of the `/psci` node.
#[must_use]
pub fn psci_conduit(tree: Tree) -> Option<Conduit> {
    match string(tree.find_node("/psci")?, "method")? {
        "hvc" => Some(Conduit::Hvc),
        "smc" => Some(Conduit::Smc),
        _ => None,
    }
}

/// Returns the first range of registers of the last node of `path`, if the node is `compatible` and
/// switched on.
fn compatible_region(path: &Path<'static>, compatible: &str) -> Option<PhysRegion> {
    let node = path.node();
    if !node.is_compatible(compatible) || !is_available(node) {
        return None;
    }
    let reg = node.reg().ok()??.next()?;
    path.translate(PhysRegion::new(reg.address().ok()?, reg.size().ok()?)?)
}

/// Returns a property that is a string.
fn string(node: TreeNode, name: &str) -> Option<&'static str> {
    node.property(name)?.value_as::<&'static str>().ok()
}

/// No `status`, or one that says so. "ok" is older than the specification, and in use.
fn is_available(node: TreeNode) -> bool {
    node.property("status").is_none() || matches!(string(node, "status"), Some("okay" | "ok"))
}

fn read_memory(tree: Tree) -> Result<ArrayVec<PhysRegion, MAX_REGIONS>, Error> {
    let mut banks = ArrayVec::new();
    let root = tree.root();
    for node in root.children() {
        if string(node, "device_type") != Some("memory") || !is_available(node) {
            continue;
        }
        for_each_reg(node, |region| {
            banks.try_push(region).map_err(|_| Error::TooManyRegions)
        })?;
    }
    if banks.is_empty() {
        return Err(Error::NoMemory);
    }
    Ok(banks)
}

fn read_reserved(tree: Tree) -> Result<ArrayVec<Reserved, MAX_REGIONS>, Error> {
    let mut reserved = ArrayVec::new();
    let mut add = |region, no_map| {
        reserved
            .try_push(Reserved { region, no_map })
            .map_err(|_| Error::TooManyRegions)
    };
    for reservation in tree.memory_reservations() {
        let region = PhysRegion::new(reservation.address(), reservation.size()).ok_or(Error::Property {
            node: "/",
            property: "memory reservation block",
        })?;
        add(region, false)?;
    }
    if let Some(node) = tree.find_node("/reserved-memory") {
        for child in node.children().filter(|child| is_available(*child)) {
            let no_map = child.property("no-map").is_some();
            // A child with a size and no `reg` asks for memory that firmware has not chosen; it is
            // for drivers that this kernel has not.
            for_each_reg(child, |region| add(region, no_map))?;
        }
    }
    Ok(reserved)
}

/// Calls `f` with each range of `reg` that is not empty. The node's parent has the addresses of the
/// CPU.
fn for_each_reg(node: TreeNode, mut f: impl FnMut(PhysRegion) -> Result<(), Error>) -> Result<(), Error> {
    let bad = || Error::Property {
        node: node.name(),
        property: "reg",
    };
    let Some(regs) = node.reg().map_err(|_| bad())? else {
        return Ok(());
    };
    for reg in regs {
        let start = reg.address().map_err(|_| bad())?;
        let size = reg.size().map_err(|_| bad())?;
        let region = PhysRegion::new(start, size).ok_or_else(bad)?;
        if !region.is_empty() {
            f(region)?;
        }
    }
    Ok(())
}

/// `linux,initrd-start` and `linux,initrd-end`: each 32 or 64 bits, regardless of `#address-cells`.
fn read_initrd(chosen: TreeNode) -> Result<Option<PhysRegion>, Error> {
    let bad = |property| Error::Property {
        node: "chosen",
        property,
    };
    let address = |name: &'static str| match chosen.property(name) {
        None => Ok(None),
        Some(property) => match property.value().len() {
            4 => property
                .value_as::<u32>()
                .map(u64::from)
                .map_err(|_| bad(name))
                .map(Some),
            8 => property.value_as::<u64>().map_err(|_| bad(name)).map(Some),
            _ => Err(bad(name)),
        },
    };
    match (address("linux,initrd-start")?, address("linux,initrd-end")?) {
        (Some(start), Some(end)) if start < end => Ok(Some(PhysRegion { start, end })),
        (Some(start), Some(end)) if start == end => Ok(None),
        (None, None) => Ok(None),
        _ => Err(bad("linux,initrd-end")),
    }
}

fn read_bootargs(chosen: TreeNode) -> Result<&'static str, Error> {
    match chosen.property("bootargs") {
        None => Ok(""),
        Some(property) => property.value_as::<&'static str>().map_err(|_| Error::Property {
            node: "chosen",
            property: "bootargs",
        }),
    }
}

/// Returns the nodes of the CPUs that may be used, in the order of the tree.
fn cpu_nodes(tree: Tree) -> impl Iterator<Item = TreeNode> {
    let cpus = tree.find_node("/cpus").into_iter();
    cpus.flat_map(|cpus| cpus.children())
        .filter(|node| string(*node, "device_type") == Some("cpu") && is_available(*node))
}

fn read_cpu(node: TreeNode) -> Option<Cpu> {
    Some(Cpu {
        mpidr: node.reg().ok()??.next()?.address().ok()?,
        by_psci: string(node, "enable-method") == Some("psci"),
    })
}

/// Counts the CPUs, and sees to it that each can be read.
fn read_cpus(tree: Tree) -> Result<usize, Error> {
    let mut nr = 0;
    for node in cpu_nodes(tree) {
        read_cpu(node).ok_or_else(|| Error::Property {
            node: node.name(),
            property: "reg",
        })?;
        nr += 1;
    }
    Ok(nr)
}

impl Machine {
    /// Returns the CPUs that may be used beside the one that runs this, in the order of the tree:
    /// as many as the kernel has numbers for.
    ///
    /// Read from the tree each time, so that the kernel needs no room for them.
    pub fn other_cpus(&self) -> impl Iterator<Item = Cpu> {
        let this = this_cpu().mpidr();
        // All of them were read before, so that none is left out.
        cpu_nodes(self.tree)
            .filter_map(read_cpu)
            .filter(move |cpu| cpu.mpidr != this)
            .take(MAX_CPUS - 1)
    }

    /// CPUs that have a number.
    #[must_use]
    pub fn nr_cpus(&self) -> usize {
        1 + self.other_cpus().count()
    }
}
