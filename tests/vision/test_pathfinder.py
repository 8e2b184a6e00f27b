"""Pathfinder: every picture has one reading, and nothing but the reading tells the label."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import transform

from tristate.vision.data.dashes import pictures
from tristate.vision.data.pathfinder import STYLES, Pathfinder, draw, style_of

COUNT = {32: 300, 64: 100, 128: 40}
UP = 4  # how much finer the solver looks than the pixels


@pytest.fixture(scope="module", params=list(STYLES))
def sample(request):
    style = STYLES[request.param]
    joined = np.arange(COUNT[style.side]) % 2 == 0
    return style, joined, *pictures(style, joined, 7)


def solve(image, style):
    """Whether the discs lie on one path: by what is near, from the picture alone."""
    fine = transform.rescale(image / 255, UP, order=1, mode="edge")
    bright = fine > 0.3
    inside: Any = ndimage.distance_transform_edt(bright)
    inner = inside / UP
    wide = inner > (2 * style.radius + style.thickness) / 3
    touching = np.ones((3, 3))
    labelled: Any = ndimage.label(wide, touching)
    discs, n_discs = labelled
    assert n_discs == 2, "the discs are not to be told from the dashes"
    # Half way from the gaps, which are bridged, to the clearance, which is not; bright is a little
    # more than the dash.
    reach = (style.gap + style.clearance) / 4 - (style.thickness / 2 + 0.2)
    far: Any = ndimage.distance_transform_edt(~bright)
    grown = far / UP < reach
    parts: Any = ndimage.label(grown, touching)
    one, other = (set(parts[0][discs == disc].tolist()) for disc in (1, 2))
    return one == other


def test_a_plain_algorithm_reads_every_label(sample):
    style, joined, images, _, _ = sample
    read = [solve(image, style) for image in images]
    assert read == joined.tolist()


def test_paths_keep_their_distance(sample):
    style, _, _, _, paths = sample
    shares = np.linspace(0, 1, 8)[:, None, None]
    for dashes in paths[:20]:
        lengths = [style.contour] * 2 + [style.distractor] * style.n_distractors
        lines = np.split(dashes, np.cumsum(lengths)[:-1])
        lines = [line for line in lines if not np.isnan(line).any()]
        points = [(line[None, :, 0] * (1 - shares) + line[None, :, 1] * shares) for line in lines]
        points = [p.reshape(-1, 2) for p in points]
        for i, one in enumerate(points):
            assert one.min() > 0 and one.max() < style.side - 1
            for other in points[:i]:
                nearest = np.hypot(*(one[:, None] - other).transpose(2, 0, 1)).min()
                # What is looked at are points along the lines, not the lines.
                assert nearest > style.clearance - 0.1 > style.gap + 0.9
        for line in lines:
            np.testing.assert_allclose(np.hypot(*(line[:, 1] - line[:, 0]).T), style.dash)
            np.testing.assert_allclose(np.hypot(*(line[1:, 0] - line[:-1, 1]).T), style.gap)


def test_nothing_simple_tells_the_label(sample):
    style, joined, images, discs, _ = sample
    tip = discs[:, 0] - discs[:, 1]
    told = {
        "brightness": images.mean((1, 2)),
        "bright pixels": (images > 128).mean((1, 2)),
        "distance of the discs": np.hypot(*tip.T),
        "distance of the discs from the middle": np.hypot(*(discs - style.side / 2).T).sum(0),
        "angle": np.arctan2(*np.abs(tip).T),
    }
    for name, values in told.items():
        # Chance that a picture of one label has more of it than one of the other.
        more = (values[joined][:, None] > values[~joined]).mean()
        # Three deviations of this chance, where the labels don't count.
        tolerance = 3 * ((len(joined) + 1) / (3 * len(joined) ** 2)) ** 0.5
        assert abs(more - 0.5) < tolerance, (name, more, tolerance)


def test_the_same_pictures_have_either_label():
    style = STYLES[32]
    one = pictures(style, np.array([True]), 3)
    other = pictures(style, np.array([False]), 3)
    np.testing.assert_array_equal(one[2], other[2])
    assert not np.array_equal(one[1], other[1])
    distances = [np.hypot(*(discs[0, 0] - discs[0, 1])) for _, discs, _ in (one, other)]
    assert abs(distances[0] - distances[1]) < style.alike


def test_half_are_joined_and_a_seed_draws_the_same():
    images, labels = draw(STYLES[32], 41, 5)
    assert images.shape == (41, 1, 32, 32) and int(labels.sum()) in (20, 21)
    for part, again in zip((images, labels), draw(STYLES[32], 41, 5), strict=True):
        assert torch.equal(part, again)
    assert not torch.equal(images, draw(STYLES[32], 41, 6)[0])


def test_training_sees_new_pictures_and_validation_the_same():
    data = Pathfinder(32, n_train=8, n_val=6, n_test=4, batch_size=4, seed=1)
    data.setup("fit")
    val, train = data.val_dataloader(), data.train_dataloader()
    first, labels = next(iter(val))
    assert first.shape == (4, 1, 32, 32) and first.min() == -1 and first.max() <= 1
    assert torch.equal(first, next(iter(val))[0]) and labels.dtype == torch.int64
    before = next(iter(train))[0]
    train.set_epoch(1)
    assert not torch.equal(before, next(iter(train))[0])
    data.setup("test")
    assert len(data.test_dataloader().source) == 4


def test_shorter_paths_are_easier():
    style = style_of(32, 6)
    assert (style.contour, style.distractor) == (6, 2)
    joined = np.arange(10) % 2 == 0
    images, _, paths = pictures(style, joined, 1)
    assert paths.shape == (10, 2 * 6 + 5 * 2, 2, 2)
    assert [solve(image, style) for image in images] == joined.tolist()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"side": 48}, "side is 32, 64, 128 pixels, got 48"),
        ({"contour": 2}, "contour is from 3 to 14 dashes, got 2"),
        ({"contour": 15}, "got 15"),
        ({"n_val": 0}, "must be positive"),
    ],
)
def test_what_can_not_be_drawn_is_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pathfinder(**wrong)
