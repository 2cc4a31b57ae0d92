"""vmwalk's commands for gdb: `source scripts/gdb/vmw.py`, or `make gdb`. `help vmw` lists them."""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from vmwgdb import commands, printers, target, tracing, vmalloc  # noqa: E402

commands.register_all()
tracing.register_all()
vmalloc.register_all()
printers.register_all()
try:
    target.load_low_symbols()
except Exception as error:
    print(f"vmw: no symbols for code before the MMU is on: {target.one_line(error)}")
