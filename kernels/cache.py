"""Where what is compiled or measured is kept between processes, and what it depends on."""

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

import tristate.kernels


@cache
def folder(name: str, stamp: str) -> Path:
    """A folder of this user's alone: in ``$XDG_CACHE_HOME``, ``~/.cache`` or a temporary folder.

    Args:
        name: of what is kept there.
        stamp: of what it depends on; see :func:`sources`.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    shared = Path(tempfile.gettempdir()) / f"tristate-{user}"
    for place in (Path(home) / "tristate", shared):
        place = place / name / stamp
        if is_usable(place) and _is_own(place):
            return place
    return Path(tempfile.mkdtemp(prefix="tristate-"))


def is_usable(place: Path) -> bool:
    """Whether the folder is there, or now is, and can be written to."""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _is_own(place: Path) -> bool:
    # What is read from it is run: in a shared temporary folder somebody else may have made it.
    return not hasattr(os, "getuid") or all(
        part.stat().st_uid == os.getuid() for part in (place, place.parent, place.parent.parent)
    )


@cache
def sources(*versions: str, without: str = "") -> str:
    """A hash of the kernels' source files and of the versions of what compiles them.

    Args:
        versions: of compilers.
        without: a word; files whose path has it are left out.
    """
    root = Path(tristate.kernels.__path__[0])
    digest = hashlib.sha256(" ".join(versions).encode())
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not without or without not in name:
            digest.update(name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
