"""Pictures of dashed paths that keep away from each other: Pathfinder's, one after another."""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

SPACING = 0.7  # pixels between the points at which a path is looked at
TURNS = 6  # directions that a dash tries before those in front of it are taken back
BUDGET = 250  # dashes that a path tries before it begins elsewhere
PLACES = 8  # where it tries to begin before all is begun anew; a short path is left out then


class Style(NamedTuple):
    """Sizes of a picture, in pixels where nothing else is said.

    Attributes:
        side: of the picture.
        dash: length of a dash.
        gap: from the end of a dash to the beginning of the next.
        clearance: least distance between the middle lines of two paths, and between parts of one
            that don't follow each other. Larger than ``gap``: what belongs together is near.
        thickness: of a dash.
        radius: of the discs.
        apart: distance between the beginnings of the two long paths.
        turn: largest change of direction from a dash to the next, degrees.
        contour: dashes of a long path.
        distractor: dashes of a short path.
        n_distractors: short paths, as far as there is room for them.
        alike: how much the distance between two discs on one path may differ from that between
            discs on two.
    """

    side: int
    dash: float
    gap: float
    clearance: float
    thickness: float
    radius: float
    apart: float
    turn: float
    contour: int
    distractor: int
    n_distractors: int
    alike: float


def pictures(
    style: Style, joined: NDArray[np.bool_], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """One picture for each label.

    Two long paths begin ``style.apart`` from each other and grow dash by dash, each in a direction
    near to that of the last; short ones fill what room is left. Both labels have the same pictures:
    of the pairs of ends on one path and the pairs on two paths that pair of pairs is taken whose
    distances differ least, by ``style.alike`` at most, and discs are put on one or the other.

    Args:
        style: sizes.
        joined: whether the discs lie on one path, ``(M,)``.
        seed: of all that is random.

    Returns:
        Pictures ``(M, side, side)`` uint8, white on black; the places of the discs ``(M, 2, 2)``;
        the dashes ``(M, contour * 2 + distractor * n_distractors, 2, 2)``, beginning and end as
        ``(row, column)``, NaN for those that there was no room for.
    """
    count, side = len(joined), style.side
    dashes = 2 * style.contour + style.n_distractors * style.distractor
    images = np.zeros((count, side, side), np.uint8)
    discs, paths = np.empty((count, 2, 2)), np.empty((count, dashes, 2, 2))
    _draw(style, joined, np.random.default_rng(seed), images, discs, paths)
    return images, discs, paths


jit: Any = numba.njit(cache=True, nogil=True)


@jit
def _draw(style, joined, random, images, discs, paths):
    """Fill ``images``, ``discs`` and ``paths``, picture by picture."""
    per_dash = _count(style.gap) + _count(style.dash)
    for index in range(len(joined)):
        occupied = np.empty((len(paths[index]) * per_dash, 2))
        while not _scene(style, joined[index], random, discs[index], paths[index], occupied):
            pass
        canvas = np.zeros((style.side, style.side))
        for dash in range(len(paths[index])):
            begin, end = paths[index, dash, 0], paths[index, dash, 1]
            if not math.isnan(begin[0]):
                _stroke(canvas, begin, end, style.thickness / 2)
        for disc in range(2):
            _stroke(canvas, discs[index, disc], discs[index, disc], style.radius)
        for row in range(style.side):
            for column in range(style.side):
                images[index, row, column] = int(255 * canvas[row, column] + 0.5)


@jit
def _scene(style, joined, random, discs, paths, occupied):
    """Lay all paths and choose the discs; False where it did not come out."""
    tips = np.empty((4, 2))  # beginning and end of one path, and of the other
    n, n_tips = 0, 0
    paths[:] = np.nan
    for index in range(2 + style.n_distractors):
        long = index < 2
        length = style.contour if long else style.distractor
        first = index * style.contour
        if not long:
            first = 2 * style.contour + (index - 2) * style.distractor
        path = paths[first : first + length]
        placed = False
        for _ in range(PLACES):
            row, column = random.random() * style.side, random.random() * style.side
            if index == 1:
                angle = 2 * math.pi * random.random()
                row = tips[0, 0] + style.apart * math.sin(angle)
                column = tips[0, 1] + style.apart * math.cos(angle)
            if _grow(style, random, row, column, path, occupied[:n], tips[:n_tips], long):
                placed = True
                break
        if placed:
            n = _occupy(style, path, occupied, n)
            if long:
                tips[n_tips] = path[0, 0]
                tips[n_tips + 1] = path[length - 1, 1]
                n_tips += 2
        elif long:
            return False
        else:
            path[:] = np.nan
        if index == 1 and not _choose(style, joined, tips, discs):
            return False
    return True


@jit
def _choose(style, joined, tips, discs):
    """Put the discs on two of the four ends; False where the distances would tell which two."""
    best = style.alike
    for one in range(2):  # the path whose two ends they may be
        for a in range(2):  # the end of the first path, and of the second, that they may be
            b = 1 - a
            same = _distance(tips[2 * one], tips[2 * one + 1])
            other = _distance(tips[a], tips[2 + b])
            # Discs that touch would be one.
            if min(same, other) > 2 * style.radius + style.clearance and abs(same - other) < best:
                best = abs(same - other)
                discs[0] = tips[2 * one] if joined else tips[a]
                discs[1] = tips[2 * one + 1] if joined else tips[2 + b]
    return best < style.alike


@jit
def _grow(style, random, row, column, path, occupied, tips, long):
    """Lay the dashes of ``path`` from a place on; False where it finds no way.

    It keeps away from the points ``occupied``, farther from the ends ``tips``, where discs may be,
    and where it is ``long`` its own ends keep as far away from others.
    """
    length, gap = len(path), _count(style.gap)
    part = gap + _count(style.dash)  # points of a dash and the gap in front of it
    points = np.empty((length * part, 2))
    angles, tried = np.empty(length), np.zeros(length, np.int64)
    turn, disc = math.radians(style.turn), style.radius + style.clearance
    index = 0
    for _ in range(BUDGET):
        if tried[index] == TURNS:
            if index == 0:
                return False
            tried[index] = 0
            # Back by two: a corner lies further behind than the last dash.
            index = max(index - 2, 0)
            continue
        tried[index] += 1
        if index == 0:
            angles[0] = 2 * math.pi * random.random()
            path[0, 0, 0], path[0, 0, 1] = row, column
        else:
            change = turn * (2 * random.random() - 1)
            angles[index] = angles[index - 1] + change
            _step(path[index - 1, 1], angles[index - 1] + change / 2, style.gap, path[index, 0])
        _step(path[index, 0], angles[index], style.dash, path[index, 1])
        now = points[index * part : (index + 1) * part]
        before = path[index - 1, 1] if index else path[0, 0]
        _line(before, path[index, 0], now[:gap])
        _line(path[index, 0], path[index, 1], now[gap:])
        clear = (
            _inside(now, style.thickness, style.side - 1 - style.thickness)
            and _clear(now, occupied, style.clearance)
            and _clear(now, tips, disc)
            # The last two dashes are near in any case.
            and _clear(now, points[: max(index - 2, 0) * part], style.clearance)
        )
        if long and (index == 0 or index == length - 1):
            end = 0 if index == 0 else part - 1
            clear = clear and _clear(now[end : end + 1], occupied, disc)
        if clear:
            index += 1
            if index == length:
                return True
            tried[index] = 0
    return False


@jit
def _occupy(style, path, occupied, n):
    """Write the points along ``path`` behind the first ``n`` occupied ones; how many there are."""
    gap, dash = _count(style.gap), _count(style.dash)
    for index in range(len(path)):
        if index:
            _line(path[index - 1, 1], path[index, 0], occupied[n : n + gap])
            n += gap
        _line(path[index, 0], path[index, 1], occupied[n : n + dash])
        n += dash
    return n


@jit
def _distance(one, other):
    return math.hypot(one[0] - other[0], one[1] - other[1])


@jit
def _inside(points, low, high):
    """Whether all coordinates lie between ``low`` and ``high``."""
    for index in range(len(points)):
        if not (low <= points[index, 0] <= high and low <= points[index, 1] <= high):
            return False
    return True


@jit
def _clear(points, others, distance):
    """Whether none of ``points`` is nearer to one of ``others`` than ``distance``."""
    square = distance * distance
    for index in range(len(points)):
        row, column = points[index, 0], points[index, 1]
        for other in range(len(others)):
            by, across = others[other, 0] - row, others[other, 1] - column
            if by * by + across * across < square:
                return False
    return True


@jit
def _count(length):
    """Points that a line is looked at."""
    return int(math.ceil(length / SPACING)) + 1


@jit
def _line(begin, end, points):
    """Points from ``begin`` to ``end``, both among them."""
    last = len(points) - 1
    for index in range(len(points)):
        share = index / last
        points[index, 0] = begin[0] + share * (end[0] - begin[0])
        points[index, 1] = begin[1] + share * (end[1] - begin[1])


@jit
def _step(begin, angle, length, end):
    """Write the point at ``length`` from ``begin`` into ``end``."""
    end[0] = begin[0] + length * math.sin(angle)
    end[1] = begin[1] + length * math.cos(angle)


@jit
def _stroke(canvas, begin, end, radius):
    """A line with round ends, or a disc where both are one; its rim falls off over one pixel."""
    low, high = radius + 1, radius + 2
    down, across = end[0] - begin[0], end[1] - begin[1]
    square = max(down * down + across * across, 1e-12)
    for row in range(
        max(0, int(min(begin[0], end[0]) - low)),
        min(len(canvas), int(max(begin[0], end[0]) + high)),
    ):
        for column in range(
            max(0, int(min(begin[1], end[1]) - low)),
            min(len(canvas), int(max(begin[1], end[1]) + high)),
        ):
            by, over = row - begin[0], column - begin[1]
            share = min(max((by * down + over * across) / square, 0.0), 1.0)
            away = math.hypot(by - share * down, over - share * across)
            value = min(max(radius - away + 0.5, 0.0), 1.0)
            canvas[row, column] = max(canvas[row, column], value)
