"""What the models of clips promise: padding changes nothing, bands are bands, timm's surface."""

import math
from typing import Any

import pytest
import torch
from timm.models import group_parameters
from torch import nn
from torch.nn import functional as F

import tristate
from tests.audio.sounds import noise, tone
from tristate.audio.data.collate import collate
from tristate.audio.models.classifier import AudioClassifier
from tristate.audio.models.fronts import FRONTS, Holes, standardise
from tristate.audio.models.gabor import GaborBank
from tristate.core.mixers import MIXERS

# Front ends with arguments for short clips, and the rows that they take.
CASES = {
    "wave": ("gabor", {"n_bands": 8, "window": 65, "stride": 16, "pool": 3}, 1),
    "raw": ("conv", {"kernel_size": 7, "stride": 5}, 1),
    "columns": ("conv", {"standardise": True}, 6),
}
LENGTHS = [1, 137, 240, 48]


def make(case="wave", **options):
    front, front_args, in_chans = CASES[case]
    settings = {"num_classes": 5, "d_model": 16, "n_layers": 2, **options}
    model = AudioClassifier(front, front_args, in_chans, **settings)
    if isinstance(model.head, nn.Linear):
        nn.init.normal_(model.head.weight)
    return model


def clips(case):
    rows = CASES[case][2]
    return [noise(rows * n, n).view(rows, n) if rows > 1 else noise(n, n) for n in LENGTHS]


def test_every_front_end_is_tried():
    assert {front for front, _, _ in CASES.values()} == set(FRONTS)


@pytest.mark.parametrize("mixer", sorted(MIXERS))
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pool", ["avg", "max", "last"])
def test_a_padded_batch_gives_each_clip_what_it_gives_alone(case, mixer, pool):
    if not MIXERS[mixer](16).packs:
        pytest.skip(f"{mixer} does not pack")
    model = make(case, mixer=mixer, global_pool=pool).eval()
    alone = clips(case)
    batch = collate(alone, multiple=7)
    # Whatever stands behind the end of a clip.
    index = batch.seq_idx if batch.values.ndim == 2 else batch.seq_idx[:, None]
    values = batch.values.where(index >= 0, 1e2 * torch.randn_like(batch.values))
    with torch.no_grad():
        together = model(values, batch.seq_idx)
        for clip, logits in zip(alone, together, strict=True):
            torch.testing.assert_close(model(clip[None])[0], logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_clip_has_a_token_for_each_stride_begun(case):
    model = make(case)
    batch = collate(clips(case))
    tokens, seq_idx = model.embed(batch.values, batch.seq_idx)
    assert seq_idx is not None
    stride = model.front.stride
    assert (seq_idx >= 0).sum(1).tolist() == [math.ceil(n / stride) for n in LENGTHS]
    assert tokens.shape == (4, math.ceil(240 / stride), 16)
    assert model.embed(batch.values)[1] is None


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_gets_a_gradient(case):
    model = make(case).train()
    batch = collate(clips(case))
    loss = F.cross_entropy(model(batch.values, batch.seq_idx), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 5000.0])
def test_a_tone_lights_the_band_at_its_frequency(frequency):
    bank = GaborBank(40, 16_000)
    energy = bank(tone(frequency, 0.5)[None, None])[0]
    assert energy.shape == (40, 50)
    loudest = int(energy[:, 10:40].mean(1).argmax())
    centres = bank.log_centre.detach().exp() * 16_000
    assert float(centres[loudest]) == pytest.approx(frequency, rel=0.2)
    # A band's filter passes its centre with a factor of a half: a sine is two exponentials.
    wave = 0.5 * torch.sin(
        2 * math.pi * float(bank.log_centre[20].detach().exp()) * torch.arange(8000.0)
    )
    assert bank(wave[None, None])[0, 20, 25].item() == pytest.approx(0.25 * 0.25, rel=0.02)


def test_the_bands_begin_as_those_of_a_mel_spectrogram():
    bank = GaborBank(3, 16_000, f_min=100.0, f_max=4000.0)
    mel = [2595 * math.log10(1 + f / 700) for f in (100.0, 4000.0)]
    steps = torch.linspace(mel[0], mel[1], 5)[1:-1]
    centres = bank.log_centre.exp() * 16_000
    torch.testing.assert_close(2595 * (1 + centres / 700).log10(), steps)


def test_loudness_does_not_count():
    model = make("wave").eval()
    clip = 3 * noise(4000)
    with torch.no_grad():
        torch.testing.assert_close(model(clip[None]), model(0.5 * clip[None]), atol=1e-2, rtol=1e-2)


def test_standardised_clips_have_mean_0_and_deviation_1():
    batch = collate([3 + 2 * torch.randn(4, n) for n in (5, 40)])
    done = standardise(batch.values, batch.seq_idx)
    for row, length in zip(done, (5, 40), strict=True):
        kept = row[:, :length]
        assert kept.mean().abs() < 1e-5 and abs(kept.std(correction=0) - 1) < 1e-4
        assert not row[:, length:].any()
    assert standardise(torch.full((1, 2, 3), 7.0)).abs().max() < 1e-5, "silence is no division by 0"


def test_holes_are_made_in_training_only_and_no_larger_than_said():
    holes = Holes(n_time=1, time=4, n_freq=1, freq=3)
    x = torch.ones(200, 10, 20)
    assert holes.eval()(x) is x
    holed = holes.train()(x) == 0
    wide, high = holed.all(1).sum(1), holed.all(2).sum(1)
    assert set(wide.tolist()) == {0, 1, 2, 3, 4} and set(high.tolist()) == {0, 1, 2, 3}
    torch.manual_seed(3)
    first = holes(x)
    torch.manual_seed(3)
    assert holes(x).equal(first) and (x == 1).all()
    # Each is one piece.
    edges = holed.all(1).int().diff(dim=1, prepend=torch.zeros(200, 1, dtype=torch.int32))
    assert ((edges == 1).sum(1) <= 1).all()


NAMES = tristate.list_models("audio_*")


def create(name, **options) -> Any:
    return tristate.create_model(name, **options)


@pytest.fixture(scope="module", params=NAMES)
def named(request):
    torch.manual_seed(0)
    return create(request.param, num_classes=6, n_layers=2).eval()


def some(model):
    return noise(2 * 8000).view(2, -1) if model.in_chans == 1 else torch.randn(2, 80, 30)


def test_names():
    assert set(NAMES) >= {"audio_mamba_micro_wave", "audio_mamba_micro_mel"}


def test_timms_surface(named):
    x = some(named)
    logits, features = named(x), named.forward_features(x)
    assert logits.shape == (2, 6) and features.shape[-1] == named.num_features == 64
    torch.testing.assert_close(named.forward_head(features), logits)
    assert named.forward_head(features, pre_logits=True).shape == (2, 64)
    assert named.get_classifier() is named.head
    cfg, state = named.pretrained_cfg, named.state_dict()
    assert cfg["num_classes"] == 6 and cfg["license"]
    assert {f"{cfg[k]}.weight" for k in ("first_conv", "classifier")} <= set(state)
    assert {n.rpartition(".")[2] for n in named.no_weight_decay()} == {"A_log", "D"}
    groups: Any = group_parameters(named, named.group_matcher(), reverse=True)
    assert set(groups) == {n for n, _ in named.named_parameters()}
    assert groups[f"{cfg['first_conv']}.weight"] == 0 and groups["stack.blocks.0.norm.weight"] == 1
    assert groups["head.weight"] == max(groups.values())


def test_the_head_is_replaced(named):
    model = create(named_variant(named), num_classes=0, n_layers=1).eval()
    assert model(some(model)).shape == (2, 64)
    model.reset_classifier(3, "max")
    assert model(some(model)).shape == (2, 3)
    model.reset_classifier(0, "")
    assert model(some(model)).ndim == 3


def test_checkpointing_changes_no_gradient(named):
    model = create(named_variant(named), num_classes=3, n_layers=2).train()
    grads = []
    for enable in (False, True):
        torch.manual_seed(0)
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(some(model)).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, kept in zip(*grads, strict=True):
        torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-5)


def named_variant(model):
    return "audio_mamba_micro_wave" if model.in_chans == 1 else "audio_mamba_micro_mel"


def test_another_mixer_brings_its_own_arguments():
    model = create("audio_mamba_micro_wave", mixer="mamba", num_classes=2)
    assert model.stack.blocks[0].mixer.branch.d_inner == 128
    assert model(noise(2000)[None]).shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_layer": 2}, "no argument 'n_layer'.*n_layers"),
        ({"front_args": {"n_band": 8}}, "no argument 'n_band'.*n_bands"),
        ({"front_args": {"holes": {"tim": 8}}}, "no argument 'tim'.*time"),
        ({"mixer_args": {"expnd": 8}}, "no argument 'expnd'.*expand"),
        ({"mixer_args": {"dt_mn": 8}}, "no argument 'dt_mn'.*dt_min"),
        ({"front_args": {"window": 64}}, "odd"),
        ({"front_args": {"f_max": 9000.0}}, "8000 Hz is wanted"),
        ({"front": "conv", "front_args": {"stride": 9}}, "skipped"),
        ({"in_chans": 80}, "takes waveforms"),
        ({"front_args": {"holes": {"time": -1}}}, "at least 0"),
        ({"pretrained": True}, "no released weights"),
        ({"global_pool": "mean"}, "can't pool by 'mean'"),
    ],
)
def test_what_makes_no_sense_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        create("audio_mamba_micro_wave", **options)


def test_unknown_parts_are_named():
    with pytest.raises(KeyError, match="did you mean gabor"):
        AudioClassifier("gabo")
    with pytest.raises(ValueError, match="did you mean audio_mamba_micro_wave"):
        create("audio_mamba_micro_wav")


@pytest.mark.parametrize("shape", [(2, 3, 100), (100,)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"waveforms \(B, L\) are wanted"):
        make("wave")(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"features \(B, 6, T\) are wanted"):
        make("columns")(torch.zeros(shape))
