"""Whether a run may be written to a folder: asked before a model is loaded, which takes longer."""

from __future__ import annotations

from pathlib import Path

from headclip.data.run_folder import FORMAT
from headclip.files import load_json
from headclip.runs.files import JOURNAL, RUN_JSON, SHARDS, RunFolderError
from headclip.runs.run import read_facts, read_journal


def check_output(out: str | Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Whether a run may be written to `out`; cheap, so that it can be asked before a model is loaded.

    Raises:
        RunFolderError: `out` is empty, is a file, holds something else, or holds a run and neither `resume` nor
            `overwrite` is given, or both are; the run in it is to be resumed, and its run.json is damaged; `out`
            cannot be looked at.
        InputError: a run.json in it cannot be read.
    """
    if resume and overwrite:
        raise RunFolderError("--resume and --overwrite exclude each other; give one of them")
    if str(out) == "":
        raise RunFolderError("no folder is named for the run (. is the current folder)")
    try:
        _check_folder(Path(out), resume, overwrite)
    except OSError as error:
        raise RunFolderError(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def _check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; --out needs a folder")
    facts = read_facts(out)
    if facts is None and (not out.exists() or all(_is_negligible(child) for child in out.iterdir())):
        return
    if facts is None and not _is_damaged_run(out):
        raise RunFolderError(f"{out} is not empty and holds no run of headclip; choose an empty or a new folder")
    if overwrite:
        return
    if facts is None:
        if resume and not read_journal(out / JOURNAL)[0]:
            return  # nothing has been judged that could have been judged in another way
        raise RunFolderError(
            f"{out / RUN_JSON} is damaged, and nothing else says how the images of this run were judged; "
            "--overwrite judges all anew, or choose another folder"
        )
    if not resume:
        state = "a finished run" if facts["status"] == "finished" else "an unfinished run"
        raise RunFolderError(
            f"{out} already holds {state}; add --resume to go on with it, --overwrite to replace it, "
            f"or choose another folder"
        )


def _is_negligible(child: Path) -> bool:
    """Hidden files, shards to be merged, and the empty journal of a run that was killed in its first moment."""
    if child.name.startswith(".") or (child.name == SHARDS and child.is_dir()):
        return True
    return child.name == JOURNAL and child.stat().st_size == 0


def _is_damaged_run(folder: Path) -> bool:
    """Whether a folder without a sound run.json is a run of ours all the same: by its journal, and by a run.json that
    is nobody else's."""
    if not (folder / JOURNAL).is_file():
        return False
    try:
        facts = load_json(folder / RUN_JSON)
    except FileNotFoundError:
        return bool(read_journal(folder / JOURNAL)[0])
    except ValueError:  # empty, cut or overwritten
        return True
    return isinstance(facts, dict) and facts.get("format") == FORMAT
