"""The numbers that the paper reports (Tables I to III), and what it says of Figures 4 to 7, which give none."""

from __future__ import annotations

import io

import pandas as pd


def read(text: str) -> pd.DataFrame:
    """A table of columns separated by blanks, "~" standing for a blank in a name."""
    table = pd.read_csv(io.StringIO(text), sep=r"\s+")
    return table.replace("~", " ", regex=True)


TABLE1 = read(
    """
    dataset users items interactions avg_length
    Toys 147356 49637 1258412 8.54
    Games 39828 11364 343349 8.62
    Instruments 18870 6619 152271 8.07
    Food 107203 32896 946309 8.83
    """
)
"""Table I: a row for each data set."""

TABLE2 = read(
    """
    dataset metric GRU4Rec SASRec BERT4Rec Caser DiffuRec DiQDiff UniSRec MISSRec MMMLP HM4SR IMECD
    Toys H@5 0.0633 0.0732 0.0398 0.0155 0.0776 0.0779 0.0486 0.0791 0.0792 0.0794 0.0825
    Toys H@10 0.0768 0.0924 0.0515 0.0220 0.0961 0.0938 0.0638 0.0961 0.0935 0.0955 0.0977
    Toys N@5 0.0518 0.0547 0.0307 0.0109 0.0614 0.0632 0.0377 0.0586 0.0643 0.0642 0.0679
    Toys N@10 0.0561 0.0609 0.0345 0.0130 0.0673 0.0683 0.0426 0.0638 0.0696 0.0694 0.0728
    Games H@5 0.0986 0.0948 0.0531 0.0326 0.1033 0.1032 0.0870 0.1004 0.1084 0.1075 0.1133
    Games H@10 0.1361 0.1319 0.0813 0.0548 0.1404 0.1386 0.1240 0.1343 0.1434 0.1466 0.1485
    Games N@5 0.0752 0.0701 0.0360 0.0200 0.0793 0.0813 0.0621 0.0715 0.0835 0.0830 0.0883
    Games N@10 0.0872 0.0820 0.0451 0.0271 0.0912 0.0927 0.0740 0.0819 0.0955 0.0956 0.0997
    Instruments H@5 0.1041 0.1061 0.0380 0.0603 0.1027 0.1041 0.0933 0.1076 0.1084 0.1094 0.1120
    Instruments H@10 0.1238 0.1247 0.0632 0.0736 0.1190 0.1182 0.1167 0.1220 0.1280 0.1288 0.1305
    Instruments N@5 0.0900 0.0894 0.0232 0.0519 0.0907 0.0920 0.0841 0.0916 0.0937 0.0955 0.0975
    Instruments N@10 0.0964 0.0954 0.0314 0.0562 0.0959 0.0966 0.0916 0.0942 0.1000 0.1020 0.1034
    Food H@5 0.1329 0.1324 0.0917 0.0655 0.1373 0.1364 0.1021 0.1324 0.1374 0.1356 0.1401
    Food H@10 0.1488 0.1496 0.1060 0.0769 0.1525 0.1530 0.1218 0.1456 0.1534 0.1520 0.1556
    Food N@5 0.1164 0.1126 0.0768 0.0505 0.1185 0.1202 0.0797 0.1152 0.1164 0.1162 0.1216
    Food N@10 0.1215 0.1182 0.0815 0.0542 0.1230 0.1232 0.0860 0.1192 0.1222 0.1215 0.1266
    """
)
"""Table II: a row for each data set and metric, a column for each system."""

TABLE3 = read(
    """
    dataset variant H@5 H@10 N@5 N@10
    Toys w/o~ID-MoE 0.0811 0.0962 0.0667 0.0720
    Toys w/o~MS-VQ 0.0820 0.0971 0.0671 0.0715
    Toys w/o~CDG_CL 0.0820 0.0969 0.0676 0.0722
    Toys w/o~Text 0.0806 0.0958 0.0665 0.0714
    Toys w/o~Image 0.0794 0.0958 0.0651 0.0703
    Toys IMECD 0.0825 0.0977 0.0679 0.0728
    Games w/o~ID-MoE 0.1098 0.1478 0.0845 0.0968
    Games w/o~MS-VQ 0.1124 0.1450 0.0874 0.0979
    Games w/o~CDG_CL 0.1128 0.1473 0.0878 0.0990
    Games w/o~Text 0.1095 0.1431 0.0856 0.0964
    Games w/o~Image 0.1130 0.1451 0.0877 0.0979
    Games IMECD 0.1133 0.1485 0.0883 0.0997
    Instruments w/o~ID-MoE 0.1112 0.1297 0.0960 0.1028
    Instruments w/o~MS-VQ 0.1111 0.1301 0.0969 0.1024
    Instruments w/o~CDG_CL 0.1109 0.1300 0.0964 0.1023
    Instruments w/o~Text 0.1081 0.1256 0.0948 0.1004
    Instruments w/o~Image 0.1096 0.1268 0.0960 0.1015
    Instruments IMECD 0.1120 0.1305 0.0975 0.1034
    Food w/o~ID-MoE 0.1397 0.1550 0.1207 0.1262
    Food w/o~MS-VQ 0.1396 0.1552 0.1214 0.1261
    Food w/o~CDG_CL 0.1388 0.1541 0.1210 0.1259
    Food w/o~Text 0.1396 0.1544 0.1211 0.1260
    Food w/o~Image 0.1391 0.1552 0.1213 0.1264
    Food IMECD 0.1401 0.1556 0.1216 0.1266
    """
)
"""Table III: a row for each data set and variant, a column for each metric."""

FIGURES = {
    "figure4": "Toys: best at N = 10, a dip at 6. Games: best at N = 8.",
    "figure5": "Toys and Games: rising up to Z = 24, slightly lower beyond.",
    "figure6": "Toys: best at lambda_q = 0.7; no trend over lambda_c.",
    "figure7": "Games: falling, then rising, over lambda_q and over lambda_c.",
}
"""What the paper says of each figure (section IV-D)."""
