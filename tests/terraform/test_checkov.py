"""checkov over the synthesised JSON: no failure but the ones that terraform/checkov.yaml lists with a reason."""

import json
import os
import shutil
import subprocess
from fnmatch import fnmatch

import pytest
from pydantic import Field

from terraform.documents import Model, load_document
from terraform.versions import ROOT

pytestmark = pytest.mark.long


class Skip(Model):
    check: str = Field(pattern=r"^CKV2?_AWS_\d+$")
    resources: list[str] = Field(min_length=1)
    reason: str = Field(min_length=20)


class Skips(Model):
    skips: list[Skip]


def find_checkov() -> str | None:
    """$CHECKOV, the one on PATH, or the one that `make checkov` installs."""
    installed = ROOT / ".venv" / "checkov" / "bin" / "checkov"
    return os.environ.get("CHECKOV") or shutil.which("checkov") or (str(installed) if installed.exists() else None)


@pytest.fixture(scope="module")
def failures(synthesised, stacks, tmp_path_factory) -> list[tuple[str, str]]:
    """(check id, <environment>/<stack>/<resource>) of every failure in the repository's own environments."""
    binary = find_checkov()
    if binary is None:
        pytest.skip("checkov is not installed; `make checkov` installs it")
    folder = tmp_path_factory.mktemp("checkov")  # checkov does not look into folders whose names start with a dot
    resources = 0
    for (environment, name), stack in stacks.items():
        if environment in ("dev", "prod") and name != "addons":
            (folder / environment / name).mkdir(parents=True)
            # checkov 3.3's JSON parser stops at required_version; the settings block holds nothing it checks.
            checked = {key: value for key, value in stack.json.items() if key != "terraform"}
            (folder / environment / name / stack.path.name).write_text(json.dumps(checked, indent=2))
            resources += len(stack.resources())
    command = [binary, "--directory", folder, "--framework", "terraform_json", "--skip-download", "--output", "json"]
    done = subprocess.run([*command, "--quiet", "--compact"], capture_output=True, text=True, timeout=240)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > resources  # it has really read them: several checks for each resource
    return [
        (row["check_id"], "/".join([*row["file_path"].split("/")[-3:-1], row["resource"]]))
        for row in report["results"]["failed_checks"]
    ]


@pytest.fixture(scope="module")
def skips() -> list[Skip]:
    return load_document(ROOT / "terraform" / "checkov.yaml", Skips).skips


def covers(skip: Skip, check: str, resource: str) -> bool:
    return skip.check == check and any(fnmatch(resource, pattern) for pattern in skip.resources)


def test_nothing_fails_that_is_not_skipped_with_a_reason(failures, skips):
    unlisted = [failure for failure in failures if not any(covers(skip, *failure) for skip in skips)]
    assert unlisted == []


def test_no_skip_is_stale(failures, skips):
    stale = [skip for skip in skips if not any(covers(skip, *failure) for failure in failures)]
    assert stale == []
