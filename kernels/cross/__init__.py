"""Selective scans along several routes at once, and the routes over a map by themselves."""

from tristate.kernels.cross.bidirectional import bidirectional_selective_scan
from tristate.kernels.cross.grid import selective_scan_2d
from tristate.kernels.cross.routes import CROSS, Route, cross_merge, cross_restore, cross_scan

__all__ = [
    "CROSS",
    "Route",
    "bidirectional_selective_scan",
    "cross_merge",
    "cross_restore",
    "cross_scan",
    "selective_scan_2d",
]
