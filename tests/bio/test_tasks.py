"""Pretraining and classification of sequences, without a trainer."""

import math
from typing import Any

import pytest
import torch

from tristate.bio.data.genome_windows import token_facts
from tristate.bio.data.masking import IGNORE
from tristate.bio.data.tokenize import caduceus_tokenizer
from tristate.bio.tasks.classify import SequenceClassification
from tristate.bio.tasks.genome_page import bits_page
from tristate.bio.tasks.letters import middle
from tristate.bio.tasks.pretrain import EVERY, SequencePretraining

FACTS = token_facts(caduceus_tokenizer())
SMALL = {"d_model": 16, "n_layers": 1}


def pretraining(masked: bool = False, backbone: str = "dna_mamba_micro", **args: Any):
    torch.manual_seed(0)
    return SequencePretraining(
        backbone, backbone_args={**SMALL, **args}, facts={**FACTS, "masked": masked}
    ).eval()


def test_bits_of_chance_are_two():
    task = pretraining()
    torch.nn.init.zeros_(task.backbone.head.weight)  # pyright: ignore
    with torch.no_grad():  # all but the four bases is out of the question
        task.backbone.head.bias.fill_(-1e4)[FACTS["base_ids"]] = 0  # pyright: ignore
    ids = torch.randint(7, 11, (3, 20))
    labels = ids.clone()
    labels[0, 5:] = IGNORE
    bits = task.window_bits(ids, labels)
    torch.testing.assert_close(bits, torch.tensor([[10.0, 5], [40, 20], [40, 20]]).double())
    assert task.loss((ids, labels)).item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assert task.loss((ids, torch.full_like(ids, IGNORE))).item() == 0


@pytest.mark.parametrize("masked", [False, True])
def test_prediction_of_a_window_does_not_depend_on_its_batch(masked):
    task = pretraining(masked, "dna_bimamba_micro" if masked else "dna_mamba_micro")
    tokenizer = caduceus_tokenizer()
    texts = ["ACGTNACGTAC", "GA"] if masked else ["ACGTNACGTAC", "GAT"]
    with torch.no_grad():
        both = task.predict_step((tokenizer.encode_batch(texts), texts), 0)
        last = task.predict_step((tokenizer.encode_batch(texts[1:]), texts[1:]), 0)
    assert both["window"] == texts
    # N is no base, and nothing stands before the first.
    assert both["bases"] == ([10, 2] if masked else [9, 2])
    if not masked:  # what is masked depends on the place, which padding moves
        assert both["bits_per_base"][1] == last["bits_per_base"][0]
    assert EVERY == 7 and all(float(bits) > 0 for bits in both["bits_per_base"])


def test_a_backbone_that_looks_ahead_is_refused():
    for backbone, args in (("dna_bimamba_micro", {}), ("dna_mamba_micro", {"motif_width": 3})):
        with pytest.raises(ValueError, match="sees the letters that it is to guess"):
            pretraining(False, backbone, **args)
    with pytest.raises(ValueError, match="needs the data's facts: base_ids"):
        SequencePretraining("dna_mamba_micro", facts={"vocab_size": 12, "pad_id": 4})


def test_classes_of_a_window_in_the_table():
    torch.manual_seed(0)
    facts = {**FACTS, "class_names": ["a", "b"], "max_length": 30}
    task = SequenceClassification("dna_mamba_micro", backbone_args=SMALL, facts=facts).eval()
    ids = caduceus_tokenizer().encode_batch(["ACGTA", "AC"])
    rows = task.predict_step((ids, ["chr1:0-5(+)", "chr1:5-7(-)"]), 0)
    assert list(rows) == ["window", "label", "probability", "p_a", "p_b"]
    for label, most, a, b in zip(*list(rows.values())[1:], strict=True):
        assert float(most) == max(float(a), float(b)) and label == "ab"[float(b) > float(a)]
        assert float(a) + float(b) == pytest.approx(1, abs=2e-4)


def test_pages():
    letters = middle(torch.tensor([4, 4, 7, 8, 9, 10]), FACTS["tokens"], 4, "<x>")
    assert "AC<b>|</b>GT" in letters and "&lt;x&gt;" in letters and "PAD" not in letters
    page = bits_page(torch.tensor([[20.0, 10], [0, 0], [19, 10]]), {0: 2.0, 3: 1.9})
    assert "1.9500" in page and "order 3" in page and "+0.0500" in page and "-0.0500" in page
    assert "No base" in bits_page(torch.zeros(0, 2), {})


def test_a_classifier_pools_as_its_model_does_and_a_language_model_by_mean():
    facts = {**FACTS, "class_names": ["a", "b"], "max_length": 80}

    def pool(backbone: str, **args: Any) -> str:
        task = SequenceClassification(backbone, backbone_args={**SMALL, **args}, facts=facts)
        with torch.no_grad():
            assert task(torch.randint(7, 11, (3, 80))).shape == (3, 2)
        return task.backbone.global_pool  # pyright: ignore

    assert pool("dna_bimamba_micro_site") == "place"
    assert pool("dna_mamba_micro") == "avg"
    assert pool("dna_mamba_micro", global_pool="last") == "last"
