"""Audio models by name."""

from typing import Any

from tristate.core.variants import Variant, Variants
from tristate.kernels.registry import Registry

MODELS = Registry("audio model", {"classifier": "tristate.audio.models.classifier:AudioClassifier"})


def _micro(first_conv: str, **arguments: Any) -> Variant:
    own = {"d_model": 64, "n_layers": 3, "mixer_args": {"d_state": 8, "expand": 1}, **arguments}
    cfg = {
        "sample_rate": 16_000,
        "first_conv": first_conv,
        "classifier": "head",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2312.00752",
    }
    return Variant("classifier", own, cfg)


ZOO = Variants(
    MODELS,
    {
        # Waveforms, through learnable frequency bands: a token every 10 ms.
        "audio_mamba_micro_wave": _micro(
            "front.columns.proj",
            front="gabor",
            front_args={"n_bands": 64, "window": 401, "stride": 80, "pool": 2},
        ),
        # Log mel spectrograms of 80 bands, a token each column.
        "audio_mamba_micro_mel": _micro(
            "front.proj",
            front="conv",
            front_args={"kernel_size": 3, "standardise": True},
            in_chans=80,
        ),
    },
)
