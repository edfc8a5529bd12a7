"""``rag adapters``: the adapters on this machine, by name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rag.cli.bases import load_base
from rag.cli.options import JsonOption, KeyOption
from rag.core.errors import AdapterDamaged, InputError

if TYPE_CHECKING:
    from adapters.registry import Entry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Adapters by name: list, show, add, remove, export; on a vLLM server: load, unload, served.",
)

NameArgument = Annotated[str, typer.Argument(help="Name of the adapter, as `rag adapters list` shows it.", show_default=False)]
RegistryOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the adapters. \\[default: $GRAFT_ADAPTERS, or a folder among your data]", show_default=False),
]
BaseOption = Annotated[str | None, typer.Option(help="Base model: smollm2, a folder, or a Hugging Face id.", show_default=False)]
ServerOption = Annotated[str, typer.Option("--url", help="Address of a vLLM server that was started with --enable-lora.")]
RankOption = Annotated[int, typer.Option(help="vLLM's --max-lora-rank: 1, 8, 16, 32, 64, 128, 256, 320 or 512.")]


@app.command("list")
def list_(registry: RegistryOption = None, max_rank: RankOption = 16, as_json: JsonOption = False) -> None:
    """List the adapters: method, base model, size, figures, and whether vLLM serves them.

    Example:  rag adapters list
    """
    from adapters.registry import Registry
    from rag.cli.console import err, write_json

    store = Registry(registry)
    rows = [_account(entry, max_rank) for entry in store.entries()]
    if as_json:
        write_json({"registry": str(store.folder), "adapters": rows})
    elif rows:
        _show_table(rows)
    else:
        err().print(f"there are no adapters in {store.folder}; `rag adapters add FOLDER` takes one in", soft_wrap=True, markup=False)


@app.command()
def show(name: NameArgument, registry: RegistryOption = None, max_rank: RankOption = 16, as_json: JsonOption = False) -> None:
    """Show an adapter's card, and whether vLLM serves it.

    Example:  rag adapters show chemistry
    """
    import json

    from adapters.registry import Registry
    from rag.cli.console import write, write_json

    entry, card = Registry(registry).show(name)
    account = {**_account(entry, max_rank), "card": card}
    if as_json:
        write_json(account)
        return
    served = "yes" if account["not_servable"] is None else f"no: {account['not_servable']}"
    write(f"folder: {entry.folder}\nserved by vLLM: {served}\n{json.dumps(card, indent=1, ensure_ascii=False)}\n")


@app.command()
def add(
    source: Annotated[Path, typer.Argument(help="Folder of an adapter: graft's own, or PEFT's LoRA in safetensors.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Its name: a-z, 0-9, '.', '_', '-'. \\[default: the folder's]", show_default=False)
    ] = None,
    base: BaseOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of an adapter of this name.")] = False,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an adapter in: checked, copied, and there as a whole or not at all. With --base also checked against that model.

    Example:  rag adapters add runs/chemistry --name chemistry
    """
    from adapters.registry import Registry
    from rag.cli.console import err, write_json

    model = None if base is None else load_base(base)[0]
    entry = Registry(registry).add(source, name, model, base or "", replace)
    account = _account(entry, 16)
    if as_json:
        write_json(account)
        return
    err().print(f"added {entry.name} ({entry.method})", soft_wrap=True, markup=False)
    if not entry.fingerprint:
        err().print("its base model is not known for sure; add it with --base MODEL to wear it", soft_wrap=True, markup=False)
    if account["not_servable"] is not None:
        err().print(f"vLLM would not serve it: {account['not_servable']}", soft_wrap=True, markup=False)


@app.command()
def remove(name: NameArgument, registry: RegistryOption = None) -> None:
    """Delete an adapter.

    Example:  rag adapters remove chemistry
    """
    from adapters.registry import Registry
    from rag.cli.console import err

    Registry(registry).remove(name)
    err().print(f"removed {name}", soft_wrap=True, markup=False)


@app.command()
def export(
    name: NameArgument,
    form: Annotated[Literal["lora", "merged"], typer.Argument(help="Plain LoRA, or a whole model.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder.", show_default=False)],
    base: BaseOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an adapter as plain LoRA, which vLLM serves, or merged into its base model.

    Example:  rag adapters export chemistry merged --out chemistry-model
    """
    from adapters.registry import Registry
    from generators.models.embedded import without_progress_bars
    from rag.cli.console import err, write_json

    store = Registry(registry)
    entry, _ = store.show(name)
    chosen = base or entry.base
    if not chosen:
        raise InputError(f"the card of '{name}' does not name its base model; give it with --base")
    model = load_base(chosen)[0]
    with without_progress_bars():
        factors = store.export(name, form, model, out)
    left = None if factors is None else factors.residual
    if as_json:
        write_json({"name": name, "form": form, "folder": str(out), "residual": left})
        return
    note = f"; up to {left:.2%} of a layer's change is left out" if left else ""
    err().print(f"wrote {out}{note}", soft_wrap=True, markup=False)


@app.command()
def load(
    name: NameArgument,
    url: ServerOption = "http://localhost:8000/v1",
    max_rank: RankOption = 16,
    targets: Annotated[
        list[str] | None, typer.Option("--target", help="vLLM's --lora-target-modules, one each time. \\[default: all]", show_default=False)
    ] = None,
    base: BaseOption = None,
    model_key_env: KeyOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load an adapter on a running vLLM server. What vLLM would refuse is written as plain LoRA first where nothing is lost, or refused.

    Example:  rag adapters load chemistry --url http://localhost:8000/v1
    """
    from adapters.registry import Registry
    from generators.models.vllm import VLLM
    from rag.cli.adapters_served import put_on
    from rag.cli.console import err, write_json

    account = put_on(VLLM(url, api_key_env=model_key_env), Registry(registry), name, max_rank, targets, base)
    if as_json:
        write_json(account)
        return
    exported = " (written as plain LoRA, exactly)" if account["exported"] else ""
    state = "was loaded already" if account["was_loaded"] else "loaded"
    err().print(f"{state}: {name}{exported}; ask {url} for the model '{name}'", soft_wrap=True, markup=False)


@app.command()
def unload(name: NameArgument, url: ServerOption = "http://localhost:8000/v1", model_key_env: KeyOption = None) -> None:
    """Have a running vLLM server forget an adapter.

    Example:  rag adapters unload chemistry --url http://localhost:8000/v1
    """
    from generators.models.vllm import VLLM
    from rag.cli.console import err

    VLLM(url, api_key_env=model_key_env).unload_adapter(name)
    err().print(f"unloaded {name}", soft_wrap=True, markup=False)


@app.command()
def served(url: ServerOption = "http://localhost:8000/v1", model_key_env: KeyOption = None, as_json: JsonOption = False) -> None:
    """List the adapters that a running vLLM server has loaded, and the folders that it reads.

    Example:  rag adapters served --url http://localhost:8000/v1
    """
    from generators.models.vllm import VLLM
    from rag.cli.console import err, write, write_json

    found = VLLM(url, api_key_env=model_key_env).served()
    if as_json:
        write_json({"url": url, "adapters": found})
    elif found:
        write("".join(f"{name}\t{folder}\n" for name, folder in sorted(found.items())))
    else:
        err().print(f"{url} has no adapter loaded; `rag adapters load NAME` loads one", soft_wrap=True, markup=False)


def _account(entry: Entry, max_rank: int) -> dict[str, Any]:
    from adapters.registry import servable

    told = {**asdict(entry), "folder": str(entry.folder), "metrics": dict(entry.metrics)}
    try:
        reason = entry.problem or servable(entry.folder, max_rank)
    except AdapterDamaged as error:  # a list shows the others too
        told["problem"] = reason = str(error)
    return {**told, "not_servable": reason}


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from rag.cli.console import out, plain, size

    table = Table("name", "method", "base", "size", "figures", "vLLM", box=None, pad_edge=False)
    for row in rows:
        figures = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row["metrics"].items())
        served = "yes" if row["not_servable"] is None else "damaged" if row["problem"] else "no"
        cells = (row["name"], row["method"], row["base"] or "?", size(row["bytes"]), figures, served)
        table.add_row(*(Text(plain(cell)) for cell in cells))
    out().print(table, soft_wrap=True)
