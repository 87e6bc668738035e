"""The engine `vllm`: settings to an application of `ray.serve.llm`, which is to be there with vLLM itself.

Ray's defaults are undone where they harm: its autoscaling aims at 1e9 requests per replica and so never scales, its
ingress is a single replica, and it waits 50 ms before the first token of a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobs import models
from jobs.errors import EnvironmentNotReady, UsageError
from jobs.serving import source
from jobs.serving.scaling import deployment_options
from jobs.settings import Settings
from jobs.storage import Storage

if TYPE_CHECKING:
    from ray import serve

_PUBLISHED = "serving"
"""Folder of the storage that Ray's replicas fetch adapters from."""
_MOST_CHOICES = 16
_INGRESS_REPLICAS = 2


def build(tree: Settings) -> serve.Application:
    """The application. Raises EnvironmentNotReady without vLLM, and what `publish_adapters` raises."""
    try:
        from ray.serve.llm import LLMConfig, build_openai_app
    except ImportError as error:
        raise EnvironmentNotReady(
            f"serving.engine=vllm: {str(error).splitlines()[0]} Or set serving.engine=transformers"
        ) from None
    publish_adapters(tree)
    return build_openai_app(
        {"llm_configs": [LLMConfig(**arguments(tree))], "ingress_deployment_config": ingress_options(tree)}
    )


def arguments(tree: Settings) -> dict[str, Any]:
    """What `ray.serve.llm.LLMConfig` is made with. Raises UsageError for a model that only this machine can read."""
    serving, vllm = tree.serving, tree.serving.vllm
    options = deployment_options(serving)
    lora: dict[str, Any] = {}
    if serving.adapters:
        lora = {
            "lora_config": {
                "dynamic_lora_loading_path": _published_address(tree),
                "max_num_adapters_per_replica": vllm.most_adapters,
            }
        }
    return lora | {
        "model_loading_config": {"model_id": serving.name, "model_source": _weights(tree.model.source)},
        "engine_kwargs": {
            "max_model_len": serving.context_tokens,
            "max_num_seqs": serving.most_rows,
            "max_num_batched_tokens": max(serving.prefill_tokens, serving.most_rows),
            "tensor_parallel_size": vllm.gpus,
            "gpu_memory_utilization": vllm.gpu_memory,
            "enable_prefix_caching": True,
            "enable_lora": bool(serving.adapters),
            "dtype": tree.model.dtype,
            "load_format": "safetensors",
            "trust_remote_code": tree.model.trust_remote_code,
            "enable_log_requests": False,  # prompts are personal data
        }
        | ({"revision": tree.model.revision} if tree.model.revision else {})
        | ({"max_loras": vllm.most_adapters, "max_lora_rank": vllm.largest_rank} if serving.adapters else {}),
        "deployment_config": {key: value for key, value in options.items() if key not in ("name", "ray_actor_options")},
        "runtime_env": {"env_vars": {"VLLM_SERVER_DEV_MODE": "0", "VLLM_MAX_N_SEQUENCES": str(_MOST_CHOICES)}},
        "experimental_configs": {"stream_batching_interval_ms": 0},
    }


def ingress_options(tree: Settings) -> dict[str, Any]:
    """How the ingress scales: it forwards, so it may hold more requests than an engine, and there are always two."""
    scaling = tree.serving.autoscaling
    return {
        "autoscaling_config": {
            "min_replicas": _INGRESS_REPLICAS,
            "max_replicas": max(_INGRESS_REPLICAS, scaling.max_replicas),
            "target_ongoing_requests": 4 * scaling.target_ongoing_requests,
        },
        "max_ongoing_requests": 8 * tree.serving.max_ongoing_requests,
    }


def adapter_name(tree: Settings, name: str) -> str:
    """What a request to `ray.serve.llm` calls an adapter."""
    return f"{tree.serving.name}:{name}"


def publish_adapters(tree: Settings) -> None:
    """Copy the adapters, checked, to where replicas fetch them by name. Raises what `source.adapter` raises."""
    if not tree.serving.adapters:
        return
    base_sha256 = models.identity(source.base(tree))
    storage = Storage(_published_address(tree))
    for name, address in tree.serving.adapters.items():
        with source.adapter(tree, base_sha256, address) as folder:
            storage.publish_tree(folder, name)


def _published_address(tree: Settings) -> str:
    if not tree.storage.root.startswith("s3://"):
        raise UsageError("serving.engine=vllm: adapters are fetched from S3 only; set storage.root=s3://…")
    return f"{tree.storage.root}/{_PUBLISHED}/{tree.serving.name}"


def _weights(address: str) -> str | dict[str, str]:
    if address.startswith("s3://"):
        return {"bucket_uri": address}
    if address.startswith("package:"):
        raise UsageError(
            f"serving.engine=vllm: {address} is no safetensors model; name a folder, hub id or s3:// model"
        )
    return address
