"""Another reading of a device tree, by libfdt, to hold the kernel's against.

libfdt finds nodes and properties. What they mean is taken from the Devicetree Specification 0.4 and
from Linux's bindings. The result has the shape of what `kernel/machine/examples/read_trees.rs` prints.
"""

from typing import Any

import libfdt

PSCI = {"arm,psci-1.0", "arm,psci-0.2", "arm,psci"}
TOP = 1 << 64

FAMILIES = {
    "PL011": "arm,pl011 arm,sbsa-uart",
    "8250": "ns16550 ns16550a snps,dw-apb-uart brcm,bcm2835-aux-uart mediatek,mt6577-uart nvidia,tegra20-uart ti,am654-uart",
    "Emma Mobile": "renesas,em-uart",
    "Cadence": "cdns,uart-r1p8 cdns,uart-r1p12",
    "i.MX": "fsl,imx21-uart fsl,imx6q-uart",
    "LPUART": "fsl,imx7ulp-lpuart fsl,imx8qxp-lpuart",
    "Meson": "amlogic,meson-ao-uart amlogic,meson-gx-uart",
    "Armada 3700": "marvell,armada-3700-uart",
    "Exynos": "samsung,exynos4210-uart samsung,exynos5433-uart samsung,exynos850-uart samsung,exynos8895-uart google,gs101-uart",
    "SCIF": "renesas,scif renesas,hscif",
    "SCIFA": "renesas,scif-r9a07g044 renesas,scif-r9a09g057",
    "GENI": "qcom,geni-debug-uart",
    "UARTDM": "qcom,msm-uartdm",
}
"""The UARTs that Linux drives in the same way, by their compatible strings."""

UARTS = {name: family for family, names in FAMILIES.items() for name in names.split()}

Region = list[int]


class Tree:
    """A device tree, with the questions that libfdt's Python leaves to its caller."""

    def __init__(self, blob: bytes) -> None:
        self.fdt = libfdt.FdtRo(blob)

    def children(self, node: int) -> list[int]:
        found = []
        child = self.fdt.first_subnode(node, [libfdt.NOTFOUND])
        while child >= 0:
            found.append(child)
            child = self.fdt.next_subnode(child, [libfdt.NOTFOUND])
        return found

    def all_nodes(self, node: int = 0, above: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
        """Every node with those above it, the root first, each before its children."""
        path = (*above, node)
        return [path, *(below for child in self.children(node) for below in self.all_nodes(child, path))]

    def path_to(self, node: int) -> tuple[int, ...]:
        path = [node]
        while path[0] != 0:
            path.insert(0, self.fdt.parent_offset(path[0]))
        return tuple(path)

    def value(self, node: int, name: str) -> bytes | None:
        found = self.fdt.getprop(node, name, [libfdt.NOTFOUND])
        return None if isinstance(found, int) else bytes(found)

    def text(self, node: int, name: str) -> str | None:
        value = self.value(node, name)
        return value[:-1].decode() if value and value.endswith(b"\0") else None

    def child_named(self, node: int, name: str) -> int | None:
        child = self.fdt.subnode_offset(node, name, [libfdt.NOTFOUND])
        return child if child >= 0 else None

    def compatible(self, node: int) -> set[str]:
        return set((self.value(node, "compatible") or b"").decode().split("\0"))

    def available(self, path: tuple[int, ...]) -> bool:
        """Whether neither the node nor a bus above it is switched off."""
        return all(self.value(node, "status") in (None, b"okay\0", b"ok\0") for node in path)

    def cells(self, node: int) -> tuple[int, int]:
        """Cells of an address and of a size in the children's `reg`."""
        defaults = {"#address-cells": 2, "#size-cells": 1}
        values = (self.value(node, name) or default.to_bytes(4, "big") for name, default in defaults.items())
        address, size = (int.from_bytes(value, "big") for value in values)
        return address, size

    def reg(self, node: int, parent: int) -> list[Region] | None:
        """The ranges of `reg`, as the parent's bus addresses them; None if they do not fit the cells."""
        address, size = self.cells(parent)
        rows = rows_of(self.value(node, "reg") or b"", address, size)
        if rows is None or address > 2 or size > 2:
            return None
        return [[start, start + length] for start, length in rows]

    def registers(self, path: tuple[int, ...]) -> Region | None:
        """The first range of `reg`, as the CPU addresses it."""
        *buses, node = path
        if not buses:
            return None
        regs = self.reg(node, buses[-1])
        if not regs:
            return None
        start, end = regs[0]
        size = end - start
        for above, bus in reversed(list(zip(buses, buses[1:]))):
            ranges = self.value(bus, "ranges")
            if ranges is None:
                return None
            if not ranges:
                continue
            child, length = self.cells(bus)
            parent, _ = self.cells(above)
            rows = rows_of(ranges, child, parent, length)
            if rows is None or max(child, parent, length) > 2:
                return None
            fitting = [to + start - base for base, to, window in rows if base <= start and start + size <= base + window and start < base + window]
            if not fitting:
                return None
            start = fitting[0]
        return [start, start + size] if start + size < TOP else None


def rows_of(value: bytes, *cells: int) -> list[list[int]] | None:
    """The numbers of a property in rows of so many cells each; None if it is not whole rows."""
    size = 4 * sum(cells)
    if size == 0 or len(value) % size:
        return None
    rows = []
    for at in range(0, len(value), size):
        row = []
        for width in cells:
            row.append(int.from_bytes(value[at : at + 4 * width], "big"))
            at += 4 * width
        rows.append(row)
    return rows


def read(blob: bytes) -> dict[str, Any]:
    """What the tree says, or {"error": ...}."""
    tree = Tree(blob)
    chosen = tree.child_named(0, "chosen")
    stdout = None if chosen is None else find_stdout(tree, chosen)
    nodes = tree.all_nodes()
    return {
        "memory": memory(tree),
        "reserved": reserved(tree),
        "initrd": None if chosen is None else initrd(tree, chosen),
        "bootargs": (None if chosen is None else tree.text(chosen, "bootargs")) or "",
        "stdout": stdout and tree.fdt.get_path(stdout[-1]),
        "stdout_registers": stdout and tree.registers(stdout),
        "console": console(tree, stdout, nodes),
        "pl031": first(tree, nodes, "arm,pl031"),
        "ecam": first(tree, nodes, "pci-host-ecam-generic"),
        "cpus": cpus(tree),
        "psci": psci(tree, nodes),
    }


def console(tree: Tree, stdout: tuple[int, ...] | None, nodes: list[tuple[int, ...]]) -> list[Any] | None:
    """Where the UART is that stdout-path names, and its family; else those of the first PL011."""
    if stdout and tree.available(stdout):
        names = (tree.value(stdout[-1], "compatible") or b"").decode().split("\0")
        family = next((UARTS[name] for name in names if name in UARTS), None)
        if family and (found := tree.registers(stdout)):
            return [*found, family]
    pl011 = first(tree, nodes, "arm,pl011")
    return [*pl011, "PL011"] if pl011 else None


def memory(tree: Tree) -> list[Region]:
    banks = [node for node in tree.children(0) if tree.text(node, "device_type") == "memory" and tree.available((node,))]
    return [region for node in banks for region in tree.reg(node, 0) or [] if region[0] != region[1]]


def reserved(tree: Tree) -> list[Any]:
    rows: list[Any] = []
    for i in range(tree.fdt.num_mem_rsv()):
        start, size = tree.fdt.get_mem_rsv(i)[-2:]
        rows.append([start, start + size, False])
    parent = tree.child_named(0, "reserved-memory")
    for node in [] if parent is None else tree.children(parent):
        if tree.available((node,)):
            no_map = tree.value(node, "no-map") is not None
            rows += [[*region, no_map] for region in tree.reg(node, parent) or [] if region[0] != region[1]]
    return rows


def initrd(tree: Tree, chosen: int) -> Region | None:
    bounds = [tree.value(chosen, f"linux,initrd-{name}") for name in ("start", "end")]
    start, end = (None if bound is None else int.from_bytes(bound, "big") for bound in bounds)
    return None if start is None or start == end else [start, end]


def find_stdout(tree: Tree, chosen: int) -> tuple[int, ...] | None:
    name = tree.text(chosen, "stdout-path")
    if name is None:
        return None
    # libfdt resolves an alias itself, and wants no options behind the path.
    node = tree.fdt.path_offset(name.split(":")[0], [libfdt.NOTFOUND, libfdt.BADPATH])
    return tree.path_to(node) if node >= 0 else None


def first(tree: Tree, nodes: list[tuple[int, ...]], compatible: str) -> Region | None:
    """The registers of the first that is compatible, switched on, and within the CPU's reach."""
    for path in nodes:
        if compatible in tree.compatible(path[-1]) and tree.available(path) and (found := tree.registers(path)):
            return found
    return None


def cpus(tree: Tree) -> list[Any]:
    parent = tree.child_named(0, "cpus")
    if parent is None:
        return []
    nodes = [node for node in tree.children(parent) if tree.text(node, "device_type") == "cpu" and tree.available((node,))]
    width, size = tree.cells(parent)
    addresses = [rows_of(tree.value(node, "reg") or b"", width, size) for node in nodes]
    return [[rows[0][0] if rows else None, enable_method(tree, node)] for node, rows in zip(nodes, addresses)]


def enable_method(tree: Tree, node: int) -> str | int | None:
    """`psci`, or where a CPU in a spin table looks."""
    method = tree.text(node, "enable-method")
    release = tree.value(node, "cpu-release-addr") or b""
    if method == "spin-table" and len(release) in (4, 8) and int.from_bytes(release, "big") % 8 == 0:
        return int.from_bytes(release, "big")
    return method if method == "psci" else None


def psci(tree: Tree, nodes: list[tuple[int, ...]]) -> str | None:
    methods = [tree.text(path[-1], "method") for path in nodes if tree.compatible(path[-1]) & PSCI and tree.available(path)]
    return next((method for method in methods if method in ("hvc", "smc")), None)
