//! From the firmware to the image.

mod firmware;
mod heap;
mod jump;

use ::acpi::AcpiError;
use core::fmt;
use core::mem::forget;
use core::ops::Range;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::DeviceTree;
use efi_loader::acpi;
use efi_loader::tree::{Piece, banks, set_bootargs, set_memory};
use uefi::mem::memory_map::{MemoryDescriptor, MemoryMap, MemoryType};
use uefi::{Status, boot, entry, println};

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/Image"));

/// The image lies at a multiple of it.
const BLOCK: usize = 2 << 20;
/// The largest device tree (the boot protocol).
const MAX_TREE: usize = 2 << 20;

/// Why the image is not entered.
pub enum Error {
    NoImage,
    /// What was asked of the firmware.
    Firmware(&'static str, Status),
    Nothing,
    BrokenTables(AcpiError),
    BrokenTree(dtoolkit::error::FdtParseError),
    LargeTree(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImage => write!(f, "it was built without an image"),
            Self::Firmware(what, status) => write!(f, "no {what}: {status}"),
            Self::Nothing => write!(f, "the firmware has neither a device tree nor ACPI tables"),
            Self::BrokenTables(error) => write!(f, "the firmware's ACPI tables are broken: {error:?}"),
            Self::BrokenTree(error) => write!(f, "the firmware's device tree is broken: {error}"),
            Self::LargeTree(size) => {
                write!(f, "the device tree has {size} bytes, and at most 2 MiB are read")
            }
        }
    }
}

#[entry]
fn main() -> Status {
    let Err(error) = load();
    println!("vmwalk: the EFI loader stops: {error}");
    Status::LOAD_ERROR
}

fn load() -> Result<core::convert::Infallible, Error> {
    heap::set_up()?;
    let header = Header::of(IMAGE).ok_or(Error::NoImage)?;
    let mut tree = describe()?;
    if let Some(bootargs) = firmware::bootargs() {
        set_bootargs(&mut tree, &bootargs);
    }
    let place = firmware::allocate(header.size + MAX_TREE + BLOCK)?;
    let start = place.start.next_multiple_of(BLOCK);
    let image = start..start + header.size;
    let blob = image.end..image.end + MAX_TREE;
    // What can fail is done while there is a console to say so: this many bytes, and room for more
    // pieces of RAM.
    let size = tree.to_dtb().len();
    if size > MAX_TREE - (1 << 16) {
        return Err(Error::LargeTree(size));
    }

    // SAFETY: no protocol is open, and the heap is not the firmware's.
    let map = unsafe { boot::exit_boot_services(None) };
    set_memory(&mut tree, &banks(map.entries().map(piece), header.page_size));
    let dtb = tree.to_dtb();
    // SAFETY: both lie in pages that were allocated, apart from each other.
    unsafe {
        jump::write(image.start, IMAGE);
        jump::write(blob.start, &dtb);
    }
    forget((map, tree));
    // SAFETY: the boot services are over; image and tree are where the boot protocol wants them.
    unsafe { jump::enter(image, blob.start..blob.start + dtb.len()) }
}

/// The firmware's device tree, else one of what its ACPI tables say.
fn describe() -> Result<DeviceTree, Error> {
    if let Some(blob) = firmware::device_tree() {
        return Ok(DeviceTree::from_fdt(&Fdt::new(blob).map_err(Error::BrokenTree)?));
    }
    let rsdp = firmware::acpi().ok_or(Error::Nothing)?;
    // SAFETY: the firmware says that its tables are there, and maps memory one to one.
    unsafe { acpi::describe(rsdp) }.map_err(Error::BrokenTables)
}

/// Of RAM: what is the firmware's at run time, or ACPI's, is not free (UEFI 2.10, "Memory Type
/// Usage after ExitBootServices").
fn piece(of: &MemoryDescriptor) -> Piece {
    const FREE: [MemoryType; 5] = [
        MemoryType::CONVENTIONAL,
        MemoryType::LOADER_CODE,
        MemoryType::LOADER_DATA,
        MemoryType::BOOT_SERVICES_CODE,
        MemoryType::BOOT_SERVICES_DATA,
    ];
    let size = of.page_count * boot::PAGE_SIZE as u64;
    (of.phys_start..of.phys_start + size, FREE.contains(&of.ty))
}

/// What the image's header says (Documentation/arch/arm64/booting.rst).
struct Header {
    /// In memory.
    size: usize,
    page_size: u64,
}

impl Header {
    fn of(image: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().ok()?));
        (image.get(0x38..0x3c)? == b"ARM\x64").then_some(())?;
        Some(Self {
            size: (word(16)? as usize).next_multiple_of(BLOCK),
            // 1, 2 and 3 are 4K, 16K and 64K.
            page_size: 1024 << (2 * (word(24)? >> 1 & 3)),
        })
    }
}

/// Physical addresses, which the firmware maps one to one.
type Place = Range<usize>;
