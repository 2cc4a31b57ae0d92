"""What a byte of MAIR_EL1 says of memory (Arm ARM DDI 0487, D24.2, MAIR_EL1). Knows nothing of gdb."""

DEVICES = {0: "Device-nGnRnE", 1: "Device-nGnRE", 2: "Device-nGRE", 3: "Device-GRE"}
SPECIAL = {0x40: "Normal-NC,XS=0", 0xA0: "Normal-WT,XS=0", 0xF0: "Normal-Tagged"}


def type_name(attribute: int) -> str:
    """The type in one word, as a dump has it; allocation hints are left out."""
    if attribute in SPECIAL:
        return SPECIAL[attribute]
    if attribute >> 4 == 0:
        name = DEVICES[attribute >> 2 & 3]
        return {0b00: name, 0b01: f"{name},XS=0"}.get(attribute & 0b11, f"reserved-{attribute:#04x}")
    if attribute & 0xF == 0:
        return f"reserved-{attribute:#04x}"
    outer, inner = short_cacheability(attribute >> 4), short_cacheability(attribute & 0xF)
    return f"Normal-{outer}" if outer == inner else f"Normal-o{outer}-i{inner}"


def short_cacheability(field: int) -> str:
    if field == 0b0100:
        return "NC"
    return ("WB" if field & 0b0100 else "WT") + ("" if field & 0b1000 else "t")


def attribute_meaning(attribute: int) -> str:
    """One byte of MAIR_EL1."""
    if attribute == 0b0100_0000:
        return "Normal, non-cacheable, XS=0"
    if attribute == 0xA0:
        return "Normal, write-through, XS=0"
    if attribute == 0xF0:
        return "Normal, write-back, tagged"
    if attribute >> 4 == 0:
        if attribute & 0b11 == 0b01:
            return f"{DEVICES[attribute >> 2 & 3]}, XS=0"
        return DEVICES[attribute >> 2 & 3] if attribute & 0b11 == 0 else f"reserved ({attribute:#04x})"
    outer, inner = cacheability(attribute >> 4), cacheability(attribute & 0xF)
    if attribute & 0xF == 0:
        return f"reserved ({attribute:#04x})"
    return f"Normal, {outer}" if outer == inner else f"Normal, outer {outer}, inner {inner}"


def cacheability(field: int) -> str:
    if field == 0b0100:
        return "non-cacheable"
    policy = "write-back" if field & 0b0100 else "write-through"
    if field & 0b1000 == 0:
        policy += " transient"
    allocate = " ".join(name for bit, name in ((2, "RA"), (1, "WA")) if field & bit)
    return f"{policy} {allocate or 'no-allocate'}"
