"""Annotated sequences in GenBank's flat file format."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tristate.bio.data.files import read_lines
from tristate.core.errors import UserError

_FEATURE = re.compile(r" {5}(\S+) +(\S.*)")
_RANGE = re.compile(r"<?(\d+)(?:\.\.>?(\d+))?")
_BESIDES = re.compile(r"complement|join|order|[(),<>.\d\s]")


class Feature(NamedTuple):
    """What stands at a place of a sequence.

    Attributes:
        kind: ``CDS``, ``tRNA``, ``gene``, ...
        pieces: its ``(start, end)``, 0-based and half-open on the strand ``+``, in order.
        minus: whether it is read on the other strand.
    """

    kind: str
    pieces: list[tuple[int, int]]
    minus: bool


class Record(NamedTuple):
    """A sequence and its features.

    Attributes:
        name: of the locus.
        sequence: upper-case letters.
        features: in the order of the file.
    """

    name: str
    sequence: str
    features: list[Feature]


def read_genbank(path: str | Path) -> Iterator[Record]:
    """The records of a GenBank file, plain or compressed.

    A piece that goes on beyond a record's ends (``<1..227``) is taken up to there.

    Raises:
        UserError: the file is missing, damaged or no GenBank file, or a record is cut short, has no
            letters, or has a feature at a place that cannot be read or lies beyond its end.
    """
    name, places, letters, part = "", [], [], "head"
    line = 0
    for line, text in read_lines(path):
        if text.startswith("LOCUS"):
            fields = text.split()
            if name:
                raise UserError(f"{path}:{line} begins a record inside of {name}: wanted // first")
            if len(fields) < 2:
                raise UserError(f"{path}:{line} begins a record without a name")
            name, places, letters, part = fields[1], [], [], "head"
        elif not name:
            raise UserError(f"{path}:{line} must begin with LOCUS, got {text[:40]!r}")
        elif text.startswith("//"):
            yield _record(path, line, name, "".join(letters), places)
            name = ""
        elif text.startswith("FEATURES"):
            part = "features"
        elif text.startswith("ORIGIN"):
            part = "letters"
        elif part == "letters":
            letters.append(re.sub(r"[\d\s]", "", text).upper())
        elif part == "features":
            match = _FEATURE.fullmatch(text)
            if match:
                places.append((line, match[1], [match[2]]))
            elif places and not places[-1][2][-1].startswith("/"):
                # A place goes on until the first qualifier; what follows that is passed over.
                places[-1][2].append(text.strip())
    if name:
        raise UserError(f"{path}:{line} ends inside of the record {name}: fetch it again")


def _record(
    path: str | Path, line: int, name: str, sequence: str, places: list[tuple[int, str, list[str]]]
) -> Record:
    if not sequence:
        raise UserError(f"{path}:{line} ends the record {name}, which has no letters (ORIGIN)")
    features = []
    for number, kind, texts in places:
        place = "".join(text for text in texts if not text.startswith("/"))
        # GenBank counts from 1 and names the last base.
        ranges = [(int(a) - 1, int(b or a)) for a, b in _RANGE.findall(place)]
        if not ranges or _BESIDES.sub("", place):
            raise UserError(f"{path}:{number} has a {kind} at {place!r}: wanted START..END")
        if any(not 0 <= start < end <= len(sequence) for start, end in ranges):
            raise UserError(
                f"{path}:{number} has a {kind} at {place!r}, but {name} has {len(sequence)} bases"
            )
        features.append(Feature(kind, sorted(ranges), "complement" in place))
    return Record(name, sequence, features)
