"""Training on long windows in pieces: the state goes from batch to batch, also through a stop."""

import pytest
import torch
from torch.nn import functional as F

from tests.bio.conftest import wrap
from tests.bio.test_pretraining import clean
from tests.core.toy import LIGHTNING, Diary, make_trainer
from tristate.bio.data.genome_windows import GenomeWindows
from tristate.bio.tasks.pretrain import SequencePretraining
from tristate.core.errors import UserError
from tristate.core.training.layer_rms import LayerRMS
from tristate.core.training.loader import Loader

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING]

LENGTH, PIECES, BATCHES = 24, 4, 8  # batches of whole windows in an epoch


@pytest.fixture
def data(write):
    def make(pieces=PIECES, **options):
        genome = write("genome.fa", wrap({"one": clean(4000, 1)}))
        options = {"length": LENGTH, "batch_size": 3, "windows_per_epoch": 3 * BATCHES} | options
        return GenomeWindows(genome, pieces=pieces, seed=4, **options)

    return make


def make_task(data, lr=0.01, **args):
    torch.manual_seed(0)
    args = {"d_model": 16, "n_layers": 2, "kmers": (3,), **args}
    return SequencePretraining("dna_mamba_micro", backbone_args=args, facts=data.facts, lr=lr)


def loader(data):
    data.setup("fit")
    return data.train_dataloader()


def test_pieces_of_windows_follow_each_other(data):
    whole, pieces = list(loader(data(1))), list(loader(data()))
    assert len(pieces) == len(loader(data())) == PIECES * len(whole)
    for index, (inputs, labels) in enumerate(whole):
        mine = pieces[PIECES * index : PIECES * (index + 1)]
        assert torch.cat([p[0] for p in mine], 1).equal(inputs)
        assert torch.cat([p[1] for p in mine], 1).equal(labels)


@pytest.mark.parametrize("done", [1, 4, 6, 31])
def test_a_loader_goes_on_inside_of_a_window(data, done):
    whole = list(loader(data()))
    stopped = loader(data())
    for _ in zip(range(done), stopped, strict=False):
        pass
    resumed = loader(data())
    resumed.load_state_dict({"epoch": 0, "done": done})
    rest = list(resumed)
    assert len(rest) == len(whole) - done
    assert all(a[0].equal(b[0]) for a, b in zip(rest, whole[done:], strict=True))


def test_pieces_must_divide(data):
    with pytest.raises(ValueError, match="pieces must divide length = 24, got 5"):
        data(5)

    class Source:
        def __len__(self):
            return 4

        def batch(self, indices, generator):
            return (torch.zeros(2, 10), ["a", "b"])

    with pytest.raises(UserError, match="10 positions can't be handed out in 4 equal pieces"):
        next(iter(Loader(Source(), 2, pieces=4)))
    assert next(iter(Loader(Source(), 2, pieces=5)))[1] == ["a", "b"]


def test_losses_are_those_of_the_state_handed_on_by_hand(data, tmp_path):
    module, diary = data(), Diary()
    make_trainer(tmp_path, diary, max_epochs=1, limit_val_batches=0).fit(
        make_task(module, lr=0.0), module
    )
    task, state = make_task(module), None
    for index, (inputs, labels) in enumerate(loader(module)):
        state = None if index % PIECES == 0 else state
        with torch.no_grad():
            logits, state = task.backbone.forward_state(inputs, state)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        assert float.fromhex(diary.train[index]) == pytest.approx(float(loss), rel=1e-6)


def test_a_state_carries_what_a_whole_window_would(data):
    task = make_task(data()).eval()
    ids = torch.randint(7, 11, (2, LENGTH))
    with torch.no_grad():
        whole = task.backbone(ids)
        parts, state = [], None
        for piece in ids.chunk(PIECES, 1):
            logits, state = task.backbone.forward_state(piece, state)
            parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


class Stop(Exception):
    pass


def stop():
    raise Stop


def test_a_run_resumes_inside_of_a_window(data, tmp_path):
    options = {"max_epochs": 1, "limit_val_batches": 0}
    diary = Diary()
    make_trainer(tmp_path / "whole", diary, **options).fit(make_task(data()), data())
    with pytest.raises(Stop):
        trainer = make_trainer(tmp_path, Diary(11, stop), **options)
        trainer.fit(make_task(data()), data())
    resumed = Diary()
    trainer = make_trainer(tmp_path / "resumed", resumed, **options)
    trainer.fit(make_task(data()), data(), ckpt_path=tmp_path / "last.ckpt")
    assert len(resumed.train) == PIECES * BATCHES - 10
    assert resumed.train == diary.train[10:]


def test_a_model_without_a_state_is_refused(data):
    with pytest.raises(ValueError, match=r"in 4 pieces.*set data\.pieces to 1"):
        facts = data(mask_rate=0.2).facts
        SequencePretraining("dna_bimamba_micro", backbone_args={"n_layers": 1}, facts=facts)


def test_experts_are_balanced_and_their_load_is_logged(data, tmp_path):
    args = {"mixer": "jamba", "mixer_args": {"n_heads": 2, "n_experts": 4}}
    module, seen, diaries = data(1), {}, [Diary(), Diary()]
    for diary, balance in zip(diaries, (0.0, 10.0), strict=True):
        task = make_task(module, lr=0.0, **args)
        task.balance = balance
        task.log = lambda name, value, **options: seen.update({name: float(value)})
        make_trainer(tmp_path, diary, max_steps=1, log_every_n_steps=1).fit(task, module)
    plain, with_balance = (float.fromhex(diary.train[0]) for diary in diaries)
    assert with_balance > plain + 9
    assert 0.25 < seen["train/busiest_expert"] <= 1


@pytest.mark.parametrize("pieces", [1, PIECES])
def test_sizes_of_layers_are_logged(data, tmp_path, pieces):
    module, seen = data(pieces), {}
    task = make_task(module)
    task.log = lambda name, value, **options: seen.update({name: float(value)})
    options = {"max_steps": 2, "max_epochs": 1, "limit_val_batches": 0, "log_every_n_steps": 2}
    trainer = make_trainer(tmp_path, LayerRMS(), **options)
    trainer.fit(task, module)
    wanted = {"out", "out_grad", "weight_grad", "state_conv", "state_scan"}
    assert {n for n in seen if n.startswith("rms/")} == {
        f"rms/{block}/{what}" for block in ("00", "01") for what in wanted
    }
    assert all(value > 0 for name, value in seen.items() if name.startswith("rms/"))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.modules())
