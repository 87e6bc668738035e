"""Settings to applications: what Ray Serve and `ray.serve.llm` are told."""

import pytest
from ray import serve
from ray.llm._internal.serve.core.configs.llm_config import LLMConfig

from jobs import settings
from jobs.errors import EnvironmentNotReady, UsageError
from jobs.serve import routes
from jobs.serving import app, scaling, source
from jobs.serving.engines import vllm

TREE = {
    "model": {"source": "Qwen/Qwen2.5-7B-Instruct"},
    "storage": {"root": "s3://bucket/haetsal"},
    "serving": {"adapters": {"polite": "models:/haetsal@champion"}, "autoscaling": {"max_replicas": 4}},
}


@pytest.fixture
def tree() -> settings.Settings:
    return source.named(settings.from_tree(TREE, "test"))


def test_the_application_takes_no_arguments_or_a_tree_and_names_its_base():
    assert isinstance(app.build({}), serve.Application)
    assert source.named(settings.from_tree({}, "test")).serving.name == "SmolLM2-135M-Instruct"


def test_a_wrong_tree_is_refused_with_the_nearest_key():
    with pytest.raises(UsageError, match="did you mean adapters"):
        app.build({"serving": {"adapter": {}}})


def test_serve_scales_by_what_the_settings_say(tree):
    deployment = serve.deployment(app.EngineServer).options(**scaling.deployment_options(tree.serving))
    config = deployment._deployment_config
    assert (config.autoscaling_config.min_replicas, config.autoscaling_config.max_replicas) == (1, 4)
    assert config.autoscaling_config.target_ongoing_requests < config.max_ongoing_requests < 1000
    assert config.backpressure_config.status_code == 503


def test_a_pushed_adapter_does_not_replace_replicas(tree):
    def arguments(adapters: dict[str, str]) -> tuple[object, object]:
        built = app.build({"serving": {"adapters": adapters}})._bound_deployment
        return built.init_args, built._deployment_config.user_config

    (before, one), (after, two) = arguments({"a": "x"}), arguments({"a": "y"})
    assert before == after
    assert (one, two) == ({"adapters": {"a": "x"}}, {"adapters": {"a": "y"}})


def test_ray_takes_the_arguments_of_vllm_and_its_harmful_defaults_are_undone(tree):
    config = LLMConfig(**vllm.arguments(tree))
    assert config.lora_config.dynamic_lora_loading_path == "s3://bucket/haetsal/serving/Qwen2.5-7B-Instruct"
    assert config.deployment_config["autoscaling_config"]["target_ongoing_requests"] == 8
    assert config.deployment_config["max_ongoing_requests"] == 16
    assert config.experimental_configs["stream_batching_interval_ms"] == 0
    assert config.engine_kwargs["load_format"] == "safetensors"
    assert not config.engine_kwargs["enable_log_requests"]
    options = vllm.ingress_options(tree)
    assert options["autoscaling_config"]["min_replicas"] == 2
    assert options["autoscaling_config"]["target_ongoing_requests"] < options["max_ongoing_requests"]


def test_vllm_cannot_take_what_only_this_machine_can_read(tree):
    local = settings.from_tree(TREE | {"storage": {"root": "output"}}, "test")
    with pytest.raises(UsageError, match="S3"):
        vllm.arguments(source.named(local))
    packaged = settings.from_tree({"serving": {"engine": "vllm"}}, "test")
    with pytest.raises(UsageError, match="package:"):
        vllm.arguments(source.named(packaged))


def test_without_vllm_the_refusal_says_what_to_do():
    with pytest.raises(EnvironmentNotReady, match=r"serving\.engine=transformers"):
        app.build({"serving": {"engine": "vllm"}})


def test_the_gateway_knows_every_model_and_the_one_asked_for_as_haetsal(tree):
    config = routes(tree, "http://127.0.0.1:8100")
    assert set(config["models"]) == {"haetsal", "Qwen2.5-7B-Instruct", "polite"}
    assert config["models"]["haetsal"]["variants"][0]["backend"] == "polite"
    assert config["backends"]["polite"]["model"] == "polite"
