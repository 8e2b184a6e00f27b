"""Labelled windows: a table's rows, parted by group, and the embedded splice sites."""

import pytest
import torch

from tristate.bio.data.files import read_lines
from tristate.bio.data.genes import Gene, read_genes
from tristate.bio.data.labelled import LabelledWindows, held_out
from tristate.bio.data.splice.baseline import linear_accuracy
from tristate.bio.data.splice.build import read_genes as read_annotated
from tristate.bio.data.splice.build import windows
from tristate.bio.data.splice_sites import EMBEDDED, SpliceSites
from tristate.bio.data.tokenize import caduceus_tokenizer
from tristate.bio.data.tsv import Labelled, read_tsv
from tristate.core.errors import UserError

HEAD = "label\tsequence\tgene\n"


@pytest.fixture(scope="module")
def splice() -> SpliceSites:
    data = SpliceSites(seed=1)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def genes() -> dict[str, Gene]:
    return {gene.name: gene for gene in read_genes(EMBEDDED / "train_genes.fa.gz")}


def test_rows(write):
    path = write("a.tsv", HEAD + "x\tACGT\tg1\ny\tacgnR\tg2\n")
    assert read_tsv(path, group="gene") == [
        Labelled("ACGT", "x", "g1"),
        Labelled("acgnR", "y", "g2"),
    ]
    assert [row.group for row in read_tsv(path)] == ["ACGT", "acgnR"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        (HEAD, "holds no window"),
        ("label\tsequences\nx\tA\n", r":1 has no column 'sequence': did you mean sequences"),
        (HEAD + "x\tAC\tg\nx\tAC\n", r":3 has 2 columns, its first line 3"),
        (HEAD + "x\tACEF\tg\n", r":2 holds 'E', which is no base"),
        (HEAD + "x\t\tg\n", r":2 has an empty sequence"),
        (HEAD + "\tAC\tg\n", r":2 has an empty label"),
    ],
)
def test_what_is_no_table(write, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_tsv(write("a.tsv", text), group="gene")


def test_held_out_keeps_groups_whole():
    groups = [f"g{i % 40}" for i in range(400)]
    aside = held_out(groups, 0.25)
    sides = {
        group: {bool(a) for g, a in zip(groups, aside, strict=True) if g == group}
        for group in groups
    }
    assert all(len(side) == 1 for side in sides.values())
    assert aside.float().mean() == 0.25
    assert not held_out(["one"] * 9, 0.5).any()


@pytest.fixture
def table(write):
    draw = torch.Generator().manual_seed(0)
    rows = []
    for i in range(60):
        length = int(torch.randint(3, 12, (), generator=draw))
        letters = "".join("ACGT"[k] for k in torch.randint(4, (length,), generator=draw).tolist())
        rows.append(f"{'xy'[i % 2]}\t{letters}\tg{i % 20}\n")
    return write("train.tsv", HEAD + "".join(rows))


def test_batches(table, write):
    test = write("test.tsv", "sequence\tlabel\nACG\ty\nACGTACGTACGTACGT\tx\n")
    data = LabelledWindows(table, test, group="gene", val_share=0.2, batch_size=8, seed=0)
    assert data.facts["class_names"] == ["x", "y"]
    data.setup("fit")
    assert len(data.parts["train"]) + len(data.parts["val"]) == 60
    assert len(data.parts["val"]) == 12
    ids, labels = next(iter(data.test_dataloader()))
    assert ids.shape == (2, 16) and ids[0].tolist() == [4] * 13 + [7, 8, 9]
    assert labels.tolist() == [1, 0]
    ids, names = next(iter(data.predict_dataloader()))
    assert names == ["test[0]", "test[1]"]
    cut = LabelledWindows(table, test, group="gene", max_length=5, seed=0)
    cut.setup("fit")
    assert cut.facts["max_length"] == 5
    assert next(iter(cut.test_dataloader()))[0].tolist() == [[4, 4, 7, 8, 9], [7, 8, 9, 10, 7]]


def test_both_strands(table):
    def batch(**kwargs):
        data = LabelledWindows(table, table, val=table, batch_size=60, seed=0, **kwargs)
        data.setup("fit")
        return data, next(iter(data.train_dataloader()))

    data, (plain, labels) = batch()
    _, (turned, same) = batch(both_strands=True)
    assert labels.equal(same)
    text = data.tokenizer.decode
    strands = [
        text(a, skip_special=True) == text(b, skip_special=True)
        for a, b in zip(plain, turned, strict=True)
    ]
    assert 15 < sum(strands) < 45
    assert (plain == 4).equal(turned == 4)


def test_what_does_not_fit(table, write):
    one = write("one.tsv", "sequence\tlabel\nA\tx\n")
    with pytest.raises(UserError, match=r"one\.tsv has the single label 'x'"):
        LabelledWindows(one, table)
    odd = write("odd.tsv", "sequence\tlabel\nA\tz\n")
    with pytest.raises(UserError, match=r"odd\.tsv has the label 'z'"):
        LabelledWindows(table, odd).setup("fit")
    whole = write("whole.tsv", "sequence\tlabel\tg\nA\tx\t1\nC\ty\t1\n")
    with pytest.raises(UserError, match=r"whole\.tsv cannot be parted"):
        LabelledWindows(whole, table, group="g").setup("fit")
    with pytest.raises(ValueError, match="go together"):
        LabelledWindows(table, table, predict_fasta="a.fa")
    with pytest.raises(ValueError, match="val_share"):
        LabelledWindows(table, table, val_share=1.0)


def test_splice_sites_are_those_of_the_genes(genes, splice):
    rows = [line.split("\t") for line in _lines("train")]
    assert len(rows) == 8528 and len(genes) == 486
    for sequence, label, name, position in rows:
        gene, place = genes[name], int(position)
        assert gene.window(place) == sequence
        assert (place in gene.donors) == (label == "donor")
        assert (place in gene.acceptors) == (label == "acceptor")
        if label == "decoy":
            assert sequence[40:42] == "GT" or sequence[38:40] == "AG"
    sites = sum(len(gene.donors) + len(gene.acceptors) for gene in genes.values())
    assert sites == sum(label != "decoy" for _, label, *_ in rows)


def _lines(part: str) -> list[str]:
    return [line for _, line in read_lines(EMBEDDED / f"{part}.tsv.gz")][1:]


def test_genes_of_the_parts_differ(splice):
    train, test = ({line.split("\t")[2] for line in _lines(part)} for part in ("train", "test"))
    assert not train & test
    assert len(_lines("test")) == 1814
    decoys = [line for line in _lines("test") if "\tdecoy\t" in line]
    assert round(len(decoys) / 1814, 2) == 0.59
    source = splice.parts["train"]
    kept = {gene.name for gene in _genes_of(source)}
    rows = read_tsv(EMBEDDED / "train.tsv.gz", group="gene")
    aside = held_out([row.group for row in rows], 0.1).tolist()
    val = {row.group for row, out in zip(rows, aside, strict=True) if out}
    assert val and not val & kept and val | kept == {row.group for row in rows}


def _genes_of(source) -> list[Gene]:
    everything = {gene.name: gene for gene in read_genes(EMBEDDED / "train_genes.fa.gz")}
    rows = read_tsv(EMBEDDED / "train.tsv.gz", group="gene")
    texts = {row.sequence: row.group for row in rows}
    decode = caduceus_tokenizer().decode
    return [everything[texts[decode(ids)]] for ids in source.ids]


def test_fresh_decoys(genes, splice):
    loader = splice.train_dataloader()
    found = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        found.append((torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])))
    decode = splice.tokenizer.decode
    decoy = splice.class_names.index("decoy")
    texts = [[decode(i) for i in ids[labels == decoy][:300]] for ids, labels in found]
    assert len(set(texts[0]) & set(texts[1])) < 20
    every = {gene.window(int(place)) for gene in genes.values() for place in gene.decoys()}
    assert set(texts[0]) <= every
    sites = {
        decode(ids) for ids in splice.parts["train"].ids[splice.parts["train"].labels != decoy]
    }
    assert {decode(ids) for ids in found[0][0][found[0][1] != decoy]} <= sites
    share = [(labels == decoy).float().mean().item() for _, labels in found]
    assert share == pytest.approx([0.59, 0.59], abs=0.02)


def test_fresh_decoys_are_of_the_windows_gene(genes, splice):
    source = splice.parts["train"]
    rows = (source.labels == splice.class_names.index("decoy")).nonzero()[:200, 0]
    ids, _ = source.batch(rows, torch.Generator().manual_seed(0))
    owners = _genes_of(source)
    for row, window in zip(rows.tolist(), ids, strict=True):
        gene = owners[row]
        assert splice.tokenizer.decode(window) in {gene.window(int(p)) for p in gene.decoys()}


def test_splice_prediction_wants_80_bases(write):
    fasta = write("g.fa", ">c\n" + "ACGT" * 50 + "\n")
    good = SpliceSites(predict_fasta=fasta, predict_bed=write("a.bed", "c\t0\t80\n"), seed=0)
    assert next(iter(good.predict_dataloader()))[1] == ["c:0-80(+)"]
    bad = SpliceSites(predict_fasta=fasta, predict_bed=write("b.bed", "c\t0\t81\n"), seed=0)
    with pytest.raises(UserError, match=r"b\.bed:1 has 81 bases: wanted 80"):
        bad.predict_dataloader()


def test_some_training_letters_are_misread(write):
    rows = "".join(f"{label}\t{'ACGTN' * 40}\t{i}\n" for i in range(20) for label in "xy")
    path = write("a.tsv", HEAD + rows)
    data = LabelledWindows(path, path, group="gene", misread=0.3, seed=0)
    data.setup("fit")
    plain = data.parts["val"].batch(torch.arange(2), torch.Generator())[0]
    truth = data.tokenizer.encode_batch(["ACGTN" * 40])
    assert (plain == truth).all()
    source, order = data.parts["train"], torch.arange(len(data.parts["train"]))
    ids, _ = source.batch(order, torch.Generator().manual_seed(0))
    again, _ = source.batch(order, torch.Generator().manual_seed(0))
    other, _ = source.batch(order, torch.Generator().manual_seed(1))
    assert (ids == again).all() and (ids != other).any()
    known = truth != truth[0, 4]
    assert ((ids == truth) | known).all(), "N stays N"
    assert set(ids.unique().tolist()) == set(truth.unique().tolist())
    # A quarter of what is drawn is the letter that was there; 5,760 draws, 5 deviations.
    wrong = (ids != truth)[:, known[0]].double().mean().item()
    assert abs(wrong - 0.3 * 0.75) < 0.028
    with pytest.raises(ValueError, match="misread is a share"):
        LabelledWindows(path, path, misread=1.5)


def test_genes_on_the_other_strand(tmp_path):
    intron = "GT" + "A" * 56 + "AG"
    gene = "C" * 50 + "ATG" + intron + "TTTTAA" + "C" * 50
    other = gene[::-1].translate(str.maketrans("ACGT", "TGCA"))

    def record(name: str, sequence: str, place: str) -> str:
        body = "\n".join(
            f"{i + 1:9} {sequence[i : i + 60].lower()}" for i in range(0, len(sequence), 60)
        )
        return (
            f"LOCUS       {name}   {len(sequence)} bp  DNA\nFEATURES             Location\n"
            f'     CDS             {place}\n                     /gene="1"\nORIGIN\n{body}\n//\n'
        )

    length = len(gene)
    place = f"complement(join(51..56,1\n                     17..{length - 50}))"
    path = tmp_path / "genes.gb"
    path.write_text(
        record("a", gene, f"join(51..53,114..{length - 50})") + record("b", other, place)
    )
    first, second = read_annotated(path)
    assert first == Gene("a", gene, [(50, 53), (113, 119)])
    assert second == Gene("b", gene, [(50, 53), (113, 119)])
    assert first.donors == [53] and first.acceptors == [113]
    assert windows([first], set()).splitlines()[1:] == [
        f"{gene[13:93]}\tdonor\ta\t53",
        f"{gene[73:153]}\tacceptor\ta\t113",
    ]


def test_linear_baseline_sees_single_letters_and_no_pairs():
    ids = torch.randint(7, 11, (600, 12), generator=torch.Generator().manual_seed(0))

    def accuracy(labels: torch.Tensor) -> float:
        labels = labels.long()
        return linear_accuracy((ids[:400], labels[:400]), (ids[400:], labels[400:]), n_ids=12)

    assert accuracy(ids[:, 5] == 8) == 1.0
    parity = (ids[:, 3] + ids[:, 7]) % 2
    assert accuracy(parity) < 0.65
