"""Rebuilds the embedded part of Fashion-MNIST from the full set."""

import argparse
import subprocess
import tempfile
from pathlib import Path

import torch

from tristate.vision.data.idx import find_idx, read_idx, write_idx

PACKAGE = "dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
PARTS = {"train": 1000, "t10k": 200}  # images of each class
CLASSES = 10


def build(full: Path, out: Path) -> None:
    """Write the first images of each class in ``full``, in the order of the files, to ``out``."""
    for part, count in PARTS.items():
        images = read_idx(find_idx(full, f"{part}-images-idx3-ubyte"))
        labels = read_idx(find_idx(full, f"{part}-labels-idx1-ubyte"))
        firsts = [(labels == label).nonzero()[:count, 0] for label in range(CLASSES)]
        chosen = torch.cat(firsts).sort().values
        write_idx(out / f"{part}-images-idx3-ubyte.gz", images[chosen])
        write_idx(out / f"{part}-labels-idx1-ubyte.gz", labels[chosen])


def main() -> None:
    """Fetch the Debian package, or take the folder given, and build."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} Without FULL the Debian package {PACKAGE} is fetched with "
        "apt-get and unpacked (not installed)."
    )
    parser.add_argument("full", nargs="?", type=Path, help="folder of the full set's IDX files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    args = parser.parse_args()
    if args.full:
        build(args.full, args.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        build(Path(folder) / FOLDER, args.out)


if __name__ == "__main__":
    main()
