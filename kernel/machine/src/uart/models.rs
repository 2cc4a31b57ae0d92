//! Families of UARTs, by `compatible`, polled without modes that a loader may have changed.

use super::{Condition, Model, Receive, Register, Uart, Width};

const fn word(offset: u16) -> Register {
    Register(offset, Width::Word)
}

const fn half(offset: u16) -> Register {
    Register(offset, Width::Half)
}

const fn byte(offset: u16) -> Register {
    Register(offset, Width::Byte)
}

/// 32-bit registers, nothing beside the byte.
const fn plain(
    name: &'static str,
    to: Register,
    ready: Condition,
    idle: Condition,
    receive: Receive,
) -> Model {
    Model {
        name,
        ready,
        before: &[],
        armed: None,
        to,
        after: None,
        idle,
        receive: Some(receive),
        spaced: false,
    }
}

const fn receive(from: Register, errors: u32, ready: Condition) -> Receive {
    Receive {
        ready,
        from,
        errors,
        after: None,
    }
}

/// Arm PrimeCell UART TRM (DDI 0183); for the subset SBSA, appendix B.
pub static PL011: Model = plain(
    "PL011",
    word(0x00),
    Condition::clear(word(0x18), 5), // TXFF
    Condition::clear(word(0x18), 3), // BUSY
    // RXFE; OE, BE, PE, FE
    receive(word(0x00), 0xf << 8, Condition::clear(word(0x18), 4)),
);

/// National's PC16550D data sheet. Offsets count registers.
static NS8250: Model = Model {
    spaced: true,
    ..plain(
        "8250",
        byte(0),
        Condition::set(byte(5), 5), // THRE
        Condition::set(byte(5), 6), // TEMT
        receive(byte(0), 0, Condition::set(byte(5), 0)),
    )
};

/// Linux, `8250_em.c`: one more register before LSR.
static EMMA: Model = plain(
    "Emma Mobile",
    byte(0x00),
    Condition::set(word(0x18), 5),
    Condition::set(word(0x18), 6),
    receive(byte(0x00), 0, Condition::set(word(0x18), 0)),
);

/// Zynq UltraScale+ TRM (UG1085), "UART Controller". Off out of reset.
static CADENCE: Model = Model {
    before: &[(word(0x00), 1 << 2 | 1 << 4)], // CR: RXEN, TXEN
    ..plain(
        "Cadence",
        word(0x30),
        Condition::clear(word(0x2c), 4), // TXFULL
        // TXEMPTY, and not TACTIVE
        Condition {
            register: word(0x2c),
            mask: 1 << 3 | 1 << 11,
            value: 1 << 3,
        },
        receive(word(0x30), 0, Condition::clear(word(0x2c), 1)), // REMPTY
    )
};

/// i.MX 8M reference manuals, "UART".
static IMX: Model = plain(
    "i.MX",
    word(0x40),
    Condition::clear(word(0xb4), 4), // TXFULL
    Condition::set(word(0x98), 3),   // TXDC
    // RXEMPTY; ERR
    receive(word(0x00), 1 << 14, Condition::clear(word(0xb4), 5)),
);

/// i.MX 8 and 9 reference manuals, "LPUART".
static LPUART: Model = plain(
    "LPUART",
    word(0x1c),
    Condition::set(word(0x14), 23), // TDRE
    Condition::set(word(0x14), 22), // TC
    // RDRF; FRETSC and PARITYE
    receive(word(0x1c), 0b11 << 13, Condition::set(word(0x14), 21)),
);

/// Linux, `meson_uart.c`: WFIFO, RFIFO, STATUS.
static MESON: Model = plain(
    "Meson",
    word(0x00),
    Condition::clear(word(0x0c), 21), // TX_FULL
    // TX_EMPTY, and not XMIT_BUSY
    Condition {
        register: word(0x0c),
        mask: 1 << 22 | 1 << 25,
        value: 1 << 22,
    },
    receive(word(0x04), 0, Condition::clear(word(0x0c), 20)), // RX_EMPTY
);

/// Linux, `mvebu-uart.c`: TSH, RBR, STAT of the standard port.
static ARMADA_3700: Model = plain(
    "Armada 3700",
    word(0x04),
    Condition::clear(word(0x0c), 11), // TX_FIFO_FULL
    Condition::set(word(0x0c), 6),    // TX_EMPTY
    receive(word(0x00), 0, Condition::set(word(0x0c), 4)),
);

/// Linux, `samsung_tty.c`. "Transmit buffer empty" is the FIFO's, if any.
static EXYNOS: Model = plain(
    "Exynos",
    word(0x20),
    Condition::set(word(0x10), 1),
    Condition::set(word(0x10), 2),
    receive(word(0x24), 0, Condition::set(word(0x10), 0)),
);

/// R-Car series user's manuals, "SCIF" and "HSCIF". Writing 0 clears a flag of SCFSR that was read
/// as 1; 1 keeps it.
static SCIF: Model = scif("SCIF", 0x0c, 0x10, 0x14);

/// RZ/G2L user's manual, "SCIFA".
static SCIF_RZ: Model = scif("SCIFA", 0x06, 0x08, 0x0a);

const fn scif(name: &'static str, to: u16, status: u16, from: u16) -> Model {
    const TDFE: u32 = 5;
    const TEND: u32 = 6;
    const ALL: u32 = 0xff;
    Model {
        after: Some((half(status), ALL & !(1 << TDFE | 1 << TEND))),
        ..plain(
            name,
            byte(to),
            Condition::set(half(status), TDFE),
            Condition::set(half(status), TEND),
            Receive {
                // RDF, and DR.
                after: Some((half(status), ALL & !0b11)),
                ..receive(byte(from), 0, Condition::set(half(status), 1))
            },
        )
    }
}

/// Linux, `qcom_geni_serial.c`, `geni-se.h`. Each byte is a command. Input is packed in words: only
/// output.
static GENI: Model = Model {
    name: "GENI",
    ready: Condition::clear(word(0x40), 0), // GENI_STATUS.M_GENI_CMD_ACTIVE
    before: &[
        (word(0x618), 1 << 30 | 1), // M_IRQ_CLEAR: TX_FIFO_WATERMARK, CMD_DONE
        (word(0x80c), 2),           // TX_WATERMARK
        (word(0x270), 1),           // UART_TX_TRANS_LEN
        (word(0x600), 1 << 27),     // M_CMD0: UART_START_TX
    ],
    armed: Some(Condition::set(word(0x610), 30)), // M_IRQ_STATUS: TX_FIFO_WATERMARK
    to: word(0x700),
    after: None,
    idle: Condition::clear(word(0x40), 0),
    receive: None,
    spaced: false,
};

/// Linux, `msm_serial.c`: each byte is a transfer. Only output, as with GENI.
static MSM: Model = Model {
    name: "UARTDM",
    ready: Condition::set(word(0x08), 3), // SR.TX_EMPTY
    before: &[
        (word(0x10), 3 << 8), // CR: reset TX_READY
        (word(0x40), 1),      // NCF_TX
    ],
    armed: Some(Condition::set(word(0x08), 2)), // SR.TX_READY
    to: word(0x70),
    after: None,
    idle: Condition::set(word(0x08), 3),
    receive: None,
    spaced: false,
};

const fn fixed(model: &'static Model) -> Uart {
    Uart {
        model,
        shift: 0,
        width: None,
    }
}

const fn spaced(shift: u8, width: Width) -> Uart {
    Uart {
        model: &NS8250,
        shift,
        width: Some(width),
    }
}

pub(super) static KNOWN: &[(&str, Uart)] = &[
    ("arm,pl011", Uart::PL011),
    ("arm,sbsa-uart", Uart::PL011),
    ("ns16550", spaced(0, Width::Byte)),
    ("ns16550a", spaced(0, Width::Byte)),
    ("snps,dw-apb-uart", spaced(0, Width::Byte)),
    ("brcm,bcm2835-aux-uart", spaced(2, Width::Word)),
    ("mediatek,mt6577-uart", spaced(2, Width::Word)),
    ("nvidia,tegra20-uart", spaced(2, Width::Word)),
    ("ti,am654-uart", spaced(2, Width::Word)),
    ("renesas,em-uart", fixed(&EMMA)),
    ("cdns,uart-r1p8", fixed(&CADENCE)),
    ("cdns,uart-r1p12", fixed(&CADENCE)),
    ("fsl,imx6q-uart", fixed(&IMX)),
    ("fsl,imx21-uart", fixed(&IMX)),
    ("fsl,imx7ulp-lpuart", fixed(&LPUART)),
    ("fsl,imx8qxp-lpuart", fixed(&LPUART)),
    ("amlogic,meson-ao-uart", fixed(&MESON)),
    ("amlogic,meson-gx-uart", fixed(&MESON)),
    ("marvell,armada-3700-uart", fixed(&ARMADA_3700)),
    ("samsung,exynos4210-uart", fixed(&EXYNOS)),
    ("samsung,exynos5433-uart", fixed(&EXYNOS)),
    ("samsung,exynos850-uart", fixed(&EXYNOS)),
    ("samsung,exynos8895-uart", fixed(&EXYNOS)),
    ("google,gs101-uart", fixed(&EXYNOS)),
    ("renesas,scif", fixed(&SCIF)),
    ("renesas,hscif", fixed(&SCIF)),
    ("renesas,scif-r9a07g044", fixed(&SCIF_RZ)),
    ("renesas,scif-r9a09g057", fixed(&SCIF_RZ)),
    ("qcom,geni-debug-uart", fixed(&GENI)),
    ("qcom,msm-uartdm", fixed(&MSM)),
];

#[must_use]
pub fn known(compatible: &str) -> Option<Uart> {
    let found = KNOWN.iter().find(|(name, _)| *name == compatible);
    found.map(|(_, uart)| *uart)
}
