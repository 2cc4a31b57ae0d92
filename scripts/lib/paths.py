"""Where things lie: the checkout, what is built, and the programs that scripts/setup unpacked."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build_folder() -> Path:
    """Returns the folder that BUILD names, build/ if it names none; below the checkout if relative."""
    folder = Path(os.environ.get("BUILD") or "build")
    return folder if Path.cwd() == ROOT else ROOT / folder


BUILD = build_folder()


def program(name: str) -> str:
    """Returns what to run for `name`: what scripts/setup unpacked, else what PATH has."""
    unpacked = BUILD / "private" / "bin" / name
    return str(unpacked.absolute()) if unpacked.exists() else name
