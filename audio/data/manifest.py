"""Clips named in a table, or found in folders."""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import soundfile

from tristate.audio.data.archive import is_archive, members, split_member
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest

KINDS = (".csv", ".jsonl")


@dataclass(frozen=True)
class Clip:
    """A recording or a part of one.

    Args:
        path: the file, or ``ARCHIVE.tar/MEMBER``.
        start: seconds from the beginning of the file.
        end: seconds from the beginning of the file; None for its end.
        label: what it is; None where that is not known.
        where: the manifest and the line that name it, for errors.
        more: the manifest's other columns.
    """

    path: Path
    start: float = 0.0
    end: float | None = None
    label: str | None = None
    where: str = ""
    more: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.start and self.end is None:
            return str(self.path)
        return f"{self.path}[{self.start:g}:{'' if self.end is None else f'{self.end:g}'}]"


def read_manifest(file: str | Path, *, need: Sequence[str] = ()) -> list[Clip]:
    """The clips that ``file`` lists, in its order.

    A CSV has a header; a JSONL has an object on each line; either may be compressed (``.gz``).
    Columns: ``path`` (taken from the manifest's folder where it is relative), and where wanted
    ``start`` and ``end`` in seconds, ``label``, and others, which are kept as text.

    Args:
        file: the manifest, UTF-8.
        need: columns that each row must fill, beside ``path``.

    Raises:
        UserError: the manifest is missing, empty or not readable, a column or a value is missing, a
            clip's file does not exist, or its end does not come after its start; with file, line
            and value.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"there is no manifest {file}")
    plain = file.with_suffix("") if file.suffix == ".gz" else file
    if plain.suffix not in KINDS:
        raise UserError(
            f"a manifest is called *{' or *'.join(KINDS)} (or that and .gz), not {file}"
        )
    rows = _csv_rows if plain.suffix == ".csv" else _jsonl_rows
    clips = []
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8-sig", newline="")
            if file != plain
            else open(file, encoding="utf-8-sig", newline="") as text
        ):
            for line, row in rows(text, file):
                clips.append(_clip(row, file.parent, f"{file}, line {line}", need))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): replace it") from error
    if not clips:
        raise UserError(f"{file} lists no clip")
    return clips


def _csv_rows(text: TextIO, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    f"{file}, line {reader.line_num}: {len(reader.fieldnames or [])} columns are "
                    "wanted, as in the header, and the row has "
                    + ("more" if None in row else "fewer")
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num + 1}: no CSV ({error})") from error


def _jsonl_rows(text: TextIO, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}, line {number}: no JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise UserError(f"{file}, line {number}: an object is wanted, got {line.strip()[:60]}")
        yield number, row


def _clip(row: dict[str, Any], folder: Path, where: str, need: Sequence[str]) -> Clip:
    for column in ("path", *need):
        if column not in row:
            raise UserError(f"{where}: there is no column {column!r}; {nearest(column, row)}")
        if row[column] in ("", None):
            raise UserError(f"{where}: the column {column!r} is empty")
    values = dict(row)
    path = folder / str(values.pop("path"))
    start, end = (_seconds(values.pop(name, None), name, where) for name in ("start", "end"))
    label = values.pop("label", None)
    if end is not None and end <= (start or 0.0):
        raise UserError(f"{where}: the end {end:g} must come after the start {start or 0:g}")
    if not _exists(path):
        raise UserError(f"{where}: there is no file {path}")
    return Clip(
        path,
        start or 0.0,
        end,
        None if label in ("", None) else str(label),
        where,
        {name: "" if value is None else str(value) for name, value in values.items()},
    )


def _seconds(value: Any, name: str, where: str) -> float | None:
    if value in ("", None):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{where}: {name} is a time in seconds from 0 on, got {value!r}")
    return seconds


def _exists(path: Path) -> bool:
    if path.is_file():
        return True
    member = split_member(path)
    return member is not None and member[1] in members(member[0])


def find_clips(paths: str | Sequence[str]) -> list[Clip]:
    """The clips that ``paths`` name, to predict on.

    Args:
        paths: one or several of: a sound file, a folder (all below it that libsndfile may decode,
            in order), a tar (plain or ``.tar.gz``), a manifest.

    Raises:
        UserError: a path does not exist or holds no clip.
    """
    found: list[Clip] = []
    for path in map(Path, [paths] if isinstance(paths, str) else paths):
        if path.is_dir():
            inside = [Clip(p) for p in sorted(path.rglob("*")) if _is_sound(p) and p.is_file()]
        elif is_archive(path):
            inside = [Clip(path / name) for name in members(path) if _is_sound(Path(name))]
        elif _is_manifest(path) and path.is_file():
            inside = read_manifest(path)
        elif _exists(path):
            inside = [Clip(path)]
        else:
            raise UserError(f"there is no file or folder {path}")
        if not inside:
            raise UserError(f"there is no sound file ({', '.join(sorted(_suffixes()))}) in {path}")
        found += inside
    return found


def _is_manifest(path: Path) -> bool:
    return any(path.name.endswith((kind, f"{kind}.gz")) for kind in KINDS)


def _is_sound(path: Path) -> bool:
    return path.suffix.lower() in _suffixes()


def _suffixes() -> set[str]:
    # RAW has no header: it cannot be read without being told how.
    known = {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}
    return known | {".aif", ".mp3", ".oga", ".opus"}
