"""What is served is what was asked for, and nothing unchecked."""

import hashlib
import json
import shutil

import pytest

from jobs import models as base_models
from jobs import settings
from jobs.errors import IntegrityError, UsageError
from jobs.manifest import MANIFEST, write_manifest
from jobs.registry.settings import RegistrySettings
from jobs.registry.versions import CHAMPION, Lineage, Registry, model_sha256
from jobs.runs import Run
from jobs.serving import source
from jobs.storage import Storage


@pytest.fixture
def tree(models, tmp_path) -> settings.Settings:
    return settings.from_tree({"model": {"source": str(models[0])}, "storage": {"root": str(tmp_path / "out")}}, "test")


@pytest.fixture
def run(models, tree) -> Run:
    """A finished training run whose model is the adapter `one`."""
    base, adapters = models
    made = Run.create(Storage(tree.storage.root), "train", settings.to_yaml(tree))
    made.publish(adapters["one"], "model")
    made.finish({"base_model_sha256": base_models.identity(base)})
    return made


def taken(tree, address) -> str:
    with source.adapter(tree, base_models.identity(source.base(tree)), address) as folder:
        return hashlib.sha256((folder / source.ADAPTER_WEIGHTS).read_bytes()).hexdigest()


def test_the_newest_run_is_served_as_an_adapter_over_its_base(tree, run, models):
    found = source.subject(tree, None)
    assert (found.serving.name, found.serving.adapters) == ("tiny", {run.id: run.id})
    assert taken(found, run.id) == taken(found, str(models[1]["one"]))


def test_a_whole_model_is_served_without_adapters(tree, models):
    assert source.subject(tree, str(models[0])).serving.adapters == {}
    with pytest.raises(UsageError, match="whole model"):
        taken(tree, str(models[0]))


def test_a_registry_alias_is_the_run_that_was_registered_unless_it_was_changed_since(tree, run):
    registry = Registry(RegistrySettings(), tree.tracking, run.storage)
    sha256 = model_sha256(run)
    version = registry.register(Lineage(run.id, sha256, "b" * 64, "d" * 64, "c" * 64, "revision", "evaluate-x"))
    registry.point(CHAMPION, version.number)
    assert source.subject(tree, "models:/haetsal@champion").serving.adapters == {"champion": run.id}
    with pytest.raises(UsageError, match="no version or alias 'nobody'"):
        source.subject(tree, "models:/haetsal@nobody")
    manifest = run.storage.local_path(run.path("model", MANIFEST))
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    with pytest.raises(IntegrityError, match="changed since"):
        source.subject(tree, "models:/haetsal@champion")


def test_an_adapter_that_was_damaged_pickled_or_made_for_another_base_is_refused(tree, models, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(models[1]["one"], copy)
    write_manifest(copy)
    weights = copy / source.ADAPTER_WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="does not match"):
        taken(tree, str(copy))
    weights.rename(copy / "adapter_model.bin")
    with pytest.raises(UsageError, match="pickled"):
        taken(tree, str(copy))
    other = tmp_path / "other"
    shutil.copytree(models[0], other)
    config = json.loads((other / "config.json").read_text()) | {"rms_norm_eps": 1e-3}
    (other / "config.json").write_text(json.dumps(config))
    elsewhere = tree.model_copy(update={"model": tree.model.model_copy(update={"source": str(other)})})
    with pytest.raises(IntegrityError, match="not what serves"):
        taken(elsewhere, str(models[1]["one"]))


def test_an_address_that_is_no_alias_is_refused(tree):
    with pytest.raises(UsageError, match="models:/<name>@<alias>"):
        source.subject(tree, "models:/haetsal/3")
