"""The task that learns synthetic problems, and the plain model of sequences."""

import pytest
import torch

from tristate.core.tasks.answers import Answers
from tristate.core.tasks.drawn import Synthetic
from tristate.core.tokens import Tokens


def task(data, **backbone_args):
    torch.manual_seed(0)
    args = {"d_model": 16, "n_layers": 1, "mixer_args": {"d_state": 4}, **backbone_args}
    return Answers(backbone_args=args, facts=data.facts)


@pytest.mark.parametrize(
    ("problem", "arguments"), [("selective_copying", {"n_tokens": 4, "length": 20}), ("adding", {})]
)
def test_a_perfect_model_has_no_loss_and_answers_all(problem, arguments):
    data = Synthetic(problem, arguments, batch_size=4)
    model = task(data)
    inputs, labels = next(iter(data.val_dataloader()))
    answers, due = model._due(model.backbone.forward_features(inputs), labels)
    assert len(answers) == len(due) > 0
    if labels.is_floating_point():
        assert model._loss(due[:, None], due) == 0
        assert model._right(due[:, None] + 0.03, due).all()
        assert not model._right(due[:, None] + 0.05, due).any()
    else:
        sure = 100 * torch.nn.functional.one_hot(due, answers.shape[1]).float()
        assert model._loss(sure, due) < 1e-6 and model._right(sure, due).all()
        assert not model._right(-sure, due).any()


def test_validation_looks_at_the_same_sequences_and_training_at_new_ones():
    data = Synthetic("parity", n_train=8, n_val=8, batch_size=4, seed=3)
    val, train = data.val_dataloader(), data.train_dataloader()
    first = [x for x, _ in val]
    val.set_epoch(1)
    torch.testing.assert_close(first, [x for x, _ in val])
    before = [x for x, _ in train]
    train.set_epoch(1)
    assert not any(torch.equal(a, b) for a, (b, _) in zip(before, train, strict=True))


def test_every_length_is_tested_by_itself():
    data = Synthetic("induction_heads", {"length": 16}, test_lengths=[32, 8], n_test=6)
    shapes = [next(iter(loader))[0].shape for loader in data.test_dataloader()]
    assert shapes == [(6, 16), (6, 32), (6, 8)]
    assert data.facts["lengths"] == [16, 32, 8]


def test_training_mixes_the_lengths_it_is_given():
    arguments = {"length": 20, "n_tokens": 4}
    data = Synthetic("selective_copying", arguments, 64, train_lengths=[8, 12], batch_size=4)
    assert {x.shape[1] - 4 for x, _ in data.train_dataloader()} == {8, 12}
    assert next(iter(data.val_dataloader()))[0].shape[1] == 24


@pytest.mark.parametrize("count", [1, 5, 9])
def test_a_long_sequence_may_be_read_in_pieces(count):
    torch.manual_seed(1)
    model = Tokens(9, 4, d_model=12, n_layers=2).eval()
    ids = torch.randint(9, (2, 47))
    whole = model.forward_features(ids)[:, -count:]
    torch.testing.assert_close(model.last_tokens(ids, count, 10), whole)


def test_what_sees_the_future_is_read_whole():
    model = Tokens(9, 4, d_model=12, n_layers=1, mixer="bimamba").eval()
    assert not model.in_pieces
    ids = torch.randint(9, (2, 47))
    torch.testing.assert_close(model.last_tokens(ids, 3, 10), model.forward_features(ids)[:, -3:])


def test_learnt_positions_are_added_and_bound_the_length():
    torch.manual_seed(1)
    model = Tokens(9, 4, d_model=12, n_layers=1, mixer="attention", n_positions=8).eval()
    assert not model.in_pieces and "positions" in model.no_weight_decay()
    ids = torch.full((1, 6), 3)
    plain = Tokens(9, 4, d_model=12, n_layers=1, mixer="attention").eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "positions"})
    tokens = plain.stack(model.embedding(ids) + model.positions[:6])
    torch.testing.assert_close(model.forward_features(ids), tokens)
    with pytest.raises(ValueError, match="raise n_positions"):
        model(torch.full((1, 9), 3))
    _, state = model.forward_state(ids)
    with pytest.raises(ValueError, match="read whole"):
        model.forward_state(ids, state)
    with pytest.raises(ValueError, match="n_positions must be"):
        Tokens(9, 4, n_positions=-1)


def test_right_answers_are_counted_in_float32_whatever_the_weights_are():
    model = task(Synthetic("parity")).to(torch.bfloat16)
    assert next(model.parameters()).dtype == torch.bfloat16
    model.val_accuracy.update(torch.ones(1000))
    model.val_accuracy.update(torch.zeros(1))
    assert model.val_accuracy.weight == 1001
