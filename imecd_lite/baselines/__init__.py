"""The systems IMECD is compared with, one a file, all with IMECD's interface."""

from imecd_lite.baselines.missrec import MISSRec
from imecd_lite.baselines.popularity import Popularity
from imecd_lite.baselines.sasrec import SASRec, SASRecFeatures, SASRecRepeat
from imecd_lite.baselines.unisrec import UniSRec

__all__ = ["MISSRec", "Popularity", "SASRec", "SASRecFeatures", "SASRecRepeat", "UniSRec"]
