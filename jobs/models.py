"""Where base models come from, and how each becomes a local folder of safetensors.

Four kinds of address: a hub id, a local folder, `s3://…`, and `package:<module>/<file.gguf>`, a GGUF weights file that
ships inside an installed Python package. The last is converted once and cached with a checksum of every file.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from jobs import packaged
from jobs.errors import EnvironmentNotReady, IntegrityError, UsageError
from jobs.gguf_tokenizer import load_tokenizer
from jobs.settings import ModelSettings
from jobs.storage import Storage, cache_dir, sha256_file, verify_manifest, write_manifest

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_CONVERSION = "v1"
"""Part of a converted model's folder name; raise it when `_convert_gguf` writes something else than before."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_HUB_FILES = (*_WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt")


def resolve(settings: ModelSettings) -> Path:
    """Folder with config, tokenizer and safetensors weights of `settings.source`, fetched or converted if need be.

    Raises UsageError for an address that names no model, EnvironmentNotReady when a hub or package that should hold it
    is out of reach, and IntegrityError when a cached copy no longer matches its checksums.
    """
    source = settings.source
    if source.startswith("package:"):
        return _from_package(source)
    if source.startswith("s3://"):
        return _from_s3(source)
    if _looks_like_path(source):
        return _from_folder(Path(source).expanduser())
    return _from_hub(source, settings.revision)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn what transformers raises about a damaged or unknown model in `folder` into a UsageError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"model.source: {folder} cannot be loaded: {reason}; fetch the model again") from None


def read_tokenizer(settings: ModelSettings, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder. Raises UsageError if there is none that can be read."""
    from transformers import AutoTokenizer

    with loading(folder):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)


def read_fast_tokenizer(settings: ModelSettings, folder: Path) -> Tokenizer:
    """The same tokenizer for counting alone: without transformers, whose import takes 800 MB and many times as long.

    Raises UsageError if there is none that can be read, or none of the fast kind.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            read: Tokenizer = Tokenizer.from_file(str(file))
            return read
        except Exception as error:  # the library raises nothing more specific
            raise UsageError(f"model.source: {file} cannot be read: {error}; fetch the model again") from None
    slow = read_tokenizer(settings, folder)
    if not slow.is_fast:
        raise UsageError(f"model.source: {folder} has no fast tokenizer, which is needed to count many texts")
    converted: Tokenizer = slow.backend_tokenizer
    return converted


def identity(folder: Path) -> str:
    """sha256 over the names and contents of a model folder's weights and configuration, for lineage."""
    import hashlib

    digest = hashlib.sha256()
    for file in sorted(
        p for p in folder.iterdir() if p.suffix in {".safetensors", ".json"} and p.name != "manifest.json"
    ):
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "/", "~", "file://")) or Path(source).is_dir()


def _from_folder(folder: Path) -> Path:
    folder = Path(str(folder).removeprefix("file://"))
    if not folder.is_dir():
        raise UsageError(f"model.source: {folder} is not a folder")
    if not (folder / "config.json").is_file():
        raise UsageError(f"model.source: {folder} holds no config.json, so it is not a model folder")
    if not any(folder.glob("*.safetensors")):
        raise UsageError(f"model.source: {folder} holds no *.safetensors; pickled weights are not loaded, convert them")
    return folder


def _from_hub(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(_HUB_FILES)))
    except HFValidationError:
        raise UsageError(f"model.source: {source!r} is neither a folder nor a hub id (org/name)") from None
    except RevisionNotFoundError:
        raise UsageError(f"model.revision: {source} has no revision {revision!r}") from None
    except GatedRepoError:
        raise EnvironmentNotReady(
            f"model.source: {source} asks for its licence to be accepted on the hub and for HF_TOKEN to be set"
        ) from None
    except RepositoryNotFoundError:
        raise UsageError(f"model.source: the hub knows no model {source!r} (a private one needs HF_TOKEN)") from None
    except (LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EnvironmentNotReady(
            f"model.source: {source} is not in the local cache and the model hub cannot be reached ({reason}); "
            "name a local folder or a package: file to work offline"
        ) from None


def _from_s3(source: str) -> Path:
    bucket_and_prefix, _, name = source.rstrip("/").rpartition("/")
    storage = Storage(bucket_and_prefix)
    target = cache_dir() / "models" / f"s3-{_slug(source)}"
    with _built_once(target) as scratch:
        if scratch is not None:
            storage.download_tree(name, scratch)
            _from_folder(scratch)
    return target


def _from_package(source: str) -> Path:
    gguf = packaged.find(source)
    target = cache_dir() / "models" / f"{Path(gguf.name).stem}-{gguf.sha256[:16]}-{_CONVERSION}"
    with _built_once(target) as scratch:
        if scratch is not None:
            with gguf.opened() as path:
                _convert_gguf(path, scratch)
    return target


@contextmanager
def _built_once(target: Path) -> Iterator[Path | None]:
    """Yield a scratch folder to fill when `target` is not there yet, else None after verifying its checksums.

    Concurrent builders wait for one another; a builder that dies leaves only its scratch folder behind.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()
    except OSError as error:
        raise EnvironmentNotReady(f"{target.parent}: the model cache cannot be written ({error.strerror})") from None
    try:
        if target.is_dir():
            _verify_cached(target)
            yield None
            return
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield scratch
            write_manifest(scratch)
            scratch.replace(target)
        except OSError as error:
            raise EnvironmentNotReady(f"{target.parent}: converting the model failed ({error.strerror})") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        lock.release()


def _verify_cached(target: Path) -> None:
    try:
        verify_manifest(target)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; delete {target} and run again to rebuild it") from None


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Write tokenizer, config and bfloat16 weights of a GGUF file as a plain Hugging Face folder.

    transformers marks what it reads from GGUF as quantised and refuses to save it, so the dequantised tensors are moved
    into a model built from the clean config. bfloat16 holds 4-bit values times their fp16 scales with room to spare.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    print(f"converting {gguf.name} to safetensors (once, about a minute)", file=sys.stderr)
    tokenizer = load_tokenizer(gguf)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict({k: v.to(torch.bfloat16) for k, v in loaded.state_dict().items()}, assign=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _slug(address: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in address.split("://", 1)[1])
