"""What can be known of the dependencies with no network: the lock is whole, hashed, and is what is installed.

    python scripts/audit.py

Checked: every entry of requirements.lock has a version and SHA-256 hashes, and no address; everything that headclip
with the extra `serve` needs, and what that needs, has an entry; constraints.txt names the same versions; the
environment has them. Not checked: whether a version has a known weakness, for which a list from the network is needed
(`pip-audit -r requirements.lock` asks one).
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
EXTRA = "serve"


def main() -> int:
    """Print what is wrong; 0 where nothing is."""
    locked, wrong = read_lock((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    needed, installed = closure()
    wrong += [f"{name} is needed and not locked" for name in sorted(needed - set(locked))]
    wrong += [f"{name} is locked and not needed" for name in sorted(set(locked) - needed - {"setuptools"})]
    for name, version in pins().items():
        if name in locked and public(locked[name]) != public(version):
            wrong.append(f"{name} is {locked[name]} in the lock and {version} in constraints.txt; run make lock")
    for name, version in locked.items():
        if name in installed and public(installed[name]) != public(version):
            wrong.append(f"{name} is {installed[name]} here and {version} in the lock")
    for line in wrong:
        sys.stdout.write(f"audit: {line}\n")
    sys.stdout.write(
        f"audit: {len(locked)} locked packages, {len(wrong)} problem(s); known weaknesses are not looked up\n"
    )
    return int(bool(wrong))


def read_lock(text: str) -> tuple[dict[str, str], list[str]]:
    """Version by name, and what is wrong with the entries."""
    locked: dict[str, str] = {}
    wrong = []
    entries = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in entries.splitlines():
        if not line.strip():
            continue
        found = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line)
        if "://" in line or "@" in line or line.lstrip().startswith("-") or found is None:
            wrong.append(f"an entry is no NAME==VERSION: {line.strip()[:60]}")
            continue
        name = canonicalize_name(found.group(1))
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", line):
            wrong.append(f"{name} has no hash")
        locked[name] = found.group(2)
    return locked, wrong


def closure() -> tuple[set[str], dict[str, str]]:
    """Names of all that is needed, as far as it is installed here, and the versions installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    todo = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"][EXTRA])]
    seen: set[tuple[str, frozenset[str]]] = set()
    installed: dict[str, str] = {}
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # the extra is not installed here
        installed[name] = found.version
        for line in found.requires or ():
            more = Requirement(line)
            extras = {"", *wanted.extras}
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(more)
    return {name for name, _ in seen if not name.startswith(("nvidia-", "cuda-", "triton"))}, installed


def pins() -> dict[str, str]:
    """Version by name in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def public(version: str) -> str:
    """Without the name of the build."""
    return Version(version).public


if __name__ == "__main__":
    sys.exit(main())
