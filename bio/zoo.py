"""DNA models by name."""

from typing import Any

from tristate.core.variants import Variant, Variants
from tristate.kernels.registry import Registry

MODELS = Registry("DNA model", {"dna": "tristate.bio.models.dna:DNA"})


def _micro(mixer: str, **arguments: Any) -> Variant:
    own = {"mixer": mixer, "d_model": 64, "mixer_args": {"d_state": 8, "expand": 1}, **arguments}
    return Variant("dna", own, {"classifier": "head", "license": "apache-2.0"})


ZOO = Variants(
    MODELS,
    {
        # Reads forwards: the next letter, or a whole sequence.
        "dna_mamba_micro": _micro("mamba", d_model=96, n_layers=4, kmers=(4, 7)),
        # Reads both ways: masked letters, or a whole sequence.
        "dna_bimamba_micro": _micro("bimamba", n_layers=4),
        # Windows of one length around a site.
        "dna_bimamba_micro_site": _micro(
            "bimamba",
            n_layers=2,
            motif_width=9,
            letter_skip=True,
            max_length=80,
            global_pool="place",
        ),
    },
)
