"""Fetches the genome of Escherichia coli K-12 MG1655 again."""

import argparse
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "ragout-examples"
FILE = "usr/share/doc/ragout/examples/E.Coli/references/MG1655-K12.fasta.gz"
OUT = "MG1655-K12.fa.gz"


def main() -> None:
    """Fetch the Debian package and copy the file, byte for byte."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} It comes from the Debian package {PACKAGE}, which is fetched with "
        "apt-get and unpacked (not installed)."
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        (args.out / OUT).write_bytes((Path(folder) / FILE).read_bytes())


if __name__ == "__main__":
    main()
