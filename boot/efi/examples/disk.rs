//! Makes a disk with one partition, a FAT file system: `disk TARGET PATH=FILE...`.

use std::error::Error;
use std::fs;
use std::io::{Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Bytes before the partition, and bytes of a sector.
const START: usize = 1 << 20;
const SECTOR: usize = 512;

/// Returns a master boot record with one bootable partition of `size` bytes. The addresses by
/// cylinder, head and sector say nothing.
fn boot_record(size: usize) -> [u8; SECTOR] {
    const FAT16_LBA: u8 = 0x0e;
    let mut record = [0; SECTOR];
    let entry = &mut record[446..462];
    entry[..8].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, FAT16_LBA, 0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&((START / SECTOR) as u32).to_le_bytes());
    entry[12..].copy_from_slice(&((size / SECTOR) as u32).to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().ok_or("usage: disk TARGET PATH=FILE...")?;
    let mut files = Vec::new();
    for argument in arguments {
        let (path, file) = argument.split_once('=').ok_or("a file is PATH=FILE")?;
        files.push((
            path.to_owned(),
            fs::read(file).map_err(|error| format!("{file}: {error}"))?,
        ));
    }
    let needed: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    // At least what makes it FAT16, and room for files of the user's.
    let mut disk = vec![0; (START + needed + (8 << 20)).next_multiple_of(1 << 20)];
    let size = disk.len() - START;
    disk[..SECTOR].copy_from_slice(&boot_record(size));
    let mut partition = Cursor::new(&mut disk[START..]);
    fatfs::format_volume(
        &mut partition,
        FormatVolumeOptions::new().volume_label(*b"VMWALK     "),
    )?;
    let system = FileSystem::new(&mut partition, FsOptions::new())?;
    for (path, bytes) in &files {
        let mut folder = system.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = folder.create_dir(part)?;
        }
        folder.create_file(name)?.write_all(bytes)?;
    }
    system.unmount()?;
    fs::write(&target, disk).map_err(|error| format!("{target}: {error}"))?;
    Ok(())
}
