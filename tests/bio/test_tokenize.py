"""Letters and ids: there and back, and on the other strand."""

import numpy as np
import pytest
import torch

from tristate.bio.data.complement import reverse_complement, reverse_complement_ids
from tristate.bio.data.masking import IGNORE, mask_tokens
from tristate.bio.data.tokenize import caduceus_tokenizer, hyenadna_tokenizer


@pytest.mark.parametrize("iupac", [True, False])
def test_twice_is_nothing(records, iupac):
    for sequence in records.values():
        once = reverse_complement(sequence, iupac=iupac)
        assert reverse_complement(once, iupac=iupac) == sequence
        assert len(once) == len(sequence)


def test_ids_of_the_other_strand(records):
    tokenizer = caduceus_tokenizer()
    table = tokenizer.complement()
    for sequence in records.values():
        ids = tokenizer.encode(sequence, special=False)
        other = reverse_complement_ids(ids, table)
        assert other.equal(
            tokenizer.encode(reverse_complement(sequence, iupac=False), special=False)
        )
        assert reverse_complement_ids(other, table).equal(ids)


def test_padding_stays_on_the_left():
    tokenizer = caduceus_tokenizer()
    texts = ["ACCGT", "A", "GG[PAD]A"]
    turned = ["ACGGT", "T", "T[PAD]CC"]
    found = reverse_complement_ids(
        tokenizer.encode_batch(texts), tokenizer.complement(), tokenizer.pad_id
    )
    assert found.equal(tokenizer.encode_batch(turned))
    nothing = torch.full((1, 4), tokenizer.pad_id)
    assert reverse_complement_ids(nothing, tokenizer.complement(), tokenizer.pad_id).equal(nothing)


@pytest.mark.parametrize("tokenizer", [hyenadna_tokenizer(), caduceus_tokenizer()])
def test_decode_undoes_encode(tokenizer):
    text = "ACGTNNTGCA[MASK]A[SEP]"
    ids = tokenizer.encode(text, special=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist(), skip_special=True) == "ACGTNNTGCAA"


def test_table_is_letter_by_letter(records):
    for tokenizer in (hyenadna_tokenizer(), caduceus_tokenizer()):
        text = records["chr1"]
        ids = tokenizer.encode_letters(np.frombuffer(text.encode(), np.uint8))
        assert ids.tolist() == [tokenizer.encode(c, special=False).item() for c in text]
        assert ids.dtype == torch.int64


def test_characters_of_any_alphabet_are_unknown():
    ids = caduceus_tokenizer().encode("AЖ\N{DNA DOUBLE HELIX}ÿT", special=False)
    assert ids.tolist() == [7, 6, 6, 6, 10]


def test_batch_is_padded_on_the_left():
    tokenizer = hyenadna_tokenizer(standalone=True)
    batch = tokenizer.encode_batch(["ACG", "", "ACGTACGT"], special=True, max_length=6)
    assert batch.tolist() == [[4, 0, 7, 8, 9, 1], [4, 4, 4, 4, 0, 1], [0, 7, 8, 9, 10, 1]]
    assert tokenizer.encode_batch(["", "A"]).tolist() == [[4], [7]]
    assert tokenizer.encode_batch([]).shape == (0, 0)


def test_rates_of_masks():
    ids = torch.randint(7, 11, (1000, 1000), generator=torch.Generator().manual_seed(1))
    before = ids.clone()
    inputs, labels = mask_tokens(ids, generator=torch.Generator().manual_seed(2))
    chosen = labels != IGNORE
    assert ids.equal(before)
    assert inputs[~chosen].equal(ids[~chosen])
    assert labels[chosen].equal(ids[chosen])

    def near(share, wanted, count):
        # Five standard deviations.
        assert abs(share - wanted) < 5 * (wanted * (1 - wanted) / count) ** 0.5

    count = int(chosen.sum())
    near(count / ids.numel(), 0.15, ids.numel())
    near((inputs[chosen] == 3).float().mean().item(), 0.8 + 0.1 / 12, count)
    near((inputs[chosen] == ids[chosen]).float().mean().item(), 0.1 + 0.1 / 12, count)


def test_masks_follow_the_seed():
    ids = torch.randint(7, 11, (4, 100))
    draws = [mask_tokens(ids, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert draws[0][0].equal(draws[1][0])
    assert not draws[0][0].equal(draws[2][0])
    torch.manual_seed(1)
    assert mask_tokens(ids)[0].equal(draws[0][0])
    nothing = mask_tokens(ids, rate=0.0)
    assert nothing[0].equal(ids) and nothing[1].eq(IGNORE).all()
    with pytest.raises(ValueError, match="rate is a share"):
        mask_tokens(ids, rate=1.5)
