"""Writing a checkpoint beside the training: megatron-core plans and ends it, a thread of each rank writes.

megatron-core's own writer forks the process and has another one spawned, neither of which is safe in one
with Ray's and gloo's threads. This one is PyTorch's, in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.filesystem import FileSystem

from rlstack.checkpoint.manifest import Digest
from rlstack.collectives import gather_json
from rlstack.policy.backend import (
    AsyncRequest,
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    dist_checkpointing,
    mcore_to_pyt_state_dict,
    save_state_dict_async_finalize,
    save_state_dict_async_plan,
    shards_by_key,
)
from rlstack.transfer.background import Background

_DATA = ".distcp"  # how the names end of the files with tensors


class BackgroundSave:
    """`state`, megatron-core's sharded state, on its way to `folder`; collective over all ranks.

    Nothing else may write to the tensors of `state` from now on.
    """

    def __init__(self, state: dict[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._strategy = _ThreadStrategy()
        self._request = dist_checkpointing.save(state, str(folder), self._strategy, async_sharded_save=True)
        self._writing = Background(self._request.async_fn, name=f"write {folder}")

    def is_written(self) -> bool:
        """Whether this rank has written its files, or has failed to."""
        return self._writing.is_done()

    def finish(self, *, timeout_s: float) -> dict[str, Digest]:
        """Wait for all ranks and write the table of contents; the digests of this rank's files, by name.

        Raises on all ranks, naming those that could not write or took longer than `timeout_s`: OSError, with
        the first one's number, where a file system has refused, and otherwise RuntimeError.
        """
        troubles = gather_json(self._trouble(timeout_s))
        if found := {rank: _Trouble(*row) for rank, row in enumerate(troubles) if row is not None}:
            named = (f"policy rank {rank}: {trouble.text}" for rank, trouble in found.items())
            message = "the checkpoint could not be written: " + "; ".join(named)
            if numbers := [trouble.errno for trouble in found.values() if trouble.errno is not None]:
                raise OSError(numbers[0], message)
            raise RuntimeError(message)
        for finalize in self._request.finalize_fns:
            finalize()
        return self._strategy.writer.digests()

    def _trouble(self, timeout_s: float) -> _Trouble | None:
        try:
            self._writing.result(timeout_s)
        except TimeoutError:
            return _Trouble(f"writing took longer than {timeout_s:g} s (checkpoint.timeout_s)")
        except Exception as error:
            return _Trouble(str(error) or type(error).__name__, getattr(error, "errno", None))
        return None


class _Trouble(NamedTuple):
    """Of one rank."""

    text: str
    errno: int | None = None


class _ThreadStrategy(TorchDistSaveShardedStrategy):
    """megatron-core's, with another writer."""

    writer: _Writer

    def __init__(self) -> None:
        super().__init__("torch_dist", 1)

    def async_save(self, sharded_state_dict: dict[str, Any], checkpoint_dir: Path) -> AsyncRequest:
        shards, _, _ = shards_by_key(sharded_state_dict, keep_only_main_replica=True)
        self.writer = _Writer(checkpoint_dir)
        plan, *_ = save_state_dict_async_plan(
            mcore_to_pyt_state_dict(shards),
            self.writer,
            planner=MCoreSavePlanner(flatten_state_dict=False),
        )
        return AsyncRequest(self.writer.write, (), [partial(save_state_dict_async_finalize, *plan)])


class _Writer(FileSystemWriter):
    """PyTorch's, in the parts that megatron-core calls one by one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, per_thread_copy_ahead=0)  # the tensors are in host memory already
        self._files = self.fs = _HashingFiles()

    def prepare_write_data(self, plan: Any, planner: Any) -> None:
        self._plan, self._planner = plan, planner

    def write(self) -> None:
        self._results = self.write_data(self._plan, self._planner).value()

    def retrieve_write_results(self) -> Any:
        return self._results

    def storage_meta(self) -> None:
        """Not written, for it holds the path of the draft."""

    def digests(self) -> dict[str, Digest]:
        return {name: digest for name, digest in self._files.digests.items() if name.endswith(_DATA)}


class _HashingFiles(FileSystem):
    """Hashes what is written on its way to the disk, so that nothing is read again."""

    def __init__(self) -> None:
        self.digests: dict[str, Digest] = {}

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Iterator[Any]:
        with Path(path).open(mode) as file:
            stream = _HashingStream(file)
            yield stream
        self.digests[Path(path).name] = Digest(stream.num_bytes, stream.sha256.hexdigest())


class _HashingStream:
    """The part of a binary file that is written from its beginning to its end."""

    def __init__(self, file: Any) -> None:
        self._write: Callable[[Any], int] = file.write
        self.flush, self.fileno, self.close = file.flush, file.fileno, file.close
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        count = self._write(data)
        self.num_bytes += count
        return count

    def tell(self) -> int:
        return self.num_bytes
