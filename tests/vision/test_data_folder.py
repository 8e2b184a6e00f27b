"""Folders and tar files of images, and what is refused in them."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from tristate.core.errors import UserError
from tristate.vision.data.files import find_images
from tristate.vision.data.folder import ImageFolder

# timm keeps its tar files open to the end.
OPEN = "ignore::pytest.PytestUnraisableExceptionWarning"

COLOURS = {"n2": (200, 30, 30), "n10": (30, 200, 30), "n1": (30, 30, 200)}


def write_images(root, parts=("train", "val"), count=4):
    """Images of one colour a class, with a little noise."""
    for part in parts:
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = np.random.default_rng(i).integers(-20, 20, (40, 50, 3))
                pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.{'png' if i == 1 else 'jpg'}")
    return root


def make(root, **options):
    return ImageFolder(str(root), **{"image_size": 16, "batch_size": 5, "workers": 0, **options})


def read(loader):
    batches = list(loader)
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


def test_classes_and_images(tmp_path):
    data = make(write_images(tmp_path), mean=(0.0,) * 3, std=(1.0,) * 3)
    # In natural order, as timm sorts.
    assert data.facts["class_names"] == ["n1", "n2", "n10"]
    images, labels = read(data.val_dataloader())
    assert images.shape == (12, 3, 16, 16) and labels.bincount().tolist() == [4, 4, 4]
    for label, name in enumerate(data.facts["class_names"]):
        colour = images[labels == label].mean((0, 2, 3)) * 255
        torch.testing.assert_close(colour, torch.tensor(COLOURS[name]).float(), atol=8, rtol=0)


def test_without_test_images_the_validation_part_is_tested(tmp_path):
    data = make(write_images(tmp_path))
    assert torch.equal(
        *(read(loader)[0] for loader in (data.test_dataloader(), data.val_dataloader()))
    )
    write_images(tmp_path, ["test"], count=1)
    assert len(read(make(tmp_path).test_dataloader())[0]) == 3


@pytest.mark.parametrize("repeats", [1, 3])
def test_augmentation_follows_from_the_seed(tmp_path, repeats):
    options = {
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": 0.5,
        "interpolation": "random",
        "repeats": repeats,
        "seed": 4,
    }
    write_images(tmp_path)
    first, again = (read(make(tmp_path, **options).train_dataloader()) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    in_workers = read(make(tmp_path, workers=2, **options).train_dataloader())
    assert torch.equal(first[0], in_workers[0])
    other = read(make(tmp_path, **{**options, "seed": 5}).train_dataloader())
    assert not torch.equal(first[0], other[0])
    assert len({image.numpy().tobytes() for image in first[0]}) == len(first[0])


def tar(folder, path):
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.add(file, file.relative_to(folder))


@pytest.mark.filterwarnings(OPEN)
def test_a_tar_file_holds_the_same(tmp_path):
    root, packed = write_images(tmp_path / "a"), tmp_path / "b"
    packed.mkdir()
    for part in ("train", "val"):
        tar(root / part, packed / f"{part}.tar")
    before = set(packed.iterdir())
    plain, tarred = make(root, seed=1), make(packed, seed=1)
    assert plain.facts == tarred.facts
    for loader in ("train_dataloader", "val_dataloader"):
        (x, y), (u, v) = read(getattr(plain, loader)()), read(getattr(tarred, loader)())
        assert torch.equal(y, v) and torch.equal(x, u)
    assert set(packed.iterdir()) == before


@pytest.mark.filterwarnings(OPEN)
def test_a_tar_file_for_each_class(tmp_path):
    root, packed = write_images(tmp_path / "a"), tmp_path / "b"
    for part in ("train", "val"):
        (packed / part).mkdir(parents=True)
        for folder in (root / part).iterdir():
            tar(folder, packed / part / f"{folder.name}.tar")
    data = make(packed, workers=1)
    assert data.facts["class_names"] == ["n1", "n2", "n10"]
    assert read(data.val_dataloader())[1].bincount().tolist() == [4, 4, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named(tmp_path, workers):
    bad = write_images(tmp_path) / "train" / "n2" / "0.jpg"
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(UserError, match="damaged") as error:
        read(make(tmp_path, workers=workers, batch_size=12).train_dataloader())
    assert str(bad) in str(error.value) and "\n" not in str(error.value)
    assert "remove or replace it" in str(error.value)


def test_what_is_no_image_is_named(tmp_path):
    bad = write_images(tmp_path) / "val" / "n2" / "0.jpg"
    bad.write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"val/n2/0\.jpg is no image"):
        read(make(tmp_path).val_dataloader())


def test_an_empty_class_folder_is_named(tmp_path):
    (write_images(tmp_path) / "train" / "n3").mkdir()
    with pytest.raises(UserError, match=r"train/n3 holds no image .*: put images there or remove"):
        _ = make(tmp_path).facts


def test_an_empty_class_folder_in_validation_is_named(tmp_path):
    (write_images(tmp_path) / "val" / "n3").mkdir()
    with pytest.raises(UserError, match="val/n3 holds no image"):
        make(tmp_path).val_dataloader()


def test_a_class_that_training_lacks_is_named(tmp_path):
    folder = write_images(tmp_path) / "val" / "n3"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    with pytest.raises(UserError, match="'n3', which is no class of"):
        make(tmp_path).val_dataloader()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere must hold train/CLASS/IMAGE"):
        _ = make(tmp_path / "nowhere").facts
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="it has images: name the folder"):
        _ = make(tmp_path).facts
    write_images(tmp_path, ["train"])
    with pytest.raises(UserError, match="must hold val/CLASS/IMAGE"):
        make(tmp_path).val_dataloader()


@pytest.mark.parametrize("content", [b"", b"no tar", None])
def test_a_bad_tar_file_is_named(tmp_path, content):
    path = tmp_path / "train.tar"
    if content is None:
        tar(write_images(tmp_path / "a") / "train", path)
        content = path.read_bytes()[:3000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train\.tar .* is no tar file or cut short"):
        read(make(tmp_path).train_dataloader())


def test_predicts_on_files_and_folders(tmp_path):
    write_images(tmp_path)
    path = [str(tmp_path / "val" / "n1"), str(tmp_path / "val" / "n2" / "0.jpg")]
    loader = make(tmp_path, predict_path=path, batch_size=9).predict_dataloader()
    ((images, names),) = list(loader)
    assert images.shape == (5, 3, 16, 16)
    assert list(names) == [
        *(f"{path[0]}/{name}" for name in ("0.jpg", "1.png", "2.jpg", "3.jpg")),
        path[1],
    ]
    ((_, named),) = list(make(tmp_path, batch_size=20).predict_dataloader())
    assert named[0] == "test[0]" and len(named) == 12


def test_find_images_refuses_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no file or folder"):
        find_images(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="there is no image"):
        find_images(str(tmp_path))


@pytest.mark.filterwarnings(OPEN)
def test_a_tar_file_without_images_is_named(tmp_path):
    folder = tmp_path / "a" / "n1"
    folder.mkdir(parents=True)
    (folder / "readme.txt").write_text("nothing here")
    tar(tmp_path / "a", tmp_path / "train.tar")
    with pytest.raises(UserError, match=r"train\.tar .*holds no images"):
        _ = make(tmp_path).facts
