from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import load_subject
from conceptatlas.subjects.language import LanguageSubject
from conceptatlas.subjects.loading import (
    ALIASES,
    choose_device,
    choose_dtype,
    content_hash,
    known_models,
    resolve_source,
)
from tests.helpers.tiny_models import tiny_model

SubjectOf = Callable[..., LanguageSubject]


@pytest.fixture
def copy_of(tiny_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(family: str) -> Path:
        return Path(shutil.copytree(tiny_model(family, tiny_folder), tmp_path / "my-model"))

    return copy


def test_a_folder_says_what_it_is(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("gemma2")
    subject = load_subject(folder, device="cpu")
    assert (subject.id, subject.location) == ("my-model", str(folder))
    assert subject.revision == content_hash(folder)
    assert subject.model_class == "Gemma2ForCausalLM"
    assert (subject.d_model, subject.n_layers) == (32, 3)
    assert (subject.dtype, subject.device.type) == (torch.float32, "cpu")
    assert not any(p.requires_grad for p in subject.hf_model.parameters())
    assert not subject.hf_model.training


def test_the_revision_follows_the_content(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    before = content_hash(folder)
    (folder / "README.md").write_text("words")
    assert content_hash(folder) == before
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    assert content_hash(folder) != before


def test_a_large_file_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conceptatlas.base import files
    from conceptatlas.subjects import loading

    monkeypatch.setattr(loading, "_WHOLE_BELOW", 1)
    monkeypatch.setattr(files, "_SAMPLE_BYTES", 16)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(10_000))
    before = content_hash(tmp_path)
    path.write_bytes(bytes(9_990) + b"x" * 10)
    assert content_hash(tmp_path) != before
    path.write_bytes(b"x" + bytes(9_999))
    assert content_hash(tmp_path) != before
    path.write_bytes(bytes(9_999))
    assert content_hash(tmp_path) != before


def test_the_organism_is_a_name(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    from conceptatlas.subjects import organism

    monkeypatch.setattr(organism, "organism_path", lambda: tiny_model("gemma2", tiny_folder), raising=False)
    source = resolve_source("organism")
    assert (source.id, source.local) == ("organism", True)
    assert load_subject("organism", device="cpu").id == "organism"


def test_the_fields_short_names_are_hub_ids() -> None:
    assert resolve_source("gemma-2-2b").id == "google/gemma-2-2b"
    assert resolve_source("gpt2-small").location == "openai-community/gpt2"
    assert all("/" in hub_id for hub_id in ALIASES.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "./nothing",
            "There is no model folder ./nothing; check the path, or give a hub id such as google/gemma-3-270m.",
        ),
        ("a/b/c", "There is no model folder a/b/c; check the path, or give a hub id such as google/gemma-3-270m."),
        ("what is this", "There is no model folder what is this; check the path"),
    ],
)
def test_a_path_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_source(name)
    assert str(caught.value).startswith(message)


def test_a_folder_without_a_model_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        resolve_source(tmp_path)
    assert str(caught.value) == (
        f"The folder {tmp_path} holds no config.json and no GGUF file, so it is no model; give the folder that "
        "save_pretrained or `hf download` wrote."
    )
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="is a file, and a model is a folder or a GGUF file; give the folder"):
        resolve_source(str(file))


def test_an_unknown_name_offline_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        load_subject("google/gemma-2-2bb", device="cpu")
    assert str(caught.value) == (
        "Unknown model 'google/gemma-2-2bb': it is neither a folder nor in the cache, and the hub "
        "(https://huggingface.co/google/gemma-2-2bb) cannot be reached; check the name (nearest: google/gemma-2-2b, "
        "google/gemma-2-27b, google/gemma-2-9b), or download it elsewhere (`hf download google/gemma-2-2bb --local-dir "
        "DIR`), copy it, and give DIR as --model."
    )
    assert "organism" in known_models()


def _hub_says(error: type[Exception], status: int) -> Callable[..., Any]:
    def fail(*_args: object, **options: object) -> None:
        if options.get("local_files_only"):
            raise OSError("not in the cache") from LocalEntryNotFoundError("no")
        request = httpx.Request("GET", "https://huggingface.co")
        raise OSError("no access") from error("no", response=httpx.Response(status, request=request))

    return fail


def test_a_gated_model_says_what_to_accept_and_how_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", _hub_says(GatedRepoError, 403))
    with pytest.raises(InputError) as caught:
        load_subject("google/gemma-2-2b", device="cpu")
    assert str(caught.value) == (
        "The model 'google/gemma-2-2b' is gated: accept its terms at https://huggingface.co/google/gemma-2-2b, then set "
        "HF_TOKEN to a token of that account, or download it elsewhere (`hf download google/gemma-2-2b --local-dir DIR`), "
        "copy it, and give DIR as --model."
    )


def test_a_name_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", _hub_says(RepositoryNotFoundError, 404))
    with pytest.raises(InputError) as caught:
        load_subject("Qwen/Qwen2.5-7B-Instruckt", device="cpu")
    assert str(caught.value).startswith(
        "Unknown model 'Qwen/Qwen2.5-7B-Instruckt': the hub has none of that name, or it is private (set HF_TOKEN); "
        "nearest: Qwen/Qwen2.5-7B-Instruct"
    )


COMMIT = "0123456789" * 4


@pytest.fixture
def cached(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache that holds the model someone/tuned: its snapshot."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--tuned"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(tiny_model("llama", tiny_folder), snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_the_cache_is_asked_before_the_hub(monkeypatch: pytest.MonkeyPatch, cached: Path) -> None:
    """What is in the cache loads without a connection, and keeps its commit."""
    asked: list[object] = []
    for auto in (transformers.AutoConfig, transformers.AutoTokenizer, transformers.LlamaForCausalLM):
        real = auto.from_pretrained

        def load(*args: Any, real: Any = real, **options: Any) -> Any:
            asked.append(options.get("local_files_only"))
            return real(*args, **options)

        monkeypatch.setattr(auto, "from_pretrained", load)
    subject = load_subject("someone/tuned", device="cpu")
    assert set(asked) == {True}
    assert (subject.id, subject.revision) == ("someone/tuned", COMMIT)


def test_missing_weights_are_an_error_not_random_numbers(
    copy_of: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of("llama")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError) as caught:
        load_subject(folder, device="cpu")
    assert str(caught.value) == (
        "The checkpoint of my-model lacks 1 weights of LlamaForCausalLM (first: model.layers.1.mlp.up_proj.weight), which "
        "would be random; take a complete checkpoint, or mend `architectures` in its config."
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", ["no weights", "cut weights", "no tokenizer", "bad config"])
def test_a_damaged_folder_is_named(damage: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    if damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif damage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    else:
        (folder / "config.json").write_text("{")
    with pytest.raises(InputError) as caught:
        load_subject(folder, device="cpu")
    assert str(caught.value).startswith(f"Cannot load the model in {folder}: ")
    assert str(caught.value).endswith("; save or download it again.")


def test_an_encoder_decoder_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    config = transformers.T5Config(d_model=8, num_layers=1, num_heads=1, vocab_size=10)
    config.save_pretrained(folder)
    with pytest.raises(
        InputError, match="my-model is an encoder-decoder model; only decoders and encoders can be read"
    ):
        load_subject(folder, device="cpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(InputError) as caught:
        choose_device("cuda:1")
    assert str(caught.value) == (
        "The device 'cuda:1' was asked for, but torch finds no such GPU here; use --device cpu."
    )
    with pytest.raises(InputError, match="'mps' was asked for, but this machine has none"):
        choose_device("mps")
    with pytest.raises(InputError, match=r"^Unknown device 'gpu'; valid are auto, cpu, cuda, cuda:N and mps\.$"):
        choose_device("gpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:0").index == 0
    with pytest.raises(InputError, match="finds no such GPU"):
        choose_device("cuda:1")


def test_dtypes() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("auto", cuda) == "auto"
    assert choose_dtype("bfloat16", cpu) == choose_dtype(torch.bfloat16, cuda) == torch.bfloat16
    with pytest.raises(InputError, match=r"^Unknown dtype 'int4'; valid are auto, float32, bfloat16, float16\.$"):
        choose_dtype("int4", cpu)


def test_soft_capped_scores_need_eager_attention(subject_of: SubjectOf) -> None:
    from conceptatlas.subjects.loading import _attention

    assert _attention(subject_of("gemma2").hf_model.config) == "eager"
    assert _attention(subject_of("gemma3_conditional").hf_model.config) is None


def test_float32_on_a_cpu_whatever_the_checkpoint(tmp_path: Path) -> None:
    from tests.helpers.tiny_models import build_model

    model, tokenizer = build_model("llama")
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_subject(tmp_path, device="cpu").dtype == torch.float32
    assert load_subject(tmp_path, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_checkpoints_dtype_and_the_same_values(tmp_path: Path, subject_of: SubjectOf) -> None:
    from conceptatlas.subjects import Site

    folder = subject_of("gemma2").location
    subject = load_subject(folder)
    assert subject.device.type == "cuda"
    assert subject.dtype == torch.float32
    items = subject.tokenize(["She told him that the bag was new.", "I lied."])
    sites = [Site("embed"), Site("hook_resid_post", 2), Site("attn.hook_z", 1), Site("mlp.hook_post", 1)]
    got = subject.hidden_states(items.token_ids, sites, items.rows)
    expected = subject_of("gemma2").hidden_states(items.token_ids, sites, items.rows)
    for name, value in expected.items():
        torch.testing.assert_close(got[name].cpu(), value, rtol=1e-3, atol=1e-3)


def test_loading_is_silent(subject_of: SubjectOf) -> None:
    """No bar and no notice when nobody looks."""
    code = (
        f"from conceptatlas.subjects import load_subject; load_subject({subject_of('gemma2').location!r}, device='cpu')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""


def test_the_room_imports_without_torch() -> None:
    code = "import sys, conceptatlas.subjects; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_adapter_beside_the_model_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("gpt2")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(
        InputError, match=r"holds an adapter \(adapter_config\.json\), which is not applied here; merge it"
    ):
        resolve_source(folder)


def test_an_adapter_in_a_repository_is_refused(cached: Path) -> None:
    """Without peft the library loads the base model and says nothing."""
    (cached / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match=r"someone/tuned comes with an adapter \(adapter_config\.json\); merge it"):
        load_subject("someone/tuned", device="cpu")


def test_weights_that_are_not_finite_are_named(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("gpt2")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith("h.1.mlp.c_fc.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"hold 1 values that are NaN or infinite in .*h\.1\.mlp\.c_fc\.weight \(.*safetensors\)"
    ):
        load_subject(folder)
