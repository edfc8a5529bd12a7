"""The adapters of one vLLM server: loaded on first use, and the least recently used goes when all slots are taken."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rag.core.errors import AdapterError, InputError, ModelRefused, ModelUnavailable
from rag.core.sync import background_loop

if TYPE_CHECKING:
    from generators.models.vllm import VLLM

T = TypeVar("T")


class AdapterInUse(AdapterError):
    """It cannot go now: a call is using it."""


class _Lease:
    """One call's hold on an adapter, from its wish to its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn: asyncio.Future[None] | None = None
        self.held = False
        self.left = False


class Rack:
    """``Rack(VLLM(url), slots=4).wearing("chemistry")`` is the model with that adapter, which is loaded when it is first asked.

    At most ``slots`` adapters of this rack are loaded: the server's ``--max-loras`` (its default is 1). A further one takes the place of
    the least recently used that no call is using. When all are in use, the least recently used takes no new calls until it is free, so
    that none waits for ever; after ``patience`` seconds of waiting `ModelUnavailable` is raised. Calls that want the same adapter cause
    one load. A server that was started anew and has forgotten an adapter is given it again, and the call goes on.

    ``folders`` gives the adapters by name (None: those of the registry). What lies on this machine is checked against ``max_rank`` and
    ``targets``, the server's ``--max-lora-rank`` and ``--lora-target-modules``, and a lasting copy is what the server reads; another
    path is sent as it is. Raises `AdapterError` and its kinds, and the errors of `VLLM`.
    """

    def __init__(
        self,
        model: VLLM,
        slots: int,
        max_rank: int = 16,
        targets: Sequence[str] | None = None,
        folders: Mapping[str, str | Path] | None = None,
        patience: float = 600.0,
    ) -> None:
        if slots < 1:
            raise InputError(f"slots is at least 1 (the server's --max-loras), not {slots!r}")
        if not patience > 0:
            raise InputError(f"patience is a number of seconds above 0, not {patience!r}")
        self.slots = slots
        self.loads = 0
        """How many times an adapter was loaded so far."""
        self._model = model.with_adapter(None)
        self._max_rank = max_rank
        self._targets = targets
        self._folders = folders
        self._patience = patience
        # All that follows is touched on the background loop only: callers come from any thread and loop.
        self._worn: OrderedDict[str, None] = OrderedDict()  # the least recently used first
        self._in_use: Counter[str] = Counter()
        self._waiting: dict[str, list[_Lease]] = {}
        self._closing: str | None = None
        self._changing = asyncio.Lock()
        self._freed = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        """The adapters that this rack has loaded, the least recently used first."""
        return tuple(self._worn)

    def wearing(self, name: str | None) -> VLLM:
        """The model with the adapter ``name`` (None: bare); `VLLM.with_adapter` then changes to any other of the rack."""
        model = self._model.with_adapter(name)
        model.rack = self
        return model

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[None]:
        """While this lasts, ``name`` is loaded and stays so."""
        lease = _Lease(name)
        try:
            await _on_loop(self._take(lease))
            yield
        finally:  # also of a caller that was cancelled, whatever had been done for it by then
            background_loop().call_soon_threadsafe(self._leave, lease)

    async def drop(self, name: str) -> bool:
        """Have the server forget ``name``; whether this rack had it loaded. Raises `AdapterInUse` while a call is using it."""
        return await _on_loop(self._dropped(name))

    async def restore(self, name: str) -> None:
        """Load ``name`` again, which the server has forgotten. Its caller has a lease."""
        await _on_loop(self._restored(name))

    async def _dropped(self, name: str) -> bool:
        async with self._changing:
            if name not in self._worn:
                return False
            if self._in_use[name]:
                raise AdapterInUse(f"the adapter '{name}' is in use by {self._in_use[name]} calls; try again when they are done")
            del self._worn[name]
            await self._unload(name)
            return True

    async def _take(self, lease: _Lease) -> None:
        if lease.name in self._worn and lease.name != self._closing:
            self._grant(lease)
            return
        lease.turn = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(lease.name, [])
        waiting.append(lease)
        if len(waiting) == 1:
            self._start(f"arrival of {lease.name}", self._arrive(lease.name))
        await lease.turn

    def _leave(self, lease: _Lease) -> None:
        lease.left = True
        if lease.held:
            lease.held = False
            self._in_use[lease.name] -= 1
            self._freed.set()

    def _grant(self, lease: _Lease) -> None:
        if lease.left:
            return
        lease.held = True
        self._in_use[lease.name] += 1
        self._worn.move_to_end(lease.name)
        if lease.turn is not None and not lease.turn.done():
            lease.turn.set_result(None)

    async def _arrive(self, name: str) -> None:
        """Load ``name`` for all that wait for it. Arrivals take turns, in the order of the first wishes."""
        try:
            async with self._changing:
                if name not in self._worn and any(not lease.left for lease in self._waiting[name]):
                    await self._make_room()
                    await self._load(name)
                    self._worn[name] = None
        except Exception as error:
            for lease in self._waiting.pop(name):
                if lease.turn is not None and not lease.turn.done():
                    lease.turn.set_exception(error)
        else:  # in one step with the loading, so that no other arrival takes the slot before it was used
            for lease in self._waiting.pop(name):
                self._grant(lease)

    async def _make_room(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while len(self._worn) >= self.slots:
                    idle = next((name for name in self._worn if not self._in_use[name]), None)
                    if idle is not None:
                        del self._worn[idle]
                        await self._unload(idle)
                        continue
                    self._closing = next(iter(self._worn))
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise ModelUnavailable(
                f"all {self.slots} slots for adapters have been in use for {self._patience:g} s, by: {', '.join(self._worn)};"
                " give the rack more slots (and the server --max-loras), or end the calls in flight first"
            ) from None
        finally:
            self._closing = None

    async def _load(self, name: str) -> None:
        path = await asyncio.to_thread(self._path, name)
        try:
            await self._model.aload_adapter(name, path, self._max_rank, self._targets)
            self.loads += 1
        except ModelRefused as error:  # it was loaded before: by another rack, or by a call whose answer was lost
            there = (await self._model.aserved()).get(name)
            if there is None:
                raise
            if there != path:
                raise ModelRefused(
                    f"{self._model.url} serves another adapter '{name}' already, from {there}, not {path};"
                    f" unload it first: rag adapters unload {name} --url {self._model.url}"
                ) from error

    async def _unload(self, name: str) -> None:
        with suppress(ModelRefused):  # somebody else has done it
            await self._model.aunload_adapter(name)

    async def _restored(self, name: str) -> None:
        await asyncio.shield(self._start(f"return of {name}", self._load(name)))

    def _path(self, name: str) -> str:
        from generators.models.served_adapter import check, lasting_copy

        folder = Path(self._folder(name)).expanduser()
        if not folder.is_dir():
            return str(folder)
        check(folder, self._max_rank, self._targets)  # before it is copied: the copy has no head and no card
        return str(lasting_copy(folder))

    def _folder(self, name: str) -> str | Path:
        if self._folders is None:
            from adapters.registry import Registry

            return Registry().path(name)
        if name not in self._folders:
            raise AdapterError(f"there is no adapter '{name}' on this rack; there are: {', '.join(sorted(self._folders)) or 'none'}")
        return self._folders[name]

    def _start(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """``work`` as a task of its own, which goes on when its caller is cancelled; one at a time of each kind."""
        task = self._tasks.get(what)
        if task is not None and not task.done():
            work.close()
            return task
        task = self._tasks[what] = asyncio.get_running_loop().create_task(work)
        return task


async def _on_loop(work: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, background_loop()))
