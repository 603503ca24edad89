"""A run's state on disk: one file of one process, or a folder that several write their pieces into.

Both appear by one rename, and neither runs code when it is read. A folder (`torch.distributed.checkpoint`) can be read
by any number of processes.
"""

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import metadata
from torch.distributed.checkpoint import state_dict_loader as reading
from torch.distributed.checkpoint import state_dict_saver as writing
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader

from diffcode.errors import UnreadableFile, UnwritableFile
from diffcode.training.distributed import World

FILE, FOLDER = ".pt", ".dcp"
BROKEN = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)
NUMBERS = "numbers.json"  # what is no tensor
PLAIN = {
    "torch.distributed.checkpoint.metadata": (
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "ChunkStorageMetadata"),
        *("TensorProperties", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", "float32", "bfloat16"),
    "pathlib": ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"),
}


def save(state: Mapping[str, Any], place: Path, world: World) -> None:
    """`place` without its ending. All processes must call it. Raises UnwritableFile."""
    alone = world.size == 1
    failures = (OSError, RuntimeError) if alone else (OSError, CheckpointException)
    with world.agreed():
        try:
            (_save_file if alone else _save_folder)(state, place, world)
        except failures as error:
            why = f"{place} cannot be written ({_why(error)})"
            raise UnwritableFile(f"{why}: free some space, the same command goes on from the one before") from error


def _save_file(state: Mapping[str, Any], place: Path, _world: World) -> None:
    part = place.with_suffix(".part")
    torch.save(dict(state), part)
    os.replace(part, place.with_suffix(FILE))


def _save_folder(state: Mapping[str, Any], place: Path, world: World) -> None:
    part = place.with_suffix(".part")
    if world.leads:
        shutil.rmtree(part, ignore_errors=True)
    world.wait()
    writing.save(_tensors(state), checkpoint_id=part)  # all have written when it returns
    if world.leads:
        numbers = {name: value for name, value in state.items() if not isinstance(value, Mapping)}
        (part / NUMBERS).write_text(json.dumps(numbers), encoding="utf8")
        drop(place.with_suffix(FOLDER))
        part.rename(place.with_suffix(FOLDER))


def load(place: Path, blank: Callable[[], Mapping[str, Any]], world: World) -> dict[str, Any]:
    """All processes must call it. Raises UnreadableFile.

    `blank` makes a state whose tensors are as this world cuts them. A folder's go straight into it, a file's are whole.
    """
    try:
        if place.suffix == FILE:
            found: dict[str, Any] = torch.load(place, map_location="cpu", weights_only=True)
            return found
        numbers = json.loads((place / NUMBERS).read_text(encoding="utf8"))
        state = dict(blank())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is")  # one process may read what several wrote
            reading.load(_tensors(state), storage_reader=_Reader(place), planner=_Planner(), no_dist=world.size == 1)
        return {**state, **numbers}
    except (CheckpointException, *BROKEN) as error:
        raise UnreadableFile(f"{place} is damaged ({_why(error)}): delete it to go on from the one before") from error


def _why(error: BaseException) -> str:
    """The first line of what happened, in the first process that it happened to."""
    cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
    return (str(cause) or repr(cause)).splitlines()[0]


def drop(place: Path) -> None:
    """Remove a checkpoint, and a folder so that half of one is never taken for a whole."""
    if place.is_dir():
        gone = place.with_suffix(".gone")
        shutil.rmtree(gone, ignore_errors=True)
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    moments = state["optimizer"]["state"]
    return {"parameters": state["parameters"], "average": state["average"], "moments": moments}


class _Planner(DefaultLoadPlanner):
    """Reads tensors only: for anything else torch would unpickle what the folder says."""

    def load_bytes(self, read_item: Any, value: Any) -> None:
        raise pickle.UnpicklingError("it holds something that is no tensor")


class _Reader(FileSystemReader):
    """Opens the folder's table of contents, which is a pickle, with nothing in it but what belongs there."""

    def read_metadata(self, *args: Any, **given: Any) -> metadata.Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            found: metadata.Metadata = _Unpickler(file).load()
        found.storage_meta = found.storage_meta or metadata.StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in PLAIN.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)
