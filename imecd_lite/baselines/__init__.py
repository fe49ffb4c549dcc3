"""The systems IMECD is compared with, one a file, all with IMECD's interface."""

from imecd_lite.baselines.bert4rec import BERT4Rec
from imecd_lite.baselines.caser import Caser
from imecd_lite.baselines.gru4rec import GRU4Rec
from imecd_lite.baselines.popularity import Popularity
from imecd_lite.baselines.sasrec import SASRec, SASRecFeatures, SASRecRepeat

__all__ = ["BERT4Rec", "Caser", "GRU4Rec", "Popularity", "SASRec", "SASRecFeatures", "SASRecRepeat"]
