"""The systems IMECD is compared with, one a file, all with IMECD's interface."""

from imecd_lite.baselines.diffurec import DiffuRec
from imecd_lite.baselines.diqdiff import DiQDiff
from imecd_lite.baselines.popularity import Popularity
from imecd_lite.baselines.sasrec import SASRec, SASRecFeatures, SASRecRepeat

__all__ = ["DiQDiff", "DiffuRec", "Popularity", "SASRec", "SASRecFeatures", "SASRecRepeat"]
