"""``rag contexts``: the passages of a corpus as keys and values that a model made of them once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rag.cli.options import JsonOption, KeyOption
from rag.core.errors import MissingDependency

if TYPE_CHECKING:
    from generators.models.stitched.encoder import LocalEncoder
    from retrievers.context.build import ContextEncoder, Plan

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Passages encoded once, for a model that attends to them instead of reading them: build, show, verify, check, serve.",
)

StoreArgument = Annotated[Path, typer.Argument(help="Folder that `rag contexts build` wrote.", show_default=False)]


@app.command()
def build(
    corpus: Annotated[Path, typer.Argument(help="Folder that `rag index` wrote.", show_default=False)],
    store: Annotated[Path, typer.Option("--store", "-s", help="Folder of the store, new or from an earlier run.", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="Name or folder of the model.")] = "smollm2",
    adapter: Annotated[
        str | None, typer.Option(help="Folder or registry name of what the model wears while it encodes.", show_default=False)
    ] = None,
    numbers: Annotated[
        Literal["float32", "float16", "int8", "int4"] | None,
        typer.Option("--format", help="How numbers are stored. \\[default: as the store is, float16 for a new one]"),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Check every byte first, and encode anew what is damaged.")] = False,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Passages that are encoded at a time.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Encode the passages of a corpus. Run it again after the corpus changed, or to go on after a stop; what the corpus lost goes too.

    Example:  rag contexts build handbook --store handbook-contexts --model smollm2 --format int8
    """
    from generators.passages import passage_data
    from rag.cli.console import err, size, write, write_json
    from retrievers.context.build import build as build_store
    from retrievers.context.store import ContextStore
    from retrievers.corpus import Corpus

    opened = Corpus.open(corpus, read_only=True)
    contexts = [(passage.id, passage_data(passage)) for passage in opened.each_passage()]
    encoder = make_encoder(model, adapter)
    screen = err()

    def announce(plan: Plan) -> None:
        screen.print(_in_words(plan), soft_wrap=True, markup=False)

    try:
        with screen.status("encoding …") as status:  # shows nothing unless stderr is a terminal
            built = build_store(
                store,
                contexts,
                encoder,
                numbers,
                prune=True,
                repair=repair,
                batch=batch,
                announce=announce,
                progress=lambda done, total: status.update(f"{done:,} of {total:,} passages encoded …"),
            )
    except KeyboardInterrupt:
        screen.print("stopped; what was committed stays; run the same command to resume")
        raise typer.Exit(130) from None
    info = ContextStore(store, ram_bytes=0).info()
    _build_fixed(store, encoder, str(info["format"]))
    if as_json:
        write_json({**info, "encoded": built.encoded, "kept": built.kept, "removed": built.removed})
        return
    write(
        f"{built.encoded:,} passages encoded, {built.kept:,} were there, {built.removed:,} taken away; "
        f"{info['tokens']:,} tokens in {size(info['bytes'])} at {store}\n"
    )


@app.command()
def show(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show what a store holds, for which model, and what its number format costs in accuracy.

    Example:  rag contexts show handbook-contexts
    """
    from rag.cli.console import write, write_json
    from retrievers.context.store import ContextStore

    info = ContextStore(store, ram_bytes=0).info()
    write_json(info) if as_json else write(_as_lines(info))


@app.command()
def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Read every byte of a store and name all that is damaged; the exit code is then 1.

    Example:  rag contexts verify handbook-contexts
    """
    from generators.models.vllm_contexts.shelves import FIXED
    from rag.cli.console import write, write_json
    from retrievers.context.store import ContextStore

    opened = ContextStore(store, ram_bytes=0)
    damage = opened.verify()
    if (store / FIXED).is_dir():  # what stands around passages, in a store of its own
        damage += ContextStore(store / FIXED, opened.model, ram_bytes=0).verify()
    if as_json:
        rows = [{"segment": found.segment, "passage": found.id, "reason": found.reason} for found in damage]
        write_json({"path": str(store), "passages": len(opened), "damaged": rows})
    elif damage:
        for found in damage:
            what = f"passage {found.id!r}" if found.id else "as a whole"
            write(f"damaged: segment {found.segment}, {what}: {found.reason}\n")
    else:
        write(f"{len(opened):,} passages: every checksum agrees\n")
    if damage:
        raise typer.Exit(1)


@app.command()
def check(
    store: StoreArgument,
    url: Annotated[str, typer.Option(help="Address of the vLLM server that has the store.")] = "http://localhost:8000/v1",
    model: Annotated[str, typer.Option("--model", "-m", help="Name or folder of the model, as `build` was given it.")] = "smollm2",
    adapter: Annotated[
        str | None, typer.Option(help="As `build` was given it; the server has it loaded under its name.", show_default=False)
    ] = None,
    key_env: KeyOption = None,
    orders: Annotated[int, typer.Option(min=1, max=100, help="Orders of passages that are tried.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Try whether a vLLM server answers from the store as it should, and certify it; if not, the exit code is 1.

    Example:  rag contexts check handbook-contexts --url http://localhost:8000/v1
    """
    from dataclasses import asdict

    from generators.models.vllm import VLLM
    from generators.models.vllm_contexts.check import Gate, Tried, Unequal
    from rag.cli.console import err, write, write_json
    from rag.core.sync import run_sync

    screen, worn = err(), Path(adapter).name if adapter else None
    gate = Gate(store, VLLM(url, adapter=worn, api_key_env=key_env), make_local(model, adapter))

    def told(tried: Tried) -> None:
        words = f"{len(tried.passages)} passages, {tried.tokens:,} tokens: off by {tried.difference:.1e}, text "
        screen.print(f"{words}{'equal' if tried.same_text else 'another'}", soft_wrap=True, markup=False)

    try:
        found = run_sync(gate.run(orders, told=told))
    except Unequal as error:
        screen.print(str(error), soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    if as_json:
        write_json(asdict(found))
        return
    write(
        f"vLLM {found.version} in {found.dtype} answers from it as the block mask does: {found.prompts} prompts, log-probabilities off by"
        f" {found.difference:.1e} at most ({found.tolerance:.1e} allowed); {found.numbers} adds {found.numbers_difference:.1e}\n"
    )


@app.command()
def serve(
    store: StoreArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8090,
    keys: Annotated[Path | None, typer.Option(help="Key file, from `rag keys add`.", show_default=False)] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with a key.", show_default=False)] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name under which it may be asked too, one each time; * for all.", show_default=False)
    ] = None,
    running: Annotated[int, typer.Option(min=1, help="Passages that are sent at once.")] = 8,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that wait; further ones get 429.")] = 128,
) -> None:
    """Serve a store, read-only, to readers on other machines, by passage id.

    Example:  rag contexts serve handbook-contexts --port 8090
    """
    try:
        import uvicorn

        from rag.cli.serve import CONNECTIONS, doors_of
        from rag.serve.contexts import contexts_app
        from rag.serve.observe.logs import configure_logging
        from rag.serve.settings import Limits
    except ImportError as error:
        raise MissingDependency(f"serving needs FastAPI and uvicorn ({error}): pip install 'graft-rag[serve]'") from error
    from retrievers.context.store import ContextStore

    doors = doors_of(host, port, keys, api_key_env, allow_host or [], [], [], None)
    served = contexts_app(ContextStore(store, ram_bytes=0), limits=Limits(running, waiting), doors=doors)
    configure_logging("text", "info")
    uvicorn.run(served, host=host, port=port, **CONNECTIONS)


def make_encoder(model: str, adapter: str | None = None) -> ContextEncoder:
    """Who encodes; the model is loaded when it is first needed."""
    from generators.decoupled.model import is_encoder_decoder

    if adapter is None and is_encoder_decoder(model):
        from generators.decoupled.encoder import DecoupledEncoder

        return DecoupledEncoder(model)
    return make_local(model, adapter)


def make_local(model: str, adapter: str | None) -> LocalEncoder:
    """The same, for who needs more of it than passages."""
    from generators.models.stitched.encoder import LocalEncoder

    return LocalEncoder(model, adapter)


def _build_fixed(store: Path, encoder: ContextEncoder, numbers: str) -> None:
    """What stands around the passages in a prompt, for a vLLM server that is to find all of it."""
    from generators.models.stitched.encoder import LocalEncoder
    from generators.models.vllm_contexts.fixed import build_fixed

    if isinstance(encoder, LocalEncoder):
        build_fixed(store, encoder, numbers)


def _in_words(plan: Plan) -> str:
    from rag.cli.console import size

    about = "" if plan.exact else "about "
    length = f"{about}{plan.tokens:,} tokens, {about}{size(plan.bytes)} on disk"
    return f"{len(plan.todo):,} of {plan.passages:,} passages are to be encoded: {length}"


def _as_lines(info: dict[str, Any]) -> str:
    from rag.cli.console import size

    model = info["model"]
    unreadable = "".join(f"unreadable: segment {name}: {reason}\n" for name, reason in info["unreadable_segments"].items())
    return (
        f"store: {info['path']}\n"
        f"passages: {info['passages']:,} with {info['tokens']:,} tokens in {info['segments']:,} segments\n"
        f"on disk: {size(info['bytes'])}, {size(info['bytes_per_token'])} per token\n"
        f"format: {info['format']}, relative error of keys {info['error_keys']:.2%}, of values {info['error_values']:.2%}\n"
        f"model: weights {model['weights'][:16]}, tokenizer {model['tokenizer'][:16]}, adapter {(model['adapter'] or 'none')[:16]}, "
        f"{model['layers']} layers of {model['heads']} × {model['head_dim']}, rotary {model['rotary']}\n"
        f"build: {'whole' if info['complete'] else 'not finished; run `rag contexts build` again'}\n{unreadable}"
    )
