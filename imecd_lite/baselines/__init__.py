"""The systems IMECD is compared with, one a file, all with IMECD's interface."""

from imecd_lite.baselines.hm4sr import HM4SR
from imecd_lite.baselines.mmmlp import MMMLP
from imecd_lite.baselines.popularity import Popularity
from imecd_lite.baselines.sasrec import SASRec, SASRecFeatures, SASRecRepeat

__all__ = ["HM4SR", "MMMLP", "Popularity", "SASRec", "SASRecFeatures", "SASRecRepeat"]
