"""Runs inside gdb: the functions of addresses, for bench_breakdown."""

import json
import os

import gdb  # type: ignore  # exists only in gdb


def functions_at(address: int) -> list[str]:
    """The functions that the instruction is of, inlined ones first; the last is the one whose symbol the address is under."""
    try:
        block = gdb.block_for_pc(address)
    except RuntimeError:
        block = None
    names = []
    while block is not None and not block.is_global and not block.is_static:
        if block.function is not None:
            names.append(block.function.print_name)
        block = block.superblock
    if not names:
        # Assembly, or the compiler's own: the symbol table knows.
        symbol = gdb.execute(f"info symbol {address:#x}", to_string=True).split(" + ")[0].split(" in section")[0].strip()
        names = [symbol]
    return names


def line_of(address: int) -> str:
    """The line that the instruction comes from, as `file:line`.

    Where it comes from a library: the line at which the innermost function of this project begins.
    """
    found = gdb.find_pc_line(address)
    if found.symtab and not found.symtab.filename.startswith("/"):
        return f"{found.symtab.filename}:{found.line}"
    try:
        block = gdb.block_for_pc(address)
    except RuntimeError:
        block = None
    while block is not None and not block.is_global and not block.is_static:
        function = block.function
        if function is not None and function.symtab and not function.symtab.filename.startswith("/"):
            return f"{function.symtab.filename}:{function.line}"
        block = block.superblock
    return "?"


with open(os.environ["BREAKDOWN_ASKED"]) as asked:
    addresses = json.load(asked)
with open(os.environ["BREAKDOWN_ANSWER"], "w") as answer:
    json.dump({address: [functions_at(address), line_of(address)] for address in addresses}, answer)
