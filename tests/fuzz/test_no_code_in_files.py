"""No file can make headclip execute anything: nothing in the source would, and files that try are refused."""

from __future__ import annotations

import ast
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from headclip.clip.files import read_state
from headclip.errors import BackboneError, CheckpointError, InputError
from headclip.methods.checkpoint import load_checkpoint
from headclip.training.files import load_torch
from tiny_clip import make_backbone, make_config

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])
# What may be named of pickle, and where: an error class; an unpickler that knows a handful of names; and messages
# between the processes of one Ray cluster, which trust one another and are pickled by Ray itself.
PICKLE = {
    "clip/files.py": {"UnpicklingError"},
    "clip/torchscript.py": {"UnpicklingError", "Unpickler"},
    "engine/crew.py": {"dumps", "loads"},
}
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def unsafe(source: str, name: str = "") -> list[str]:
    """What in the source could execute what a file says."""
    found = []
    allowed = next((names for end, names in PICKLE.items() if name.endswith(end)), set())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"imports {word}" for word in named if word.split(".")[0] in MODULES and not allowed]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
            found += [f"pickle.{node.attr}"] if node.attr not in allowed else []
        if isinstance(node, ast.Call):
            found += [word for word in [_unsafe_call(node)] if word]
    return found


def _unsafe_call(node: ast.Call) -> str:
    called = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if called in ("eval", "exec", "__import__", "os.system", "torch.jit.load", "yaml.load", "yaml.unsafe_load"):
        return called
    if called == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only"
    if called.endswith(".load") and given.get("allow_pickle", "False") != "False":
        return "allow_pickle"
    return "shell=True" if called.startswith("subprocess.") and given.get("shell", "False") != "False" else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_executes_no_data(path):
    assert unsafe(path.read_text(encoding="utf-8"), path.as_posix()) == []


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from cloudpickle import loads", "torch.load(x)", "torch.load(x, weights_only=False)",
     "np.load(x, allow_pickle=True)", "eval(x)", "yaml.load(x)", "torch.jit.load(x)", "subprocess.run(x, shell=True)"],
)  # fmt: skip
def test_unsafe_source_would_be_noticed(line):
    assert unsafe(line)
    assert not unsafe("torch.load(x, weights_only=True); np.load(x); backbone.eval(); subprocess.run([x])")


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (Path.touch, (self.place,))


@pytest.fixture
def evil(tmp_path):
    """A place that must stay empty, and what would fill it."""
    return tmp_path / "executed", Evil(tmp_path / "executed")


def test_the_trap_works(evil):
    place, content = evil
    pickle.loads(pickle.dumps(content))
    assert place.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_code_in_weights_states_and_checkpoints_is_not_executed(evil, tmp_path, legacy):
    place, content = evil
    file = tmp_path / "a.pt"
    torch.save({"state_dict": content, "a": torch.zeros(2)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BackboneError, match="which are not loaded"):
        read_state(file)
    with pytest.raises(InputError):
        load_torch(file)
    with pytest.raises(CheckpointError):
        load_checkpoint(file, make_backbone(make_config()))
    assert not place.exists()


def test_pickled_code_in_a_torchscript_archive_is_not_executed(evil, tmp_path):
    place, content = evil
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "sound.pt"))
    assert set(read_state(tmp_path / "sound.pt")) == {"weight", "bias"}
    with zipfile.ZipFile(tmp_path / "sound.pt") as sound, zipfile.ZipFile(tmp_path / "evil.pt", "w") as file:
        for entry in sound.infolist():
            replaced = pickle.dumps(content, 2) if entry.filename.endswith("/data.pkl") else sound.read(entry)
            file.writestr(entry.filename, replaced)
    with pytest.raises(BackboneError, match="which are not loaded"):
        read_state(tmp_path / "evil.pt")
    assert not place.exists()


def test_torchscript_gives_the_values_that_torch_gives(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).half()
    torch.jit.save(torch.jit.script(module), str(tmp_path / "a.pt"))
    found = read_state(tmp_path / "a.pt")
    for name, value in module.state_dict().items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype
