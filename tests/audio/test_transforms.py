"""Augmentation follows from its generator; features are where they should be."""

import math

import pytest
import torch

from tests.audio.sounds import noise, pitch, tone
from tristate.audio.data.transforms import (
    MFCC,
    Chain,
    Fit,
    Gain,
    LogMel,
    Noise,
    Normalize,
    Pad,
    Shift,
    SpecAugment,
    Speed,
    Transform,
)

WAVES = {
    "fit": Fit(3000),
    "shift": Shift(500),
    "gain": Gain(6.0),
    "speed": Speed(20),
    "noise": Noise(10.0, 30.0),
    "chain": Chain([Speed(10), Shift(100), Gain(3.0), Fit(3500)]),
    "mel": Chain([Gain(6.0), LogMel(n_mels=40), SpecAugment()]),
}


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", WAVES)
def test_equal_generators_equal_clips(name):
    transform, wave = WAVES[name], noise(4000)
    before, state = wave.clone(), torch.get_rng_state()
    first, again = (transform(wave, generator(3)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    others = [transform(wave, generator(seed)) for seed in range(4, 8)]
    assert any(other.shape != first.shape or not other.equal(first) for other in others)
    assert wave.equal(before), "the clip itself was changed"
    assert torch.get_rng_state().equal(state), "the global generator was used"


@pytest.mark.parametrize("name", WAVES)
def test_without_a_generator_nothing_is_random(name):
    wave = noise(4000)
    assert WAVES[name](wave).equal(WAVES[name](wave))


@pytest.mark.parametrize("transform", [Shift(9), Gain(9.0), Speed(9), Noise(0, 1), SpecAugment()])
def test_augmentation_leaves_a_clip_alone_without_a_generator(transform):
    x = noise(400).view(20, 20)
    assert transform(x).equal(x)


@pytest.mark.parametrize("shape", [(100,), (3, 100)])
def test_fit_cuts_or_fills(shape):
    x = torch.arange(1.0, 1 + math.prod(shape)).view(shape)
    assert Fit(60, "start")(x).equal(x[..., :60])
    assert Fit(60, "middle")(x).equal(x[..., 20:80])
    firsts = {int(Fit(60)(x, generator(s)).flatten()[0]) for s in range(300)}
    assert firsts == set(range(1, 42))
    filled = Fit(130)(x, generator(0))
    assert filled[..., :100].equal(x) and not filled[..., 100:].any()
    assert Pad(2, 3)(x)[..., 2:-3].equal(x) and Pad(2, 3)(x).shape[-1] == 105


def test_shift_keeps_length_and_moves_by_at_most_so_many():
    x, moves = torch.arange(1.0, 51.0), set()
    for seed in range(200):
        y = Shift(5)(x, generator(seed))
        assert len(y) == 50
        by = int(y[20] - x[20])
        moves.add(by)
        assert y[6:44].equal(x[6:44] + by) and (y == 0).sum() == abs(by)
    assert moves == set(range(-5, 6))


def test_gain_stays_in_its_range():
    x = noise(100)
    ratios = torch.stack([(Gain(6.0)(x, generator(s)) / x).mean() for s in range(200)])
    decibels = 20 * ratios.log10()
    assert decibels.abs().max() <= 6.001 and decibels.min() < -5 and decibels.max() > 5


def test_speed_changes_length_and_pitch_alike():
    x = tone(1000, 1.0)
    for seed in range(5):
        y = Speed(20)(x, generator(seed))
        factor = len(x) / len(y)
        assert 0.79 < factor < 1.21
        assert pitch(y, 16_000) == pytest.approx(1000 * factor, abs=3)


def test_noise_has_its_ratio():
    x = tone(500, 1.0)
    for seed in range(5):
        added = Noise(20.0, 20.0)(x, generator(seed)) - x
        ratio = 10 * (x.square().mean() / added.square().mean()).log10()
        assert ratio.item() == pytest.approx(20, abs=0.3)
    assert Noise(0.0, 0.0)(torch.zeros(9), generator(0)).equal(torch.zeros(9))


def test_a_tone_is_in_its_mel_band():
    mel = LogMel(16_000, n_fft=512, hop_length=128, n_mels=40)
    bands = [int(mel(tone(f, 0.5)).mean(1).argmax()) for f in (300, 1000, 3000, 6000)]
    assert bands == sorted(set(bands))
    assert mel(tone(300, 0.5)).shape == (40, 1 + 8000 // 128)


@pytest.mark.parametrize("features", [LogMel(n_mels=40), MFCC(n_mfcc=13, n_mels=40)])
def test_a_clip_shorter_than_a_window_has_features(features):
    for length in (1, 50, 201):
        made = features(noise(length))
        assert made.shape[0] == features.n_features and made.isfinite().all()


def test_normalize():
    x = noise(300).view(3, 100)
    mean, std = x.mean(1).tolist(), x.std(1).tolist()
    y = Normalize(mean, std)(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.std(1), torch.ones(3))
    torch.testing.assert_close(Normalize([0.5], [2.0])(x[0]), (x[0] - 0.5) / 2)


def test_spec_augment_covers_bands_and_stretches_with_the_mean():
    x = noise(40 * 100).view(40, 100)
    y = SpecAugment(n_time=1, time=20, n_freq=1, freq=10)(x, generator(1))
    covered = y != x
    assert y.shape == x.shape and 0 < covered.sum() < covered.numel() / 2
    assert y[covered].unique().numel() <= 2
    stretch, band = covered.all(0).sum(), covered.all(1).sum()
    assert stretch <= 20 and band <= 10


def test_a_chain_tells_what_its_parts_make():
    chain = Chain([Gain(1.0), LogMel(8000, n_fft=256, hop_length=80, n_mels=30), SpecAugment()])
    assert (chain.sample_rate, chain.n_features, chain.hop_length) == (8000, 30, 80)
    assert (Chain([Gain(1.0)]).sample_rate, Chain([]).n_features) == (None, None)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Fit(0),
        lambda: Fit(5, "end"),  # pyright: ignore[reportArgumentType]
        lambda: Pad(-1),
        lambda: Shift(-1),
        lambda: Gain(-1.0),
        lambda: Speed(100),
        lambda: Noise(2, 1),
        lambda: Normalize([0.0], [0.0]),
        lambda: Normalize([0.0, 1.0], [1.0]),
        lambda: SpecAugment(share=0.0),
    ],
)
def test_what_makes_no_sense_is_refused(build):
    with pytest.raises(ValueError, match="got|must"):
        build()


def test_a_transform_says_what_it_does():
    with pytest.raises(NotImplementedError):
        Transform()(noise(3))
