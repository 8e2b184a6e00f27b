"""Tiny files in the format of CIFAR-10's binary version."""

import numpy as np


def batches(root, count):
    """``count`` images a file: the label, then red, green and blue, row by row."""
    root.mkdir()
    random = np.random.default_rng(0)
    for name in [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]:
        labels = random.integers(10, size=(count, 1), dtype=np.uint8)
        colours = random.integers(256, size=(count, 3 * 32 * 32), dtype=np.uint8)
        (root / f"{name}.bin").write_bytes(np.concatenate([labels, colours], 1).tobytes())
    return root
