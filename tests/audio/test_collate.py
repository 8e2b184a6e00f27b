"""Padding changes nothing."""

import pickle

import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn

from tests.audio.sounds import noise
from tristate.audio.data.collate import Padded, collate
from tristate.core.mixers import MIXERS

LENGTHS = [1, 37, 20, 64]


@pytest.mark.parametrize("shape", [(), (5,)])
def test_clips_come_back_as_they_were(shape):
    clips = [torch.randn(*shape, length) for length in LENGTHS]
    batch = collate(clips)
    assert batch.values.shape == (4, *shape, 64) and batch.lengths.tolist() == LENGTHS
    assert len(batch) == 4
    for index, clip in enumerate(clips):
        assert batch[index].equal(clip)
        assert not batch.values[index, ..., clip.shape[-1] :].any()


def test_seq_idx_is_negative_just_where_there_is_padding():
    batch = collate([torch.ones(5, length) for length in LENGTHS], multiple=10)
    seq_idx = batch.seq_idx
    assert seq_idx.dtype == torch.int32 and seq_idx.shape == (4, 70)
    assert ((seq_idx >= 0).sum(1) == batch.lengths).all()
    assert (seq_idx >= 0).equal(batch.values[:, 0] == 1)


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_a_mixer_that_packs_gives_each_clip_what_it_gives_alone(name):
    mixer = MIXERS[name](16)
    if not mixer.packs:
        pytest.skip(f"{name} does not pack")
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    clips = [noise(16 * length, length).view(16, length) for length in LENGTHS]
    batch = collate(clips, multiple=8)
    with torch.no_grad():
        together = mixer(batch.values.mT, seq_idx=batch.seq_idx)
        for row, clip in zip(together, clips, strict=True):
            alone = mixer(clip.T[None])[0]
            torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-5)
            assert not row[len(alone) :].any()


def test_a_batch_travels():
    batch = collate([noise(5), noise(9)])
    moved = batch.to(torch.device("cpu"), non_blocking=True)
    copied = pickle.loads(pickle.dumps(batch))
    for other in (moved, copied):
        assert isinstance(other, Padded)
        assert other.values.equal(batch.values) and other.lengths.equal(batch.lengths)
    halved = batch.to(torch.float64)
    assert halved.values.dtype == torch.float64 and halved.lengths.dtype == torch.int64


def test_lightning_may_change_the_precision_of_a_batch():
    batch = apply_to_collection(collate([noise(5)]), torch.Tensor, lambda t: t.bfloat16())
    assert isinstance(batch, Padded) and batch.values.dtype == torch.bfloat16


@pytest.mark.parametrize("clips", [[], [torch.ones(2, 5), torch.ones(3, 5)]])
def test_clips_that_differ_otherwise_are_refused(clips):
    with pytest.raises(ValueError, match="differ in length only"):
        collate(clips)
