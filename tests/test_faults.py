"""Faults that published code of this field is known for, looked for in our source and in a model at work.

Those that a number can show are planted in test_mutations.py; these can only be seen by looking.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

import imecd_lite

SOURCES = sorted(Path(imecd_lite.__file__).parent.rglob("*.py"))
NAMES = [path.stem for path in SOURCES]


def nodes(path: Path, *kinds: type) -> Iterator[ast.AST]:
    return (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.name}, line {node.lineno}: {ast.unparse(node)[:80]}"


def named(node: ast.AST) -> set[str]:
    """The dotted names in an expression: torch.load -> {torch.load}."""
    return {ast.unparse(n) for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_text_is_run_as_code_and_nothing_is_pickled(path):
    for node in nodes(path, ast.Call):
        name = ast.unparse(node.func)
        assert name not in {
            "eval",
            "exec",
            "compile",
            "__import__",
            "torch.load",
            "torch.save",
            "np.load",
            "np.save",
            "pd.read_pickle",
            "torch.jit.load",
        }, where(path, node)
    for node in nodes(path, ast.Import, ast.ImportFrom):
        modules = {alias.name for alias in node.names} | {getattr(node, "module", None)}
        assert not modules & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, where(path, node)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_exception_is_caught_broadly_or_swallowed(path):
    for handler in nodes(path, ast.ExceptHandler):
        assert handler.type is not None and not named(handler.type) & {"Exception", "BaseException"}, where(
            path, handler
        )
        assert not all(isinstance(line, ast.Pass | ast.Continue) for line in handler.body), where(path, handler)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_devices_are_chosen_at_the_command_line_alone(path):
    for node in nodes(path, ast.Call):
        assert not (isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"), where(path, node)
    for node in nodes(path, ast.Constant):
        if isinstance(node.value, str):
            assert node.value != "CUDA_VISIBLE_DEVICES", where(path, node)
            assert not node.value.startswith("cuda") or path.name in ("__main__.py", "doctor.py"), where(path, node)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_randomness_is_passed_in(path):
    """No seed is set but by the trainer and the command line, within a fork; no generator of NumPy's is global."""
    for node in nodes(path, ast.Call):
        name = ast.unparse(node.func)
        assert name not in {"random.seed", "np.random.seed", "torch.cuda.manual_seed_all"}, where(path, node)
        assert name != "torch.manual_seed" or path.name in ("train.py", "runs.py", "pretrain.py"), where(path, node)


def test_whatever_a_model_holds_is_registered():
    """No tensor or module in a plain attribute, list or dict, where it would be neither trained, moved nor saved."""

    def held(value: object) -> Iterator[object]:
        yield value
        if isinstance(value, list | tuple | set):
            yield from (inner for item in value for inner in held(item))
        if isinstance(value, dict):
            yield from (inner for item in value.values() for inner in held(item))

    for name, module in tiny.tiny_model().named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            loose = [v for v in held(value) if isinstance(v, torch.Tensor | torch.nn.Module)]
            assert not loose, f"{name}.{attribute}"


def test_a_model_at_work_keeps_nothing_but_what_it_says():
    """No hidden state: a loss and a prediction leave no attribute behind, and change no buffer."""
    model, batch = tiny.tiny_model(), tiny.tiny_batch()

    def state() -> dict:
        return {name: set(vars(module)) for name, module in model.named_modules()}

    before, buffers = state(), {name: buffer.clone() for name, buffer in model.named_buffers()}
    tiny.loss_of(model).total.backward()
    model.eval().full_sort_predict(batch.item_seq, batch.user_keys)
    assert state() == before
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
