//! ACPI tables made here, turned into a device tree, and read as the kernel does.

use efi_loader::acpi;
use efi_loader::tree::{set_bootargs, set_memory};
use machine::device_tree::{self, Conduit, EnableMethod, Machine};
use machine::regions::PhysRegion;

/// Puts bytes where a table may be, with a checksum at `sum_at`, and returns the address.
fn place(mut bytes: Vec<u8>, sum_at: usize) -> usize {
    bytes[sum_at] = 0;
    bytes[sum_at] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    // The crate may look at fields of later revisions.
    bytes.extend([0; 64]);
    let words = bytes.len().div_ceil(8);
    let home = Vec::leak(vec![0_u64; words]);
    for (word, bytes) in home.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    home.as_ptr() as usize
}

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> usize {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend([b' '; 14]);
    bytes.extend([0; 12]);
    bytes.extend(body);
    place(bytes, 9)
}

fn rsdp(tables: &[usize]) -> usize {
    let entries: Vec<u8> = tables.iter().flat_map(|at| (*at as u64).to_le_bytes()).collect();
    let xsdt = table(b"XSDT", 1, &entries);
    let mut bytes = b"RSD PTR \0      \x02\0\0\0\0".to_vec();
    bytes.extend(36_u32.to_le_bytes());
    bytes.extend((xsdt as u64).to_le_bytes());
    bytes.extend([0; 4]);
    bytes[8] = bytes[..20].iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    place(bytes, 32)
}

/// The bits of FADT's ARM_BOOT_ARCH.
fn fadt(arm_boot_arch: u16) -> usize {
    let mut body = vec![0; 276 - 36];
    body[129 - 36..131 - 36].copy_from_slice(&arm_boot_arch.to_le_bytes());
    table(b"FACP", 6, &body)
}

/// CPUs: affinity, and GICC flags.
fn madt(cpus: &[(u64, u32)]) -> usize {
    let mut body = vec![0; 8];
    // A distributor before them.
    body.extend([0xc, 24]);
    body.extend([0; 22]);
    for (mpidr, flags) in cpus {
        let mut entry = vec![0; 80];
        entry[..2].copy_from_slice(&[0xb, 80]);
        entry[12..16].copy_from_slice(&flags.to_le_bytes());
        entry[68..76].copy_from_slice(&mpidr.to_le_bytes());
        body.extend(entry);
    }
    table(b"APIC", 4, &body)
}

fn spcr(kind: u8, space: u8, width: u8, access: u8, address: u64) -> usize {
    let mut body = vec![kind, 0, 0, 0, space, width, 0, access];
    body.extend(address.to_le_bytes());
    body.extend([0; 28]);
    table(b"SPCR", 2, &body)
}

fn mcfg(base: u64, first: u8, last: u8) -> usize {
    let mut body = vec![0; 8];
    body.extend(base.to_le_bytes());
    body.extend([0, 0, first, last, 0, 0, 0, 0]);
    table(b"MCFG", 1, &body)
}

/// Reads what the tables become.
fn read(tables: &[usize], check: impl FnOnce(&Machine<'_>)) {
    // SAFETY: tables made here, which stay.
    let mut tree = unsafe { acpi::describe(rsdp(tables)) }.unwrap();
    set_memory(
        &mut tree,
        &[0x4000_0000..0x8000_0000, 0x80_0000_0000..0x90_0000_0000],
    );
    set_bootargs(&mut tree, "seed=3");
    let blob = tree.to_dtb();
    check(&device_tree::read(&blob, 0, 32).unwrap());
}

fn region(start: u64, size: u64) -> Option<PhysRegion> {
    PhysRegion::new(start, size)
}

#[test]
fn a_server_is_described_with_its_cpus_console_and_pcie() {
    let cpus = [(0, 1), (0x100, 1), (0x200, 0), (1 << 32 | 0x300, 1), (0x400, 8)];
    let tables = [
        fadt(1),
        madt(&cpus),
        spcr(3, 0, 32, 3, 0x900_0000),
        mcfg(0x40_1000_0000, 0x10, 0x1f),
    ];
    read(&tables, |machine| {
        assert_eq!(machine.psci, Some(Conduit::Smc));
        let found: Vec<u64> = machine.cpus().map(|cpu| cpu.mpidr).collect();
        assert_eq!(found, [0, 0x100, 1 << 32 | 0x300], "those that are enabled");
        assert!(machine.cpus().all(|cpu| cpu.method == Some(EnableMethod::Psci)));
        let console = machine.console.unwrap();
        assert_eq!(
            (console.uart.model.name, Some(console.registers)),
            ("PL011", region(0x900_0000, 0x1000))
        );
        assert_eq!(machine.ecam, region(0x40_1000_0000 + (0x10 << 20), 0x10 << 20));
        assert_eq!(machine.memory.len(), 2);
        assert_eq!(machine.bootargs, "seed=3");
    });
}

#[test]
fn psci_is_called_as_the_fadt_says() {
    for (flags, conduit) in [
        (0, None),
        (1, Some(Conduit::Smc)),
        (3, Some(Conduit::Hvc)),
        (2, None),
    ] {
        read(&[fadt(flags), madt(&[(0, 1)])], |machine| {
            assert_eq!(machine.psci, conduit, "{flags}");
            assert_eq!(machine.cpus().all(|cpu| cpu.method.is_some()), conduit.is_some());
        });
    }
}

#[test]
fn a_console_is_known_by_its_kind_and_its_registers() {
    let cases = [
        (0x0e, 0, 32, 3, Some("PL011")),
        (0x0d, 0, 32, 3, Some("PL011")),
        (0x00, 0, 32, 3, Some("8250")),
        (0x12, 0, 8, 1, Some("8250")),
        (0x10, 0, 32, 3, Some("8250")),
        // Of x86's port space, and of kinds that are no UART the kernel knows.
        (0x00, 1, 8, 1, None),
        (0x06, 0, 32, 3, None),
    ];
    for (kind, space, width, access, name) in cases {
        read(
            &[fadt(1), spcr(kind, space, width, access, 0x1000_0000)],
            |machine| {
                let console = machine.console.map(|console| console.uart);
                assert_eq!(console.map(|uart| uart.model.name), name, "{kind:#x}");
                if kind == 0 && space == 0 {
                    // Line status, the sixth register, is 4 bytes wide, and 20 bytes away.
                    assert_eq!(console.map(|uart| uart.extent()), Some(24));
                }
            },
        );
    }
}

#[test]
fn what_is_no_rsdp_is_refused() {
    // SAFETY: bytes that stay, and lead nowhere.
    assert!(unsafe { acpi::describe(place(vec![0; 64], 0)) }.is_err());
}

#[test]
fn a_table_with_a_wrong_checksum_is_passed_over() {
    let broken = mcfg(0x40_1000_0000, 0, 0xff);
    // SAFETY: a byte of a table made above, its checksum.
    unsafe { *((broken + 9) as *mut u8) ^= 1 };
    read(&[fadt(1), broken], |machine| assert_eq!(machine.ecam, None));
}
