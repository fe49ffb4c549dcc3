"""Draw data/shop_contact_sheet.png: two toys of every kind, then some whose picture or title misleads."""

import pandas as pd

from imecd_lite.config import BUNDLED_DATA
from imecd_lite.shop import KINDS
from imecd_lite.shop_pictures import contact_sheet

SHOP = BUNDLED_DATA / "shop"
truth = pd.read_csv(SHOP / "truth/items.csv", keep_default_na=False)
chosen = []
for kind in KINDS:
    honest = truth[(truth["kind"] == kind) & (truth["misleading"] == "")]
    chosen += [(item, kind) for item in honest["item_id"][:2]]
for row in truth[truth["misleading"] == "image"][:4].itertuples():
    chosen.append((row.item_id, f"really {row.kind}"))
for row in truth[truth["misleading"] == "text"][:4].itertuples():
    chosen.append((row.item_id, f"sold as {row.text_kind}"))
sheet = contact_sheet([(SHOP / f"images/{item}.png", caption) for item, caption in chosen])
sheet.quantize(64).save(BUNDLED_DATA / "shop_contact_sheet.png", optimize=True)
