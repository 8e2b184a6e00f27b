"""Rebuilds the embedded Mandarin syllables from Debian's gcin-voice."""

import argparse
import csv
import gzip
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "gcin-voice"
FOLDER = "usr/share/gcin-voice/ogg"
VOICE = "5.ogg"
ARCHIVE, MANIFEST = "voice5.tar.gz", "syllables.csv.gz"
INITIALS = "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙ"
COLUMNS = ("path", "base", "tone", "initial", "final")
NEUTRAL = "1"


def describe(folder: str) -> tuple[str, int, str, str] | None:
    """Base syllable, tone, initial and final of the clips in ``folder``; None for a neutral tone.

    The name is the syllable in zhuyin and a digit for its tone: none for the first, 1 for neutral.
    """
    digit = folder[-1] if folder[-1].isdecimal() else ""
    if digit == NEUTRAL:
        return None
    base = folder.removesuffix(digit)
    initial = base[0] if base[0] in INITIALS else ""
    return base, int(digit or 1), initial, base.removeprefix(initial)


def build(full: Path, out: Path) -> None:
    """Write the archive and the manifest of the clips in ``full`` to ``out``."""
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    content = io.BytesIO()
    # GNU's format keeps these names in the header block, where pax adds two blocks a file.
    with tarfile.open(None, "w", content, format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        for file in sorted(full.glob(f"*/{VOICE}")):
            described = describe(file.parent.name)
            if described is None:
                continue
            # The default owner, mode and time: the bytes follow from the clips alone.
            member = tarfile.TarInfo(f"{file.parent.name}/{VOICE}")
            member.size = file.stat().st_size
            with file.open("rb") as clip:
                tar.addfile(member, clip)
            rows.writerow((f"{ARCHIVE}/{member.name}", *described))
    _pack(out / ARCHIVE, content.getvalue())
    _pack(out / MANIFEST, table.getvalue().encode())


def _pack(file: Path, content: bytes) -> None:
    # Neither name nor time in it: the bytes follow from the content, and from zlib.
    with file.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(content)


def main() -> None:
    """Fetch the Debian package, or take the folder given, and build."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} Without FULL the Debian package {PACKAGE} is fetched with "
        "apt-get (run apt-get update before) and unpacked (not installed)."
    )
    parser.add_argument("full", nargs="?", type=Path, help=f"the package's folder {FOLDER}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    args = parser.parse_args()
    if args.full:
        if not any(args.full.glob(f"*/{VOICE}")):
            parser.error(f"there is no */{VOICE} in {args.full}")
        build(args.full, args.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        build(Path(folder) / FOLDER, args.out)


if __name__ == "__main__":
    main()
