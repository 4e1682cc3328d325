"""What `headclip merge` is given: shards of runs and of evaluations from other machines, with a file of one damaged.

Damage goes through what would stop it at once: lists of images get the name that belongs to their content, and every
shard says that it saw the list. Whatever is in them, nothing may be written outside of the folder of the whole.
"""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzing.mutate import STRANGE, damage_bytes, damage_json, damage_json_lines, damage_png
from fuzzing.targets import Damage, Target, fresh
from fuzzing.targets_runs import Brightness

SHARDS = 2
_NAMES = (
    "../../../../out.png",
    "/no-such/out.png",
    "a/../../b.png",
    "..",
    ".",
    "",
    "a//b.png",
    "x" * 300,
    "a\0",
)


def make(folder: Path) -> list[Target]:
    """The targets; each works on a copy of two small shards."""
    fresh(folder)
    rng = np.random.default_rng(0)
    for number in range(5):
        path = folder / "in" / ("good" if number % 2 else "bad") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 60 + 30 * number, (20, 24, 3), dtype=np.uint8)).save(path)
    (folder / "in/good/broken.png").write_text("text")
    run, evaluation = _run(folder), _evaluation(folder)
    rows, state = (
        next((evaluation / f"shards/1-of-{SHARDS}").glob(f"parts/*/0/{name}")) for name in ("*.parquet", "*.npz")
    )
    whole = f"shards/1-of-{SHARDS}/"

    def part(title: str, source: Path, name: str, *damages: Damage, put: Put = _put) -> Target:
        return _target(folder, f"merge {title}", source, name, damages, put)

    return [
        part("run.json", run, whole + "run.json", damage_json),
        part("progress.jsonl", run, whole + "progress.jsonl", damage_json_lines, damage_names),
        part("results.parquet", run, whole + "results.parquet", damage_bytes),
        part("regions.jsonl", run, whole + "regions.jsonl", damage_json_lines),
        part("map", run, next((run / whole / "maps").rglob("*.png")).relative_to(run).as_posix(), damage_png),
        part("list of images", run, "", damage_list, put=_put_list),
        part("evaluation", evaluation, whole + "results.json", damage_json),
        part("rows of an evaluation", evaluation, rows.relative_to(evaluation).as_posix(), damage_bytes, damage_rows),
        part(
            "state of an evaluation", evaluation, state.relative_to(evaluation).as_posix(), damage_bytes, damage_state
        ),
    ]


Put = Callable[[Path, str, bytes], None]


def _put(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)


def _put_list(copy: Path, name: str, content: bytes) -> None:
    """A list of images, under the name of its content, as the one that all shards have seen."""
    import pyarrow.parquet as pq

    from headclip.runs.shards import listing_hash

    known = next((copy / "shards").glob("listing-*.parquet"))
    try:
        names = pq.read_table(io.BytesIO(content)).column("path").to_pylist()
        digest = listing_hash(names)
    except Exception:  # no list any more: as the file that was there
        known.write_bytes(content)
        return
    known.unlink()
    (copy / "shards" / f"listing-{digest[:16]}.parquet").write_bytes(content)
    for index in range(1, SHARDS + 1):
        place = copy / f"shards/{index}-of-{SHARDS}"
        facts = json.loads((place / "run.json").read_text())
        facts["shard"]["listing"] = digest
        (place / "run.json").write_text(json.dumps(facts))
        lines = [json.loads(line) for line in (place / "progress.jsonl").read_text().splitlines()]
        sound = next(line for line in lines if line["row"]["status"] == "ok")
        known_names = {line["row"]["path"] for line in lines}
        strange = [one for one in names if isinstance(one, str) and one not in known_names]
        more = [{**sound, "row": {**sound["row"], "path": one}} for one in strange]
        with (place / "progress.jsonl").open("a", encoding="utf-8") as journal:  # a row for every image
            journal.writelines(json.dumps(line) + "\n" for line in more)


def _target(folder: Path, title: str, source: Path, name: str, damages: tuple[Damage, ...], put: Put) -> Target:
    from headclip.evaluation.merging import is_evaluation_part, merge_evaluations
    from headclip.inference.merging import merge_runs
    from headclip.runs.parts import part_folders

    place = folder / title.replace(" ", "-").replace(".", "-")

    def read(content: bytes) -> None:
        copy = fresh(place / "a/b/c") / "copy"
        shutil.copytree(source, copy)
        put(copy, name, content)
        if {is_evaluation_part(part) for part in part_folders([copy])} == {True}:
            _within(place, copy, lambda: merge_evaluations([copy]))
        else:
            _within(place, copy, lambda: merge_runs([copy]))

    seed = (source / name).read_bytes() if name else next((source / "shards").glob("listing-*.parquet")).read_bytes()
    return Target(title, [seed], damages, read)


def _within(place: Path, copy: Path, work: Callable[[], object]) -> None:
    """Do it, and see that nothing has come or gone outside of the folder, nor in the shards themselves."""

    def outside() -> set[Path]:
        shards = {path for path in (copy / "shards").rglob("*") if path.is_file()}
        return shards | {path for path in place.rglob("*") if not path.is_relative_to(copy)}

    before = outside()
    try:
        work()
    finally:
        changed = {path.relative_to(place).as_posix() for path in before ^ outside()}
        assert not changed, f"written outside of the folder of the whole: {sorted(changed)[:3]}"


# --- sound shards


def _run(folder: Path) -> Path:
    from headclip.inference.predict import predict_run
    from headclip.judgement.choosing import Judging
    from headclip.runs.shards import Shard

    judging = Judging(threshold=0.2, pixel_threshold=0.3, min_area=1)
    for index in range(1, SHARDS + 1):
        predict_run(Brightness(), [folder / "in"], folder / "run", shard=Shard(index, SHARDS), judging=judging)
    return folder / "run"


class _Evaluated(Brightness):
    """With what an evaluation needs of a detector."""

    image_size, patch = 24, 8

    def __init__(self) -> None:
        from types import SimpleNamespace

        self.method = SimpleNamespace(uses_category=False, needs_references=False)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width


def _evaluation(folder: Path) -> Path:
    from headclip.data.datasets import open_dataset
    from headclip.evaluation.evaluate import Options, evaluate
    from headclip.runs.shards import Shard

    data = folder / "set"
    for number, path in enumerate(sorted((folder / "in").rglob("[0-9].png"))):
        kind = "good" if number % 2 else "hole"
        target = data / f"cup/test/{kind}/{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if kind == "hole":
            mask = np.zeros((20, 24), np.uint8)
            mask[4:9, 5:9] = 255
            (data / "cup/ground_truth/hole").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(data / f"cup/ground_truth/hole/{number}_mask.png")
    for index in range(1, SHARDS + 1):
        options = Options(bootstrap=20, figures=False, worst=1, shard=Shard(index, SHARDS))
        detector: Any = _Evaluated()
        evaluate(detector, [open_dataset("folder", data)], folder / "evaluation", options)
    return folder / "evaluation"


# --- damage


def damage_list(content: bytes, chance: random.Random) -> bytes:
    """Other names in a list of images, or none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pq.read_table(io.BytesIO(content)).column("path").to_pylist()
    what, number = chance.randrange(5), chance.randrange(len(names))
    if what == 0:
        return damage_bytes(content, chance)
    if what == 1:
        names.insert(number, names[chance.randrange(len(names))])
    elif what == 2:
        del names[number]
    else:
        names[number] = chance.choice(_NAMES)
    sink = io.BytesIO()
    pq.write_table(pa.table({"path": pa.array(names, pa.string())}), sink)
    return sink.getvalue()


def damage_names(content: bytes, chance: random.Random) -> bytes:
    """A row whose image, or whose map, lies elsewhere."""
    lines = [json.loads(line) for line in content.splitlines()]
    row = chance.choice(lines)["row"]
    row[chance.choice(("path", "map"))] = chance.choice(_NAMES)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def damage_rows(content: bytes, chance: random.Random) -> bytes:
    """Values of other kinds, missing columns, rows doubled."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    what, row = chance.randrange(4), chance.choice(rows)
    if what == 0:
        rows.append(row)
    elif what == 1:
        name = chance.choice(list(row))
        rows = [{key: value for key, value in one.items() if key != name} for one in rows]
    else:
        row[chance.choice(list(row))] = chance.choice((*STRANGE, *_NAMES))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def damage_state(content: bytes, chance: random.Random) -> bytes:
    """Arrays of other shapes, kinds and values, or missing."""
    with np.load(io.BytesIO(content)) as known:
        arrays: dict[str, Any] = dict(known.items())
    name = chance.choice(list(arrays))
    what, array = chance.randrange(5), arrays[name]
    if what == 0:
        del arrays[name]
    elif what == 1:
        arrays[name] = array.ravel()[: chance.randrange(3)]
    elif what == 2:
        arrays[name] = np.full_like(array, chance.choice((-1, 0, 2**31, 2**62)) if array.dtype.kind != "f" else np.nan)
    elif what == 3:
        arrays[name] = array.astype(chance.choice(("U8", "f4", "i1", "?")))
    else:
        arrays[name] = np.zeros(chance.choice(((), (0,), (3, 4, 5), (1 << 20,))))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
