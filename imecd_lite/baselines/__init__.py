"""The systems IMECD is compared with, one a file, all with IMECD's interface."""

from imecd_lite.baselines.bert4rec import BERT4Rec
from imecd_lite.baselines.caser import Caser
from imecd_lite.baselines.diffurec import DiffuRec
from imecd_lite.baselines.diqdiff import DiQDiff
from imecd_lite.baselines.gru4rec import GRU4Rec
from imecd_lite.baselines.hm4sr import HM4SR
from imecd_lite.baselines.missrec import MISSRec
from imecd_lite.baselines.mmmlp import MMMLP
from imecd_lite.baselines.popularity import Popularity
from imecd_lite.baselines.sasrec import SASRec, SASRecFeatures, SASRecRepeat
from imecd_lite.baselines.unisrec import UniSRec

__all__ = [
    "HM4SR",
    "MMMLP",
    "BERT4Rec",
    "Caser",
    "DiQDiff",
    "DiffuRec",
    "GRU4Rec",
    "MISSRec",
    "Popularity",
    "SASRec",
    "SASRecFeatures",
    "SASRecRepeat",
    "UniSRec",
]
