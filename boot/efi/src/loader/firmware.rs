//! What is asked of the firmware.

use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::c_void;

use efi_loader::bootargs;
use uefi::boot::{self, AllocateType};
use uefi::fs::FileSystem;
use uefi::mem::memory_map::MemoryType;
use uefi::proto::device_path::media::FilePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{CString16, Guid, guid, system};

use super::{Error, Place};

/// EFI_DTB_GUID (Devicetree in the UEFI configuration table, EBBR 2.3).
const DEVICE_TREE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");

const SEPARATOR: u16 = b'\\' as u16;

/// Returns pages that the image keeps.
pub fn allocate(size: usize) -> Result<Place, Error> {
    let pages = size.div_ceil(boot::PAGE_SIZE);
    let start = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, pages)
        .map_err(|error| Error::Firmware("memory", error.status()))?;
    let start = start.as_ptr() as usize;
    Ok(start..start + pages * boot::PAGE_SIZE)
}

fn table(guid: Guid) -> Option<*const c_void> {
    system::with_config_table(|tables| {
        let table = tables.iter().find(|table| table.guid == guid)?;
        Some(table.address)
    })
}

/// Returns the blob in the configuration table.
pub fn device_tree() -> Option<&'static [u8]> {
    let blob = table(DEVICE_TREE)?.cast::<u8>();
    // SAFETY: the firmware says that a device tree is there, whose second word is its size.
    let size = unsafe { blob.cast::<[u8; 4]>().add(1).read() };
    // SAFETY: as above.
    Some(unsafe { core::slice::from_raw_parts(blob, u32::from_be_bytes(size) as usize) })
}

/// Returns where the RSDP is.
pub fn acpi() -> Option<usize> {
    table(ConfigTableEntry::ACPI2_GUID).map(|rsdp| rsdp as usize)
}

/// Returns the boot arguments of the load options, else those of `bootargs.txt` beside the
/// application. `None` for those of the device tree.
pub fn bootargs() -> Option<String> {
    let application = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()).ok()?;
    if let Some(given) = application
        .load_options_as_bytes()
        .and_then(bootargs::of_load_options)
    {
        return Some(given);
    }
    let mut path: Vec<u16> = Vec::new();
    for node in application.file_path()?.node_iter() {
        let Ok(node) = <&FilePath>::try_from(node) else {
            continue;
        };
        let units: Vec<u16> = node.path_name().iter().take_while(|unit| *unit != 0).collect();
        for name in units
            .split(|unit| *unit == SEPARATOR)
            .filter(|name| !name.is_empty())
        {
            path.push(SEPARATOR);
            path.extend(name);
        }
    }
    let folder = path.iter().rposition(|unit| *unit == SEPARATOR)?;
    path.truncate(folder);
    path.extend("\\bootargs.txt\0".encode_utf16());
    let path = CString16::try_from(path).ok()?;
    drop(application);
    let mut files = FileSystem::new(boot::get_image_file_system(boot::image_handle()).ok()?);
    Some(bootargs::of_file(&files.read_to_string(path.as_ref()).ok()?))
}
