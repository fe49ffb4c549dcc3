"""What is kept of a run comes back as it was, and nothing else is taken for it."""

import numpy as np
import pytest

from imecd_lite.errors import InputError
from imecd_lite.files import read_tensors, write_tensors
from imecd_lite.results import Outcome, load_outcome, load_outcomes, save_outcome, stack_ranks

RANKS = np.array([3, 1, 40_000, 12])
TOP = np.arange(40).reshape(4, 10)


def test_an_outcome_comes_back_whatever_its_numbers(tmp_path):
    for ranks, top in ((RANKS, TOP), (RANKS[:2], None)):
        saved = Outcome(ranks, top, {"seconds": 1.5, "test": {"metrics": {"hit@5": 0.25}}}, {"model": "sasrec"})
        save_outcome(tmp_path / "one.safetensors", saved)
        loaded = load_outcome(tmp_path / "one.safetensors")
        assert loaded.ranks.tolist() == ranks.tolist() and loaded[2:] == saved[2:]
        assert (loaded.top is None) if top is None else loaded.top.tolist() == top.tolist()


def test_seeds_come_in_their_order_and_a_longer_name_is_another_run(tmp_path):
    for name, seed in (("sasrec", 10), ("sasrec", 2), ("sasrec", 0), ("sasrec-features", 1)):
        outcome = Outcome(np.full(3, seed + 1), None, {}, {})
        save_outcome(tmp_path / "cells" / f"{name}-seed-{seed}.safetensors", outcome)
    first = tmp_path / "cells/sasrec-seed-0.safetensors"
    first.with_name("sasrec-seed-0 (1).safetensors").write_bytes(first.read_bytes())  # as a file manager copies
    assert stack_ranks(load_outcomes(tmp_path, "sasrec")).tolist() == [[1] * 3, [3] * 3, [11] * 3]
    assert stack_ranks(load_outcomes(tmp_path, "sasrec-features")).tolist() == [[2] * 3]
    with pytest.raises(InputError, match="holds no run of 'imecd'; reproduce a table or figure that has it"):
        load_outcomes(tmp_path, "imecd")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "one.safetensors"
    with pytest.raises(InputError, match="is not there"):
        load_outcome(path)
    save_outcome(path, Outcome(RANKS, TOP, {}, {}))
    write_tensors(path, read_tensors(path)[0])
    with pytest.raises(InputError, match="is not what is kept of a run; delete it"):
        load_outcome(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"not a whole safetensors file .*; delete it and reproduce its table"):
        load_outcome(path)
