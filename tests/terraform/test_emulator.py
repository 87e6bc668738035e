"""With provider plugins: `validate` on every stack, and plan/apply/destroy of the storage stack against moto.

Without a way to get plugins these are skipped, never passed.
"""

import json
import shutil
import subprocess
from pathlib import Path

import boto3
import pytest

from terraform.tool import find_tool
from terraform.versions import load_versions
from tests.terraform.stacks import Stack


def terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tool = find_tool(load_versions().terraform)
    command = [tool.binary, f"-chdir={folder}", *arguments, "-no-color"]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def plugins(stacks, tmp_path_factory) -> str:
    """Folder with the plugins of every stack, downloaded once."""
    if not (shutil.which("terraform") or shutil.which("tofu")):
        pytest.skip("neither terraform nor tofu is on PATH")
    folder = tmp_path_factory.mktemp("plugins")
    required = {}
    for stack in stacks.values():
        required |= stack.json["terraform"]["required_providers"]
    (folder / "main.tf.json").write_text(json.dumps({"terraform": {"required_providers": required}}))
    done = terraform(folder, "init", "-input=false", "-backend=false")
    if done.returncode:
        reason = " ".join(done.stderr.split("Error: ", 1)[-1].split()[:16])
        pytest.skip(f"provider plugins cannot be downloaded: {reason}")
    return str(folder / ".terraform" / "providers")


def copy(stack: Stack, folder: Path, **override: object) -> Path:
    """A copy to work in, with local state and `override` merged in as Terraform does."""
    shutil.copy(stack.path, folder)
    local = {"terraform": {"backend": {"local": {}}}, **override}
    (folder / "override.tf.json").write_text(json.dumps(local))
    return folder


def test_every_stack_is_valid_by_the_providers_own_schema(plugins, stacks, tmp_path):
    for (environment, name), stack in stacks.items():
        folder = tmp_path / environment / name
        folder.mkdir(parents=True)
        copy(stack, folder)
        done = terraform(folder, "init", "-input=false", "-backend=false", f"-plugin-dir={plugins}")
        assert done.returncode == 0, done.stderr
        done = terraform(folder, "validate")
        assert done.returncode == 0, f"{environment}/{name}: {done.stderr}"


def test_storage_is_planned_applied_and_destroyed(plugins, stacks, lab, lab_session: boto3.Session, tmp_path):
    emulator = {"aws": {"s3_use_path_style": True, "skip_metadata_api_check": "true"}}
    folder = copy(stacks["lab", "storage"], tmp_path, provider=emulator)
    done = terraform(folder, "init", "-input=false", f"-plugin-dir={plugins}")
    assert done.returncode == 0, done.stderr
    for verb in (["plan"], ["apply", "-auto-approve"]):
        done = terraform(folder, *verb, "-input=false")
        assert done.returncode == 0, done.stderr
    s3 = lab_session.client("s3")
    assert lab.bucket_name("backups") in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    done = terraform(folder, "plan", "-detailed-exitcode", "-input=false")
    assert done.returncode == 0, f"a second plan wants to change something: {done.stdout}"
    done = terraform(folder, "destroy", "-auto-approve", "-input=false")
    assert done.returncode == 0, done.stderr
    assert s3.list_buckets()["Buckets"] == []
