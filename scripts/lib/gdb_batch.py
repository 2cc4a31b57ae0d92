"""Runs inside gdb: the commands of GDBCMD, one after the other, up to the first that fails.

gdb itself would exit with status 0 whatever became of them.
"""

import os
import sys

import gdb  # type: ignore  # exists only in gdb


def run(commands: str) -> int:
    for command in filter(None, (part.strip() for part in commands.split(";"))):
        try:
            gdb.execute(command)
        except gdb.error as error:
            print(f"gdb: {command}: {error}", file=sys.stderr)
            return 1
    return 0


gdb.execute(f"quit {run(os.environ.get('GDBCMD', ''))}")
