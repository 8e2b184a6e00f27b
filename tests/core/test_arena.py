"""Long Range Arena's texts from files in their published formats, and the tasks that read them."""

import pytest
import torch

from tests.core.arena import listops, papers, reviews
from tristate.core.errors import UserError
from tristate.core.tasks.expressions import Expressions, read_tsv
from tristate.core.tasks.listops import text
from tristate.core.tasks.papers import Pairs, Papers
from tristate.core.tasks.reviews import Reviews
from tristate.core.tasks.sequences import PairClassification, SequenceClassification
from tristate.core.tasks.texts import BYTES, PAD, byte_ids

SMALL = {"d_model": 8, "n_layers": 1, "mixer": "lru", "mixer_args": {"d_state": 4}}


def first(loader):
    return next(iter(loader))


def said(ids):
    """The bytes of ids, without padding."""
    return bytes(i - 1 for i in ids.tolist() if i != PAD)


def test_reviews_are_bytes(tmp_path):
    data = Reviews(str(reviews(tmp_path / "aclImdb", 6)), held_out=4, batch_size=100, seed=0)
    data.setup("fit")
    assert {part: len(texts) for part, texts in data.parts.items()} == {
        "train": 9,
        "val": 3,
        "test": 12,
    }
    ids, labels = first(data.test_dataloader())
    kinds = [b"pos" in said(row) for row in ids]
    assert kinds == labels.bool().tolist() == [False] * 6 + [True] * 6
    assert said(ids[0]) == "A neg film.<br /><br />Caf\u00e9 0 of test.".encode()
    assert ids.max() < len(BYTES) == data.facts["vocab_size"]
    short = Reviews(str(tmp_path / "aclImdb"), max_length=5)
    short.setup("fit")
    assert first(short.test_dataloader())[0].shape[1] == 5


def test_expressions_lose_their_round_brackets(tmp_path):
    data = Expressions(str(listops(tmp_path / "listops-1000")), batch_size=2)
    data.setup("fit")
    ids, labels = first(data.val_dataloader())
    assert [text(row) for row in ids] == ["[MAX 2 9 ]", "[SM 8 [MIN 4 7 ] 9 ]"]
    assert labels.tolist() == [9, 1]
    assert ids[0, 4:].eq(PAD).all()


def test_expressions_are_drawn_where_there_are_no_files():
    data = Expressions(n_train=4, n_val=3, n_test=2, batch_size=4, seed=0)
    data.setup("fit")
    (ids, labels), again = first(data.val_dataloader()), first(data.val_dataloader())
    assert torch.equal(ids, again[0]) and ids.shape[0] == 3 and 500 < ids.shape[1] < 2000
    assert (ids != PAD).any(0).all() and labels.min() >= 0 and labels.max() < 10


def test_papers_come_in_pairs(tmp_path):
    data = Papers(str(papers(tmp_path / "tsv_data", 4)), batch_size=4, seed=0)
    data.setup("fit")
    ids, labels = first(data.val_dataloader())
    assert ids.shape[:2] == (4, 2) and labels.tolist() == [0, 1, 0, 1]
    assert said(ids[2, 0]) == b'On "eval" 2' and said(ids[3, 1]) == "Again \u00e93".encode()
    short = Pairs(tmp_path / "tsv_data" / "new_aan_pairs.test.tsv", 7)
    assert short.batch(torch.tensor([1]), torch.Generator())[0].shape == (1, 2, 7)


def test_a_line_may_begin_where_a_piece_ends(tmp_path, monkeypatch):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"0.0\ta\tb\tone\ttwo\n1.0\tc\td\tthree\tfour")
    pairs = Pairs(path, 100)
    assert len(pairs) == 2
    ids, labels = pairs.batch(torch.tensor([1, 0]), torch.Generator())
    assert [said(row) for row in ids[:, 1]] == [b"four", b"two"] and labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: Reviews(str(p)), "no review .* aclImdb_v1.tar.gz from https://ai.stanford.edu"),
        (lambda p: Expressions(str(p)), "no file .*basic_train.tsv: unpack lra_release.gz"),
        (lambda p: Papers(str(p)), "no file .*new_aan_pairs.train.tsv: unpack lra_release.gz"),
    ],
)
def test_missing_files_are_told_with_where_to_get_them(make, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        make(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[MAX 1 2 ]\t2\n", "must begin with a line of Source and Target"),
        ("Source\tTarget\n[MUX 1 2 ]\t2\n", ":2 holds '.MUX'"),
        ("Source\tTarget\n[MAX 1 2 ]\t12\n", ":2 must be an expression, a tab and a value"),
        ("Source\tTarget\n", "holds no expression"),
    ],
)
def test_a_damaged_expression_is_named(content, sentence, tmp_path):
    path = tmp_path / "basic_train.tsv"
    path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_tsv(path)


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"", "is empty"), (b"1.0\ta\tb\tone\n", ":1 .* it has 4 fields")]
)
def test_a_damaged_pair_is_named(content, sentence, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        Pairs(path, 10).batch(torch.tensor([0]), torch.Generator())


def facts(n_classes):
    names = [str(i) for i in range(n_classes)]
    return {"class_names": names, "vocab_size": len(BYTES), "tokens": BYTES}


def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = SequenceClassification(backbone_args=SMALL, facts=facts(3)).eval()
    ids = torch.randint(1, 257, (2, 9))
    filled = torch.cat([ids, torch.zeros(2, 5, dtype=torch.int64)], 1)
    assert model(ids).shape == (2, 3)
    torch.testing.assert_close(model(filled), model(ids))


def test_a_pair_is_told_by_its_two_encodings():
    torch.manual_seed(0)
    model = PairClassification(backbone_args=SMALL, facts=facts(2)).eval()
    ids = torch.randint(1, 257, (3, 2, 9))
    ids[0, 1, 4:] = PAD
    encoder, head = model.backbone.encoder, model.backbone.head
    seen = []
    head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    logits = model(ids)
    a, b = (
        torch.stack([encoder(row[row != PAD][None])[0] for row in ids[:, side]]) for side in (0, 1)
    )
    torch.testing.assert_close(seen[0], torch.cat([a, b, a * b, a - b], 1))
    assert logits.shape == (3, 2)
    assert not torch.allclose(model(ids.flip(1)), logits)
    model.loss((ids, torch.tensor([0, 1, 1]))).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_the_report_shows_letters():
    model = PairClassification(backbone_args=SMALL, facts=facts(2))
    shown = model.show(torch.stack([byte_ids(b"a < b"), byte_ids(b"c\xc3\xa9dd")]), "x")
    assert "a &lt; b" in shown and "c\u00b7\u00b7dd" in shown
