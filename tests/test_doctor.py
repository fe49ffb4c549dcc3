"""The doctor: finds what is wrong and says what to do."""

import sys

import pytest

from imecd_lite import doctor


def test_a_sound_machine_passes():
    lines = []
    assert doctor.doctor(lines.append) == 0, lines
    assert lines[-1].endswith("ready to go.")
    assert all(line.startswith("ok") for line in lines[:-1])


def test_another_version_and_a_missing_package_are_named(monkeypatch):
    monkeypatch.setattr(doctor, "CORE_PACKAGES", ("numpy", "no-such-package"))
    wrong, missing = doctor.check_packages({"numpy": "0.1"})
    assert not wrong.passed
    assert "not 0.1; run `make setup`" in wrong.text
    assert not missing.passed
    assert "no-such-package is missing" in missing.text


def test_changed_data_is_noticed(monkeypatch, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/items.csv").write_text("item_id\n1\n")
    monkeypatch.setattr(doctor, "BUNDLED_DATA", tmp_path)
    monkeypatch.setattr(doctor, "SUMS_FILE", tmp_path / "SHA256SUMS")
    digest = doctor.hash_bundled_data()["shop"]
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  shop\n")
    assert [check.passed for check in doctor.check_bundled_data()] == [True]
    (tmp_path / "shop/items.csv").write_text("item_id\n2\n")
    (check,) = doctor.check_bundled_data()
    assert not check.passed
    assert "git checkout data" in check.text


def test_a_missing_file_is_a_finding_with_the_way_to_get_it_back(monkeypatch, tmp_path):
    for name in ("CONSTRAINTS", "SUMS_FILE"):
        monkeypatch.setattr(doctor, name, tmp_path / name)
    lines = []
    assert doctor.doctor(lines.append) == 1
    broken = [line for line in lines if line.startswith("BROKEN")]
    assert len(broken) == 2 and all("is missing; run `git checkout data constraints.txt`" in line for line in broken)


def test_the_committed_sums_are_current():
    noted = dict(line.split()[::-1] for line in doctor.SUMS_FILE.read_text().splitlines())
    assert noted == doctor.hash_bundled_data(), "run `make hashes`"


def test_a_fault_gives_a_verdict_and_a_status(monkeypatch):
    monkeypatch.setattr(doctor, "run_checks", lambda: iter([doctor.Check(True, "a"), doctor.Check(False, "b")]))
    lines = []
    assert doctor.doctor(lines.append) == 1
    assert lines == ["ok     a", "BROKEN b", "1 of 2 checks failed."]


@pytest.mark.parametrize("package", ["torch", "jupyter_client.kernelspec", "psutil"])
def test_a_package_that_cannot_be_imported_is_a_finding_like_any_other(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    if package == "torch":
        monkeypatch.delitem(sys.modules, "imecd_lite.files")  # it needs it, and is to look anew
    lines = []
    assert doctor.doctor(lines.append) == 1
    assert any(package in line and "run `make setup`" in line for line in lines if line.startswith("BROKEN"))
    assert lines[-1].endswith("checks failed.")


@pytest.mark.parametrize("check", [doctor.check_kernel, doctor.check_widget_manager, doctor.check_memory])
def test_each_part_passes_here(check):
    assert check().passed
