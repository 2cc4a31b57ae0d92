//! The device tree as plain values (Devicetree Specification 0.4, chapters 2 and 3, and Linux's
//! bindings). `dtoolkit` validates and parses it, without a heap.

mod bus;

use core::fmt;

use arrayvec::ArrayVec;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

use crate::regions::{MAX_REGIONS, PhysRegion};
use crate::uart::Uart;

pub use bus::Path;

#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// Empty if the loader filled none in.
    pub memory: ArrayVec<PhysRegion, MAX_REGIONS>,
    /// Also from the reservation block.
    pub reserved: ArrayVec<Reserved, MAX_REGIONS>,
    pub initrd: Option<PhysRegion>,
    pub bootargs: &'a str,
    pub console: Option<Console>,
    /// Not a [known](crate::uart::known) UART.
    pub unknown_stdout: Option<&'a str>,
    /// The first `arm,pl031`.
    pub rtc: Option<PhysRegion>,
    /// Of `pci-host-ecam-generic`.
    pub ecam: Option<PhysRegion>,
    pub nr_listed_cpus: usize,
    tree: Fdt<'a>,
    pub psci: Option<Conduit>,
    /// MPIDR of the reader.
    this: u64,
    max_cpus: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Console {
    pub registers: PhysRegion,
    pub uart: Uart,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Conduit {
    Hvc = 1,
    Smc = 2,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    pub region: PhysRegion,
    /// The CPU must not prefetch from it.
    pub no_map: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Affinity fields.
    pub mpidr: u64,
    pub method: Option<EnableMethod>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    Psci,
    /// Physical address of `cpu-release-addr`.
    SpinTable(u64),
}

#[derive(Clone, Debug)]
pub enum Error<'a> {
    Blob(dtoolkit::error::FdtParseError),
    Property { node: &'a str, property: &'static str },
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

/// Reads `blob` on the CPU with MPIDR `this`.
///
/// # Errors
/// Why it is unusable.
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

/// Returns the UART of `stdout-path`, or else the first PL011, if [known](crate::uart::known). No
/// other is guessed: an access to a UART whose clock is off may hang.
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
        (uart.extent() as u64 <= registers.size()).then_some(Self { registers, uart })
    }
}

#[must_use]
pub fn stdout(tree: Fdt<'_>) -> Option<Path<'_>> {
    let chosen = tree.find_node("/chosen")?;
    // "serial0:115200n8".
    let path = string(chosen, "stdout-path")?.split(':').next()?;
    if path.starts_with('/') {
        return Path::resolve(tree, path);
    }
    let (alias, rest) = path.split_once('/').unwrap_or((path, ""));
    let alias = string(tree.find_node("/aliases")?, alias)?;
    Path::resolve(tree, alias)?.descend(rest)
}

const PSCI: [&str; 3] = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];

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

fn string<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a str> {
    node.property(name)?.value_as::<&str>().ok()
}

/// "ok" is older than the specification.
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
            // Without `reg`, it is for drivers that the kernel lacks.
            for_each_reg(child, |region| add(region, no_map))?;
        }
    }
    Ok(reserved)
}

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

/// 32 or 64 bits, regardless of `#address-cells`.
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

fn number(node: FdtNode<'_>, name: &str) -> Option<u64> {
    let property = node.property(name)?;
    match property.value().len() {
        4 => property.value_as::<u32>().ok().map(u64::from),
        8 => property.value_as::<u64>().ok(),
        _ => None,
    }
}

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
    /// Reads the CPUs anew: no storage.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> {
        cpu_nodes(self.tree).filter_map(read_cpu)
    }

    /// Returns those with a number, but the first.
    pub fn other_cpus(&self) -> impl Iterator<Item = Cpu> {
        self.cpus()
            .filter(|cpu| cpu.mpidr != self.this)
            .take(self.max_cpus - 1)
    }

    /// Counts those with a number.
    #[must_use]
    pub fn nr_cpus(&self) -> usize {
        1 + self.other_cpus().count()
    }
}
