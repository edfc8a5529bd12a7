from __future__ import annotations

import copy
import shutil

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from generators.models.stitched.decoder import Decoder, load
from rag.core.errors import InputError, MissingCapability, ModelError
from tests.generators.models.stitched.conftest import KINDS, _small, gptj, llama, neox, random


def test_pairings_and_turning_dimensions_are_found(decoder_of):
    found = {name: decoder_of(random(KINDS[name]())).rotary for name in KINDS}
    assert {name: (rotary.pairing, rotary.dims) for name, rotary in found.items()} == {
        "llama": ("half", 8),
        "llama3": ("half", 8),
        "yarn": ("half", 8),
        "linear": ("half", 8),
        "neox": ("half", 4),  # half of a head
        "gptj": ("interleaved", 4),
        "qwen3": ("half", 16),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [llama, neox, gptj])
def test_every_number_format_is_recognised(kind, dtype, tokenizer):
    torch.manual_seed(3)
    assert Decoder(random(kind()).to(dtype), tokenizer, "x").dtype == dtype


def test_a_rotation_that_is_not_the_models_is_refused(decoder_of):
    model = random(llama())
    model.model.rotary_emb.register_forward_hook(lambda module, inputs, output: tuple(part.flip(-1) for part in output))
    with pytest.raises(MissingCapability, match="rotated in halves or interleaved"):
        decoder_of(model)


def test_positions_in_the_embeddings_are_noticed_beside_rotary_ones(decoder_of):
    model = random(llama())

    def add_position(module, args, kwargs):
        embedded = model.model.embed_tokens(kwargs["input_ids"])
        return args, {**kwargs, "input_ids": None, "inputs_embeds": embedded + 0.1 * kwargs["position_ids"][..., None]}

    model.model.register_forward_pre_hook(add_position, with_kwargs=True)
    with pytest.raises(MissingCapability, match="change with the position before they are rotated"):
        decoder_of(model)


def test_sliding_windows_are_refused(decoder_of):
    with pytest.raises(MissingCapability, match="sliding_attention"):
        decoder_of(random(MistralForCausalLM(MistralConfig(**_small(sliding_window=8)))))
    decoder_of(random(MistralForCausalLM(MistralConfig(**_small(sliding_window=None)))))


def test_keys_that_are_made_elsewhere_are_refused(decoder_of):
    model = random(llama())
    attention = model.model.layers[1].self_attn
    attention.project_keys = attention.k_proj
    del attention.k_proj
    with pytest.raises(MissingCapability, match="2 of its 3 layers"):
        decoder_of(model)


def test_identity_changes_with_all_that_keys_depend_on(tokenizer, decoder_of):
    torch.manual_seed(3)
    model = random(llama())
    here = decoder_of(model).identity
    assert here == decoder_of(copy.deepcopy(model)).identity
    assert (here.layers, here.heads, here.head_dim, here.adapter) == (3, 2, 8, None)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[2].mlp.up_proj.weight[0, 0] += 0.5
    assert decoder_of(other).identity.weights != here.weights
    scaled = copy.deepcopy(model)
    scaled.model.rotary_emb.inv_freq *= 0.5
    assert decoder_of(scaled).identity.rotary != here.rotary
    words = copy.deepcopy(tokenizer)
    words.add_tokens(["lighthouse"])
    assert Decoder(model, words, "x").identity.tokenizer != here.tokenizer


def test_padding_that_a_caller_sets_is_no_other_tokenizer(tokenizer, decoder_of):
    model = random(llama())
    here = decoder_of(model).identity
    padded = copy.deepcopy(tokenizer)
    padded(["a", "a cat"], padding=True, truncation=True, max_length=4)
    assert Decoder(model, padded, "x").identity == here


def test_an_adapter_changes_keys_and_identity(tiny_folder, tmp_path):
    pytest.importorskip("peft")
    from adapters import LoRA, adapt
    from generators.models.stitched.encoder import LocalEncoder

    bare = load(str(tiny_folder), device="cpu")
    folders = []
    for seed in (1, 2):
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        worn = adapt(AutoModelForCausalLM.from_pretrained(tiny_folder), LoRA())
        for parameter in worn.trained().values():
            torch.nn.init.normal_(parameter, std=0.2)
        folders.append(tmp_path / f"lora{seed}")
        worn.save(folders[-1])
    moved = tmp_path / "moved"
    shutil.copytree(folders[0], moved)
    one, two, same = (load(str(tiny_folder), str(folder), device="cpu") for folder in (*folders, moved))
    assert len({decoder.identity.adapter for decoder in (bare, one, two)}) == 3
    assert one.identity == same.identity
    plain, dressed = (LocalEncoder.over(decoder).encode(["the cat sat"])[0] for decoder in (bare, one))
    assert not torch.allclose(plain.values[1], dressed.values[1], atol=1e-3)


def test_no_memory_is_an_error_that_says_what_to_lower(one):
    from generators.models.stitched.encoder import LocalEncoder

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = one._model.register_forward_pre_hook(full)
    with pytest.raises(ModelError, match=r"4 tokens behind 0 .* lower batch_tokens"):
        LocalEncoder.over(one).encode_tokens([[5, 6], [7, 8]])
    hook.remove()
    assert LocalEncoder.over(one).encode_tokens([[5, 6]])[0].tokens == (5, 6)


def test_load_says_what_is_wrong(tmp_path, tiny_folder):
    with pytest.raises(InputError, match="float32, bfloat16"):
        load(str(tiny_folder), dtype="int8")
    shutil.copytree(tiny_folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot load the model"):
        load(str(tmp_path / "broken"), device="cpu")


@pytest.mark.parametrize("method", ["APrompt", "PrefixTuning"])
def test_vectors_in_front_of_a_text_are_refused(tiny_folder, tmp_path, method):
    from transformers import AutoModelForCausalLM

    from adapters.adapted import adapt
    from adapters.methods import build

    adapt(AutoModelForCausalLM.from_pretrained(tiny_folder), build(method, {})).save(tmp_path / "worn")
    with pytest.raises(MissingCapability, match="in front of"):
        load(str(tiny_folder), str(tmp_path / "worn"), device="cpu")
