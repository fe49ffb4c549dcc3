"""The systems IMECD is compared with, one a file, all with IMECD's interface."""

from imecd_lite.baselines.popularity import Popularity

__all__ = ["Popularity"]
