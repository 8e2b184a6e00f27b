"""Pretraining on a genome: the next base, or masked ones."""

from collections.abc import Iterable
from html import escape
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import CatMetric, SumMetric

from tristate.bio.data.masking import IGNORE
from tristate.bio.models.dna import padding
from tristate.bio.tasks.genome_page import bits_page
from tristate.bio.tasks.saliency import LettersSubject
from tristate.core.context import Context
from tristate.core.explain.subject import Subject
from tristate.core.moe import Experts
from tristate.core.pretrained import load_pretrained
from tristate.core.training.carry import expect_causal
from tristate.core.training.report import Section
from tristate.core.training.task import Task
from tristate.core.zoo import create_model

NATS = 0.6931471805599453  # of a bit
EVERY = 7  # in prediction one letter in so many is masked at a time: about 15 %


class SequencePretraining(Task):
    """Learns to guess letters; the metric is bits per base, 2 for chance.

    A batch is ``(inputs, labels)``, both ``(B, L)`` int64, labels that do not count -100; in
    prediction ``(ids, names)``. Whether the next letter or masked ones are to be guessed, the
    data tell (``facts["masked"]``); the next letter wants a backbone that sees no later one.

    Predictions go to ``predictions.tsv``: the bits per base of each window, all of its bases
    counted but, where the next letter is guessed, its first. Masked letters are guessed one in
    seven at a time.

    Args:
        backbone: name of a model, see :func:`tristate.core.zoo.create_model`.
        backbone_args: its constructor arguments; the ids come from the data.
        pretrained: weights to begin with: FILE or ``hf:OWNER/REPO``.
        balance: weight of the balancing loss, where the backbone has experts.
        facts: of the data: ``vocab_size``, ``pad_id``, ``mask_id``, ``base_ids`` and ``masked``;
            with ``pieces`` above 1 the state is handed on from batch to batch.
        **optim: of :class:`tristate.core.training.task.Task`.

    Raises:
        ValueError: an argument is unknown to the backbone, the facts are missing, or the backbone
            sees the letter that it is to guess.
    """

    main_metric = "bits_per_base"
    main_mode = "min"
    unit = "bases"
    predictions = "predictions.tsv"

    def __init__(
        self,
        backbone: str,
        *,
        backbone_args: dict[str, Any] | None = None,
        pretrained: str | None = None,
        balance: float = 0.01,
        facts: dict[str, Any] | None = None,
        **optim: Any,
    ) -> None:
        super().__init__(facts=facts, **optim)
        if missing := {"vocab_size", "pad_id", "mask_id", "base_ids", "masked"} - set(self.facts):
            raise ValueError(f"pretraining needs the data's facts: {', '.join(sorted(missing))}")
        self.save_hyperparameters()
        self.pretrained, self.masked = pretrained, bool(self.facts["masked"])
        self.balance = balance
        size = self.facts["vocab_size"]
        told = {"vocab_size": size, "num_classes": size, "global_pool": ""}
        self.backbone: nn.Module = create_model(backbone, **{**told, **(backbone_args or {})})
        if not self.masked and not getattr(self.backbone, "causal", False):
            raise ValueError(
                f"{backbone} sees the letters that it is to guess: name a causal mixer and no "
                "motif_width, or mask letters with data.mask_rate"
            )
        expect_causal(self.backbone, self.carry.pieces)
        self.experts = any(isinstance(module, Experts) for module in self.backbone.modules())
        self.bits, self.count = SumMetric(), SumMetric()
        # Of each test window: bits and bases, (M, 2), in the order of the data.
        self.windows = CatMetric()
        self.tested = torch.zeros(0, 2)

    def setup(self, stage: str) -> None:
        """Load the weights to begin with, unless a checkpoint brings the run's own."""
        if self.pretrained is None or self.trainer.ckpt_path is not None:
            return
        result = load_pretrained(self.backbone, self.pretrained)
        rank_zero_info(f"{self.pretrained}: {result}")
        self.pretrained = None

    def n_items(self, batch: Any) -> int:
        """Letters."""
        return batch[0].numel()

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``(B, L, vocab_size)`` of ids ``(B, L)``."""
        return self.backbone(ids, seq_idx=padding(ids, self.facts["pad_id"]))

    def loss(self, batch: Any) -> Tensor:
        """Cross entropy of the letters to be guessed; 0 where a batch has none.

        Where the backbone has experts their balancing loss is added, and the share of the busiest
        one is logged as ``train/busiest_expert``.
        """
        inputs, labels = batch
        context = Context()
        options = {"context": context} if self.experts else {}
        seq_idx = padding(inputs, self.facts["pad_id"])
        logits = self.carry(self.backbone, inputs, seq_idx=seq_idx, **options)
        total = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        loss = total / (labels != IGNORE).sum().clamp(min=1)
        if self.experts:
            loss = loss + self.balance * context.balance()
            if self.logs_now:
                self.log("train/busiest_expert", context.load().max(), on_epoch=False)
        return loss

    def window_bits(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Bits of the bases to be guessed and their number in each row, ``(B, 2)`` float64."""
        logits = self(inputs).float().transpose(1, 2)
        nats = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        return torch.stack([nats.double().sum(1) / NATS, (labels != IGNORE).sum(1).double()], 1)

    def on_validation_epoch_start(self) -> None:
        """Count afresh."""
        self._reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Sum up the bits."""
        self._add(self.window_bits(*batch))

    def on_validation_epoch_end(self) -> None:
        """Log bits per base, and the loss in nats as in training."""
        self._log("val")

    def on_test_epoch_start(self) -> None:
        """Count afresh."""
        self._reset()
        self.windows.reset()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Sum up the bits, and keep each window's."""
        bits = self.window_bits(*batch)
        self._add(bits)
        self.windows.update(bits)

    def on_test_epoch_end(self) -> None:
        """Log bits per base."""
        self._log("test")
        self.tested = self.windows.compute().cpu().reshape(-1, 2)

    def _reset(self) -> None:
        self.bits.reset()
        self.count.reset()

    def _add(self, bits: Tensor) -> None:
        self.bits.update(bits[:, 0].sum())
        self.count.update(bits[:, 1].sum())

    def _log(self, stage: str) -> None:
        # The sums of all processes; a mean of means would weigh short windows too much.
        mean = self.bits.compute() / self.count.compute().clamp(min=1)
        self.log(f"{stage}/bits_per_base", mean, prog_bar=stage == "val")
        self.log(f"{stage}/loss", mean * NATS)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, list[Any]]:
        """Columns ``window``, ``bases`` (those counted) and ``bits_per_base``."""
        ids, names = batch
        is_base = torch.isin(ids, torch.tensor(self.facts["base_ids"], device=ids.device))
        labels = ids.masked_fill(~is_base, IGNORE)
        if self.masked:
            bits = self._bits_masked(ids, labels)
        else:
            # Nothing stands before the first base of a window that is filled up either.
            first = ids[:, :-1] == self.facts["pad_id"]
            bits = self.window_bits(ids[:, :-1], labels[:, 1:].masked_fill(first, IGNORE))
        return {
            "window": list(names),
            "bases": [int(count) for count in bits[:, 1].tolist()],
            "bits_per_base": [f"{b / c:.4f}" if c else "" for b, c in bits.tolist()],
        }

    def _bits_masked(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Every letter guessed once, one in ``EVERY`` at a time."""
        places = torch.arange(ids.shape[1], device=ids.device) % EVERY
        bits = torch.zeros(len(ids), 2, dtype=torch.float64, device=ids.device)
        for turn in range(EVERY):
            now = (places == turn) & (labels != IGNORE)
            inputs = ids.masked_fill(now, self.facts["mask_id"])
            bits += self.window_bits(inputs, labels.masked_fill(~now, IGNORE))
        return bits

    def subjects(self, batches: Iterable[Any], count: int) -> list[Subject]:
        """The last letter that each of ``count`` windows asks for, and what the guess rests on."""
        found: list[Subject] = []
        for inputs, labels in batches:
            for ids, wanted in zip(inputs, labels, strict=True):
                if len(found) == count:
                    return found
                if (wanted != IGNORE).any():
                    found.append(self._subject(ids, wanted))
        return found

    def _subject(self, ids: Tensor, wanted: Tensor) -> LettersSubject:
        place = int((wanted != IGNORE).nonzero()[-1])
        answer = int(wanted[place])

        def score(rows: Tensor) -> Tensor:
            return self(rows)[:, place].float().log_softmax(-1)[:, answer]

        tokens, pad_id = self.facts["tokens"], self.facts["pad_id"]
        subject = LettersSubject(ids, tokens, pad_id, self.backbone, score, middle=False)
        with torch.no_grad():
            share = float(score(ids[None])[0].exp())
        where = "in place of the last [MASK]" if self.masked else "as the next letter"
        subject.caption = f"<b>{escape(str(tokens[answer]))}</b> {share:.0%}, {where}"
        return subject

    def report_sections(self) -> list[Section]:
        """Bits per base along what was tested, beside Markov models where the data offer them."""
        data: Any = getattr(self.trainer, "datamodule", None)
        baselines = data.baselines() if hasattr(data, "baselines") else {}
        return [Section("Bits per base along the genome", bits_page(self.tested, baselines))]
