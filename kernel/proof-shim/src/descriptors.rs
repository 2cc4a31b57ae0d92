use paging::{Attributes, Descriptor, Granule, Granule4K, Granule16K, Granule64K, PhysAddr};

use crate::shim;

/// Valid, link, contiguous, address, attributes.
type Decoded = [u64; 5];

fn decode<G: Granule>(value: u64, level: i8) -> Decoded {
    let found = Descriptor(value);
    [
        u64::from(found.is_valid()),
        u64::from(found.is_table(level)),
        u64::from(found.is_contiguous()),
        found.address::<G>().0,
        found.attributes::<G>().bits(),
    ]
}

shim! {
    fn shim_encode_leaf(level: i8, pa: u64, attributes: u64, contiguous: bool) -> u64 {
        Descriptor::leaf::<Granule4K>(level, PhysAddr(pa), Attributes::from_bits(attributes), contiguous).0
    }
    fn shim_encode_table(table: u64) -> u64 {
        Descriptor::table::<Granule4K>(PhysAddr(table)).0
    }
    fn shim_decode_4k(value: u64, level: i8, out: &mut Decoded) {
        *out = decode::<Granule4K>(value, level);
    }
    fn shim_decode_16k(value: u64, level: i8, out: &mut Decoded) {
        *out = decode::<Granule16K>(value, level);
    }
    fn shim_decode_64k(value: u64, level: i8, out: &mut Decoded) {
        *out = decode::<Granule64K>(value, level);
    }
    fn shim_attributes(bits: u64, software: u8, out: &mut [u64; 5]) {
        let attributes = Attributes::from_bits(bits);
        *out = [
            attributes.writable().bits(),
            attributes.read_only().bits(),
            attributes.executable().bits(),
            attributes.execute_never().bits(),
            attributes.with_software(software).bits(),
        ];
    }
}
