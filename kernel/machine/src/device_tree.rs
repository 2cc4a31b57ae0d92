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

use crate::regions::{MAX_REGIONS, PhysRegion};
use crate::uart::Uart;

pub use bus::Path;

/// What the device tree says of the machine.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// RAM, bank by bank, as it is written. Empty if the loader has filled none in.
    pub memory: ArrayVec<PhysRegion, MAX_REGIONS>,
    /// Ranges of RAM that are not the kernel's, from the reservation block and from
    /// `/reserved-memory`.
    pub reserved: ArrayVec<Reserved, MAX_REGIONS>,
    /// The initial RAM disk.
    pub initrd: Option<PhysRegion>,
    /// `/chosen/bootargs`.
    pub bootargs: &'a str,
    /// The UART of [`console`].
    pub console: Option<Console>,
    /// The node that `stdout-path` names, if it is no UART that is [known](crate::uart::known).
    pub unknown_stdout: Option<&'a str>,
    /// The first `arm,pl031`.
    pub rtc: Option<PhysRegion>,
    /// The configuration space of the first `pci-host-ecam-generic`.
    pub ecam: Option<PhysRegion>,
    /// CPUs of the tree that may be used.
    pub nr_listed_cpus: usize,
    tree: Fdt<'a>,
    /// How firmware is called.
    pub psci: Option<Conduit>,
    /// The CPU that read the tree.
    this: u64,
    /// CPUs that the kernel has numbers for.
    max_cpus: usize,
}

/// A UART, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// Its registers.
    pub registers: PhysRegion,
    /// What they are.
    pub uart: Uart,
}

/// How firmware is called: `method` of the PSCI node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Conduit {
    /// `method = "hvc"`.
    Hvc = 1,
    /// `method = "smc"`.
    Smc = 2,
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
    /// Its `enable-method`; `None` if it is one that the kernel does not know.
    pub method: Option<EnableMethod>,
}

/// How a CPU is turned on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// By PSCI.
    Psci,
    /// It waits for an address to go to, in the 64 bits at this physical address
    /// (`cpu-release-addr`).
    SpinTable(u64),
}

/// Why a device tree is of no use. It was valid as a blob; what it says is not.
#[derive(Clone, Debug)]
pub enum Error<'a> {
    /// The blob is not valid.
    Blob(dtoolkit::error::FdtParseError),
    /// A property of this node has a value that is none.
    Property {
        /// The node.
        node: &'a str,
        /// The property.
        property: &'static str,
    },
    /// There are more memory banks, or more reserved ranges, than the kernel has room for.
    TooManyRegions,
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(error) => write!(f, "{error}"),
            Self::Property { node, property } => {
                write!(f, "property `{property}` of node `{node}` cannot be understood")
            }
            Self::TooManyRegions => write!(f, "more than {MAX_REGIONS} memory banks or reserved ranges"),
        }
    }
}

/// Reads what `blob`, a whole device tree, says. It is read on the CPU with the affinity fields
/// `this`, for a kernel that has numbers for `max_cpus`.
///
/// # Errors
/// Why it is of no use.
pub fn read(blob: &[u8], this: u64, max_cpus: usize) -> Result<Machine<'_>, Error<'_>> {
    let tree = Fdt::new(blob).map_err(Error::Blob)?;
    let chosen = tree.find_node("/chosen");
    let mut machine = Machine {
        memory: read_memory(tree)?,
        reserved: read_reserved(tree)?,
        initrd: chosen.map_or(Ok(None), read_initrd)?,
        bootargs: chosen.map_or(Ok(""), read_bootargs)?,
        console: console(tree),
        unknown_stdout: stdout(tree)
            .map(|path| path.node())
            .filter(|node| Uart::of(*node).is_none())
            .map(|node| node.name()),
        rtc: None,
        ecam: None,
        nr_listed_cpus: read_cpus(tree)?,
        tree,
        psci: psci_conduit(tree),
        this,
        max_cpus,
    };
    bus::for_each_node(tree, &mut |path| {
        let slots = [
            (&mut machine.rtc, "arm,pl031"),
            (&mut machine.ecam, "pci-host-ecam-generic"),
        ];
        for (slot, compatible) in slots {
            if slot.is_none() {
                *slot = path.registers_of(compatible);
            }
        }
    });
    Ok(machine)
}

/// Returns the UART that `stdout-path` names, or else the first PL011. `None` if neither is one
/// that is [known](crate::uart::known), switched on and within the CPU's reach.
///
/// Nothing but a PL011 is guessed: an access to a UART whose clock is off may never end.
#[must_use]
pub fn console(tree: Fdt<'_>) -> Option<Console> {
    let mut console = stdout(tree).as_ref().and_then(Console::of);
    bus::for_each_node(tree, &mut |path| {
        if console.is_none() && path.node().is_compatible("arm,pl011") {
            console = Console::of(path);
        }
    });
    console
}

impl Console {
    fn of(path: &Path<'_>) -> Option<Self> {
        let uart = Uart::of(path.node()).filter(|_| path.is_available())?;
        let registers = path.registers()?;
        // Registers beyond what the node has are not its own.
        (uart.extent() as u64 <= registers.size()).then_some(Self { registers, uart })
    }
}

/// Returns the node that `stdout-path` names, with those above it.
#[must_use]
pub fn stdout(tree: Fdt<'_>) -> Option<Path<'_>> {
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

/// What a PSCI node is compatible with, of any version.
const PSCI: [&str; 3] = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];

/// Returns `method` of the first PSCI node that is switched on, wherever it is: `/psci` mostly, or
/// `/firmware/psci`.
#[must_use]
pub fn psci_conduit(tree: Fdt<'_>) -> Option<Conduit> {
    let mut conduit = None;
    bus::for_each_node(tree, &mut |path| {
        let node = path.node();
        if conduit.is_none() && PSCI.iter().any(|name| node.is_compatible(name)) && path.is_available() {
            conduit = match string(node, "method") {
                Some("hvc") => Some(Conduit::Hvc),
                Some("smc") => Some(Conduit::Smc),
                _ => None,
            };
        }
    });
    conduit
}

/// Returns a property that is a string.
fn string<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a str> {
    node.property(name)?.value_as::<&str>().ok()
}

/// No `status`, or one that says so. "ok" is older than the specification, and in use.
fn is_available(node: FdtNode<'_>) -> bool {
    node.property("status").is_none() || matches!(string(node, "status"), Some("okay" | "ok"))
}

fn read_memory(tree: Fdt<'_>) -> Result<ArrayVec<PhysRegion, MAX_REGIONS>, Error<'_>> {
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
    Ok(banks)
}

fn read_reserved(tree: Fdt<'_>) -> Result<ArrayVec<Reserved, MAX_REGIONS>, Error<'_>> {
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
fn for_each_reg<'a>(
    node: FdtNode<'a>,
    mut f: impl FnMut(PhysRegion) -> Result<(), Error<'a>>,
) -> Result<(), Error<'a>> {
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
fn read_initrd(chosen: FdtNode<'_>) -> Result<Option<PhysRegion>, Error<'_>> {
    let bad = |property| Error::Property {
        node: "chosen",
        property,
    };
    let address = |name: &'static str| match chosen.property(name) {
        None => Ok(None),
        Some(_) => number(chosen, name).ok_or(bad(name)).map(Some),
    };
    match (address("linux,initrd-start")?, address("linux,initrd-end")?) {
        (Some(start), Some(end)) if start < end => Ok(Some(PhysRegion { start, end })),
        (Some(start), Some(end)) if start == end => Ok(None),
        (None, None) => Ok(None),
        _ => Err(bad("linux,initrd-end")),
    }
}

fn read_bootargs(chosen: FdtNode<'_>) -> Result<&str, Error<'_>> {
    match chosen.property("bootargs") {
        None => Ok(""),
        Some(property) => property.value_as::<&str>().map_err(|_| Error::Property {
            node: "chosen",
            property: "bootargs",
        }),
    }
}

/// Returns the nodes of the CPUs that may be used, in the order of the tree.
fn cpu_nodes(tree: Fdt<'_>) -> impl Iterator<Item = FdtNode<'_>> {
    let cpus = tree.find_node("/cpus").into_iter();
    cpus.flat_map(|cpus| cpus.children())
        .filter(|node| string(*node, "device_type") == Some("cpu") && is_available(*node))
}

fn read_cpu(node: FdtNode<'_>) -> Option<Cpu> {
    Some(Cpu {
        mpidr: node.reg().ok()??.next()?.address().ok()?,
        method: match string(node, "enable-method") {
            Some("psci") => Some(EnableMethod::Psci),
            Some("spin-table") => number(node, "cpu-release-addr")
                .filter(|release| release.is_multiple_of(8))
                .map(EnableMethod::SpinTable),
            _ => None,
        },
    })
}

/// Returns a property that is a number of 32 or 64 bits.
fn number(node: FdtNode<'_>, name: &str) -> Option<u64> {
    let property = node.property(name)?;
    match property.value().len() {
        4 => property.value_as::<u32>().ok().map(u64::from),
        8 => property.value_as::<u64>().ok(),
        _ => None,
    }
}

/// Counts the CPUs, and sees to it that each can be read.
fn read_cpus(tree: Fdt<'_>) -> Result<usize, Error<'_>> {
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

impl Machine<'_> {
    /// Returns the CPUs that may be used, in the order of the tree.
    ///
    /// Read from the tree each time, so that the kernel needs no room for them.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> {
        // All of them were read before, so that none is left out.
        cpu_nodes(self.tree).filter_map(read_cpu)
    }

    /// Returns the CPUs of [`cpus`](Self::cpus) but the one that read the tree: as many as the
    /// kernel has numbers for.
    pub fn other_cpus(&self) -> impl Iterator<Item = Cpu> {
        self.cpus()
            .filter(|cpu| cpu.mpidr != self.this)
            .take(self.max_cpus - 1)
    }

    /// CPUs that have a number.
    #[must_use]
    pub fn nr_cpus(&self) -> usize {
        1 + self.other_cpus().count()
    }
}
