"""What a server's token ids spell, asked once each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

_UNFINISHED = "�"


class Vocabulary:
    """Remembers the text of token ids; ``detokenize(ids) -> text`` asks the server, special tokens written out."""

    def __init__(self, detokenize: Callable[[list[int]], Awaitable[str]]) -> None:
        self._detokenize = detokenize
        self._known: dict[tuple[int, ...], str] = {}

    async def texts(self, ids: Iterable[int]) -> Mapping[int, str]:
        """The text of each id by itself; a token that is part of a character reads ``"\\ufffd"``."""
        wanted = set(ids)
        await asyncio.gather(*(self._text((token,)) for token in wanted if (token,) not in self._known))
        return {token: self._known[token,] for token in wanted}

    async def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token of a sequence adds to its text: ``""`` for one that completes no character, all of it for the one that does."""
        texts = await self.texts(ids)
        pieces: list[str] = []
        run: tuple[int, ...] = ()
        for token in ids:
            if not run and not texts[token].endswith(_UNFINISHED):
                pieces.append(texts[token])
                continue
            run = (*run, token)
            text = await self._text(run)
            unfinished = text.endswith(_UNFINISHED)
            pieces.append("" if unfinished else text)
            run = run if unfinished else ()
        return pieces

    async def _text(self, ids: tuple[int, ...]) -> str:
        if ids not in self._known:
            self._known[ids] = await self._detokenize(list(ids))
        return self._known[ids]
