"""Groups of users against a plain loop over them."""

import numpy as np
import pandas as pd
import tiny

from imecd_lite.slices import COLD, EVERYBODY, thirds, user_slices

DATASET = tiny.tiny_dataset()
SPLIT = DATASET.split("test")
KINDS = ["bear", "blocks", "drum"]
ITEMS = pd.DataFrame(
    {
        "kind": [KINDS[i % 3] for i in range(DATASET.num_items)],
        "misleading": [["", "text", "image"][i // 5 % 3] for i in range(DATASET.num_items)],
    },
    index=DATASET.item_ids,
)


def test_training_purchases_leave_out_what_is_held_out():
    counts = [
        sum(item in seq[:-2][[k]] for seq in DATASET.sequences for k in range(len(seq) - 2)) for item in range(14)
    ]
    assert DATASET.train_counts.tolist() == counts and counts[0] == 0


def test_each_slice_holds_whom_its_name_says():
    slices = user_slices(DATASET, SPLIT, ITEMS)
    assert slices.pop(EVERYBODY).all()
    for user, (history, target) in enumerate(zip(SPLIT.histories, SPLIT.targets, strict=True)):
        row, had = ITEMS.iloc[target - 1], {ITEMS["kind"].iloc[item - 1] for item in history}
        bought = DATASET.train_counts[target]
        planted = {
            f"next item cold: at most {COLD} times": bought <= COLD,
            "next item honest": row["misleading"] == "",
            "next item’s text misleads": row["misleading"] == "text",
            "next item’s picture misleads": row["misleading"] == "image",
            "next item of a kind she has": row["kind"] in had,
            "next item of a new kind": row["kind"] not in had,
        }
        for name, rows in slices.items():
            if name in planted:
                assert rows[user] == planted[name], name
            else:
                value = len(history) if name.startswith("history") else bought
                low, *rest = (int(word) for word in name.split() if word.isdigit())
                assert rows[user] == (low <= value <= (rest or [low])[0]), name
    assert all(rows.any() for rows in slices.values())


def test_thirds_are_a_partition_and_as_even_as_ties_allow():
    parts = thirds(np.arange(9), "{}")
    assert {name: rows.sum() for name, rows in parts.items()} == {"0 to 2": 3, "3 to 5": 3, "6 to 8": 3}
    assert [rows.sum() for rows in thirds(np.repeat([1, 2, 3], 20), "{}").values()] == [20] * 3
    parts = thirds(np.array([4, 4, 4, 4, 9]), "{} items")
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "4 items": [True] * 4 + [False],
        "9 items": [False] * 4 + [True],
    }


def test_without_a_truth_nothing_planted_is_spoken_of():
    names = set(user_slices(DATASET, SPLIT))
    assert EVERYBODY in names and not any("kind" in name or "mislead" in name or "honest" in name for name in names)
