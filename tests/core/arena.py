"""Tiny files in the formats in which Long Range Arena's texts are published."""


def reviews(root, count):
    """``count`` reviews of each kind and part, in the layout of ``aclImdb``."""
    for part in ("train", "test"):
        for kind in ("pos", "neg"):
            folder = root / part / kind
            folder.mkdir(parents=True)
            for index in range(count):
                stars = 8 if kind == "pos" else 2
                text = f"A {kind} film.<br /><br />Caf\u00e9 {index} of {part}."
                (folder / f"{index}_{stars}.txt").write_bytes(text.encode())
    return root


def papers(root, count):
    """``count`` pairs of each part, in the format of ``new_aan_pairs.*.tsv``."""
    root.mkdir()
    for part in ("train", "eval", "test"):
        lines = (
            "\t".join(
                [f"{i % 2}.0", f"P0{i}-1001", f"W9{i}-2", f'On "{part}" {i}', f"Again \u00e9{i}"]
            )
            for i in range(count)
        )
        (root / f"new_aan_pairs.{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def listops(root):
    """The release's header and two expressions a part, with its round brackets."""
    root.mkdir()
    rows = (
        ("( ( ( [MAX 2 ) 9 ) ] )", 9),
        ("( ( ( ( [SM 8 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 9 ) ] )", 1),
    )
    for part in ("train", "val", "test"):
        lines = ["Source\tTarget", *(f"{source}\t{value}" for source, value in rows)]
        (root / f"basic_{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
