"""Several processes as one run: who this process is, what all of them agree on, and how they end together.

`torchrun` starts them and says in the environment who each is. A world of one is what everything else is: it needs no
process group, and every method gives back what it was given. No torch is imported before processes really meet.
"""

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from diffcode.errors import BadOption, DiffcodeError

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(minutes=30)  # how long a process waits for the others: a first run fetches the model meanwhile


class Parted(DiffcodeError):
    """Another process of the run has ended."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run. All methods but `device` must be called by every one of them, in the same order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine

    @property
    def leads(self) -> bool:
        """Whether this is the one that shows progress and writes files."""
        return self.rank == 0

    def device(self, name: str | None) -> str | None:
        """The device of this process where `--device` says `name`: of a machine's GPUs, each process has its own."""
        if self.size == 1 or not _cuda(name):
            return name
        if name is not None and ":" in name:
            raise BadOption(f"--device {name} is one device, and each process has its own: leave the number out")
        return f"cuda:{self.local_rank}"

    def gather(self, value: T) -> list[T]:
        """Everybody's value, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def sum(self, value: float) -> float:
        """Added up in the order of ranks, so that the result is the same everywhere to the last bit."""
        return sum(self.gather(value))

    def most(self, value: float) -> float:
        """The largest."""
        return max(self.gather(value))

    def wait(self) -> None:
        """Until all are here."""
        self.gather(None)

    def shared(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> Sequence[R]:
        """`work` of all items, each process doing every `size`-th one; everybody gets all results, in order.

        Shares are equally long, for FSDP's processes must run equally often: the last ones wrap round.
        """
        if self.size == 1:
            return work(items)
        turns = -(-len(items) // self.size)
        mine = [items[(self.rank + turn * self.size) % len(items)] for turn in range(turns)]
        found = self.gather(list(work(mine)))
        return [found[i % self.size][i // self.size] for i in range(len(items))]

    def leave(self, code: int) -> None:
        """The end of the run. Of several processes each ends here, and this does not return."""
        if self.size > 1:
            import torch.distributed as dist

            self.wait()  # torchrun ends all when one has ended with another code than 0
            dist.destroy_process_group()
            _end(code)

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Where one process fails within this, all end; what is wrong is said once, by the first that met it."""
        error: DiffcodeError | None = None
        try:
            yield
        except DiffcodeError as met:
            error = met
        failed = self.gather(error is not None)
        if error is not None and failed.index(True) == self.rank:
            raise error
        if any(failed):
            raise SystemExit(1 if error is None else error.exit_code)


ALONE = World()


@contextmanager
def joined(device: str | None) -> Iterator[World]:
    """The world that `torchrun` made, or that of this process alone. Raises BadOption, Parted."""
    world = _world()
    if world.size == 1:
        yield ALONE
        return
    import torch.distributed as dist

    _meet(device, world)
    atexit.register(_end, 1)  # whatever goes wrong from here on
    try:
        yield world
    except DiffcodeError as error:
        raise error if world.leads else type(error)(f"process {world.rank}: {error}") from error
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        if not world.leads:  # one line is enough: the process that failed has said why
            raise SystemExit(Parted.exit_code) from error
        raise Parted("another process of this run has ended: the same command goes on from its checkpoint") from error


def _world() -> World:
    """From torchrun's environment."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World()
    rank, size, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return World(rank, size, local)


def _end(code: int) -> None:
    """End without Python's own shutdown: gloo's threads may still hold tensors, which aborts it (PyTorch 179291)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _meet(device: str | None, world: World) -> None:
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if _cuda(device):  # gloo stays, for what is no tensor
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(world.local_rank)
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise BadOption(f"the processes do not find each other ({error}): start them with torchrun") from error


def _cuda(device: str | None) -> bool:
    import torch

    return torch.cuda.is_available() and (device is None or device.startswith("cuda"))
