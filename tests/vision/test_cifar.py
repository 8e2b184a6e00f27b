"""CIFAR-10 in grey, from files in the format of its binary version."""

import numpy as np
import pytest
import torch

from tests.vision.cifar import batches
from tristate.core.errors import UserError
from tristate.vision.data.cifar import MEAN, STD, GreyCIFAR10, read_batch


def test_colours_become_grey_and_the_last_images_are_set_aside(tmp_path):
    root = batches(tmp_path / "cifar-10-batches-bin", 3)
    data = GreyCIFAR10(str(root), batch_size=4, val_size=5, seed=0)
    data.setup("fit")
    assert [len(data.parts[part]) for part in ("train", "val", "test")] == [10, 5, 3]
    raw = np.frombuffer((root / "test_batch.bin").read_bytes(), np.uint8).reshape(3, -1)
    red, green, blue = raw[1, 1:].reshape(3, 32, 32).astype(float)
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (3, 1, 32, 32) and labels.tolist() == raw[:, 0].tolist()
    grey = torch.from_numpy((0.299 * red + 0.587 * green + 0.114 * blue).round() / 255)
    torch.testing.assert_close(images[1, 0], ((grey - MEAN) / STD).float())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no file .*: unpack cifar-10-binary.tar.gz from https://www.cs.toronto.edu"),
        (b"", "whole records of 3,073 are wanted"),
        (b"\0" * 3072, "has 3,072 bytes"),
        (b"\x0a" + b"\0" * 3072, "holds the label 10"),
    ],
)
def test_wrong_files_are_named(content, sentence, tmp_path):
    path = tmp_path / "data_batch_1.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_batch(path)


def test_all_set_aside_is_refused(tmp_path):
    root = batches(tmp_path / "bin", 1)
    with pytest.raises(UserError, match="leaves none when 5 are set aside"):
        GreyCIFAR10(str(root), val_size=5).setup("fit")
