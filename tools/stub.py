"""Writes ppgrad/__init__.pyi from the public names, which a type checker cannot see load: ``make stub``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUB = ROOT / "ppgrad" / "__init__.pyi"


def stub() -> str:
    """What a type checker reads in place of ``ppgrad/__init__.py``."""
    import ppgrad

    rooms = sorted(name.removeprefix("ppgrad.") for name in ppgrad._PUBLIC)
    lines = ['"""Drawn by `make stub` from the public names."""', ""]
    lines += [f"from ppgrad import {room} as {room}" for room in rooms if "." not in room]
    for room, names in sorted(ppgrad._PUBLIC.items()):
        lines += [f"from {room} import {name} as {name}" for name in sorted(names) if name not in rooms]
    return "\n".join([*lines, "", "__version__: str", ""])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    STUB.write_text(stub())
    print(f"written to {STUB.relative_to(ROOT)}", file=sys.stderr)
