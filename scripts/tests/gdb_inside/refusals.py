"""Runs inside gdb: commands that make no sense, from COMMANDS, a line each; what each comes to is told in a line."""

import os

import gdb  # type: ignore  # exists only in gdb

for command in os.environ["COMMANDS"].splitlines():
    try:
        gdb.execute(command, to_string=True)
        print(f"{command} => done")
    except gdb.error as error:
        print(f"{command} => {error}")
