"""Fashion-MNIST and the patches: what is in them, how they are drawn, what is refused."""

import gzip

import pytest
import torch

from tristate.core.errors import UserError
from tristate.vision.data import fashion
from tristate.vision.data.fashion import FashionMNIST
from tristate.vision.data.fashion_mnist.build import build
from tristate.vision.data.idx import find_idx, read_idx, write_idx
from tristate.vision.data.patches import SPANS, RGBPatches
from tristate.vision.data.tensors import TensorImages


@pytest.fixture(scope="module")
def embedded():
    data = FashionMNIST(seed=1)
    data.setup("fit")
    return data


def test_the_embedded_part_is_balanced(embedded):
    for part, each in (("train", 950), ("val", 50), ("test", 200)):
        assert embedded.parts[part].labels.bincount().tolist() == [each] * 10


def test_its_pixels_have_the_stated_mean_and_deviation():
    images = read_idx(find_idx(fashion.EMBEDDED, "train-images-idx3-ubyte")).double() / 255
    assert float(images.mean()) == pytest.approx(fashion.MEAN, abs=5e-5)
    assert float(images.std()) == pytest.approx(fashion.STD, abs=5e-5)


def test_no_image_is_in_two_parts(embedded):
    def keys(part):
        images = next(iter_all(embedded.loader(embedded.parts[part])))[0]
        return {image.numpy().tobytes() for image in images}

    plain = FashionMNIST(seed=1, shift=0, flip=False)
    plain.setup("fit")
    train = {x.numpy().tobytes() for x in next(iter_all(plain.loader(plain.parts["train"])))[0]}
    assert not train & keys("val") and not train & keys("test")


def iter_all(loader):
    loader.batch_size = len(loader.source)
    return iter(loader)


def test_facts_fit_the_batches(embedded):
    facts = embedded.facts
    images, labels = next(iter(embedded.train_dataloader()))
    assert list(images.shape[1:]) == [facts["in_chans"], *facts["input_size"]]
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert len(facts["class_names"]) == 10


def test_epochs_follow_from_the_seed(embedded):
    def first(data, epoch):
        loader = data.train_dataloader()
        loader.set_epoch(epoch)
        return next(iter(loader))[0]

    again = FashionMNIST(seed=1)
    again.setup("fit")
    other = FashionMNIST(seed=2)
    other.setup("fit")
    assert torch.equal(first(embedded, 4), first(again, 4))
    assert not torch.equal(first(embedded, 4), first(embedded, 5))
    assert not torch.equal(first(embedded, 4), first(other, 4))


def test_flip_and_shift_move_each_image_as_a_whole():
    image = torch.randint(1, 256, (1, 1, 5, 7), dtype=torch.uint8)
    source = TensorImages(
        image, torch.zeros(1).long(), mean=[0.0], std=[1 / 255], shift=1, flip=True
    )
    batch, _ = source.batch(torch.zeros(400).long(), torch.Generator().manual_seed(0))
    expected = set()
    for mirrored in (image, image.flip(3)):
        wide = torch.nn.functional.pad(mirrored.float(), (1, 1, 1, 1))[0]
        expected |= {
            wide[:, y : y + 5, x : x + 7].numpy().tobytes() for y in range(3) for x in range(3)
        }
    assert {moved.round().numpy().tobytes() for moved in batch} == expected


def fake_set(folder, each=3, size=28):
    """A full set of random images, ``each`` of a class in training and test."""
    folder.mkdir(exist_ok=True)
    for part in ("train", "t10k"):
        labels = torch.arange(10).repeat(each).to(torch.uint8)
        images = torch.randint(256, (len(labels), size, size), dtype=torch.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def test_reads_a_folder_plain_or_compressed(tmp_path):
    data = FashionMNIST(str(fake_set(tmp_path / "full")), val_size=10)
    data.setup("fit")
    assert [len(data.parts[part]) for part in ("train", "val", "test")] == [20, 10, 30]
    assert len(next(iter(data.train_dataloader()))[0]) == 20


def test_building_takes_the_first_of_each_class_and_the_same_bytes(tmp_path, monkeypatch):
    full = fake_set(tmp_path / "full", each=5)
    module = "tristate.vision.data.fashion_mnist.build.PARTS"
    monkeypatch.setattr(module, {"train": 2, "t10k": 1})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build(full, tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in fashion.EMBEDDED.glob("*.gz"))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    images = read_idx(tmp_path / "a" / "train-images-idx3-ubyte.gz")
    assert torch.equal(images, read_idx(full / "train-images-idx3-ubyte")[:20])


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 2)])
def test_idx_comes_back(tmp_path, suffix, shape):
    array = torch.randint(256, shape, dtype=torch.uint8)
    write_idx(tmp_path / f"x{suffix}", array)
    assert torch.equal(read_idx(tmp_path / f"x{suffix}"), array)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file"),
        (b"", "no IDX file"),
        (b"PK\3\4", "no IDX file"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "no IDX file of bytes"),
        (b"\0\0\x08\1\0\0\0\5abc", r"promises \[5\] values and holds 3"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\3abc", mtime=0)[:-6], "damaged"),
    ],
)
def test_a_bad_idx_file_is_named(tmp_path, content, words):
    path = tmp_path / "x-idx1-ubyte"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_a_wrong_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="neither train-images"):
        FashionMNIST(str(tmp_path)).setup("fit")
    with pytest.raises(UserError, match="28x28"):
        FashionMNIST(str(fake_set(tmp_path / "small", size=8)), val_size=10).setup("fit")
    with pytest.raises(UserError, match="that leaves none"):
        FashionMNIST(str(fake_set(tmp_path / "few")), val_size=30).setup("fit")


@pytest.mark.parametrize("wrong", [{"val_size": 7}, {"shift": -1}, {"batch_size": 0}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FashionMNIST(**wrong)


@pytest.fixture(scope="module")
def patches():
    data = RGBPatches(seed=1, train_size=64, val_size=32, test_size=48, flip=False)
    data.setup("fit")
    return data


def test_patches_fit_their_facts(patches):
    images, labels = next(iter(patches.train_dataloader()))
    assert list(images.shape) == [64, patches.facts["in_chans"], *patches.facts["input_size"]]
    assert labels.bincount().tolist() == [4] * len(patches.facts["class_names"])
    assert images.min() >= -1 and images.max() <= 1


def test_training_patches_are_fresh_and_others_are_not(patches):
    def draw(loader, epoch):
        loader.set_epoch(epoch)
        return next(iter(loader))[0]

    assert not torch.equal(draw(patches.train_dataloader(), 0), draw(patches.train_dataloader(), 1))
    assert torch.equal(draw(patches.val_dataloader(), 0), draw(patches.val_dataloader(), 1))
    other = RGBPatches(seed=2, train_size=64, val_size=32, test_size=48)
    other.setup("fit")
    assert torch.equal(draw(patches.test_dataloader(), 0), draw(other.test_dataloader(), 0))


def test_patches_stay_in_their_columns(patches):
    # Each picture becomes a ramp whose value tells the column.
    ramps = RGBPatches(seed=1, train_size=640, val_size=640, test_size=640)
    ramps.pictures = [
        torch.linspace(0, 255, p.shape[2]).round().to(torch.uint8).expand(3, 60, -1)
        for p in patches.pictures
    ]
    for part, (low, high) in SPANS.items():
        source = ramps.patches(part)
        images, _ = source.batch(torch.arange(640), torch.Generator().manual_seed(0))
        columns = images / 2 + 0.5
        assert columns.min() >= low - 0.01 and columns.max() <= high + 0.01


@pytest.mark.parametrize("wrong", [{"size": 50}, {"test_size": 0}])
def test_patches_refuse_sizes_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RGBPatches(**wrong)
