"""An adapter added to a model's weights for good: `W + alpha / r * B A`, written once and memory-mapped from then on.

So the infilling adapter costs nothing while the model runs, and every process shares the merged weights' pages.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from diffcode.adapter import peft_maps
from diffcode.errors import ModelUnavailable
from diffcode.hub import cache_home
from diffcode.loading import open_folder, weights_identity

COPIED = ("config.json", "tokenizer.json")


def fingerprint(adapter: Path) -> str:
    """Twelve hex digits that change with the adapter's weights or settings. Raises ModelUnavailable."""
    digest = hashlib.sha256()
    try:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            digest.update((adapter / name).read_bytes())
    except OSError as error:
        raise ModelUnavailable(f"{adapter} is no adapter ({error}): name a folder that training wrote") from error
    return digest.hexdigest()[:12]


def merged_name(folder: Path, adapter: Path) -> Path:
    """Where the merged weights of a model's folder lie. The whole path counts: many files are called model.gguf."""
    where = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
    return cache_home() / "merged" / f"{folder.name}-{where}+{fingerprint(adapter)}"


def merged_folder(folder: Path, adapter: Path) -> Path:
    """The folder of `folder`'s model with `adapter` merged in, made on first use. Raises ModelUnavailable."""
    target = merged_name(folder, adapter)
    if is_current(target, folder):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not is_current(target, folder):
                _write(folder, adapter, target)
    except (OSError, SafetensorError) as error:
        raise ModelUnavailable(
            f"cannot write {target} ({error}): free as much space as the model takes, or set DIFFCODE_HOME elsewhere"
        ) from error
    return target


def is_current(target: Path, folder: Path) -> bool:
    """True if `target` was made from these very weights, or from weights that are gone since."""
    try:
        made_from = json.loads((target / "merged.json").read_text(encoding="utf8"))["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return not folder.exists() or bool(made_from == weights_identity(folder))


def _write(folder: Path, adapter: Path, target: Path) -> None:
    for name in COPIED:
        if not (folder / name).is_file():
            raise ModelUnavailable(f"{folder} has no {name}: the folder is damaged, fetch it again")
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        save_file(merged_tensors(folder, adapter), staging / "model.safetensors", metadata={"format": "pt"})
        for name in COPIED:
            shutil.copyfile(folder / name, staging / name)
        (staging / "merged.json").write_text(
            json.dumps({"made_from": weights_identity(folder), "adapter": fingerprint(adapter)}), encoding="utf8"
        )
        staging.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def merged_tensors(folder: Path, adapter: Path) -> dict[str, Tensor]:
    """Every tensor of the model, the adapter's added in fp32 and rounded once. Raises ModelUnavailable."""
    _, tensors = open_folder(folder)
    for name, low in peft_maps(adapter).items():
        weight = tensors.get(f"{name}.weight")
        if weight is None or weight.shape != (len(low.up_Er), low.down_rD.shape[1]):
            raise ModelUnavailable(f"{adapter} does not fit {folder}: it was trained for another base model")
        tensors[f"{name}.weight"] = (weight.float() + low.up_Er @ low.down_rD).to(weight.dtype)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
