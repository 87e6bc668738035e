"""State: bootstrap, the real binary against the S3 backend that we synthesise, and its lock."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import boto3
import pytest

from jobs.errors import EnvironmentNotReady, RemoteError
from terraform import deploy
from terraform.bootstrap import bootstrap
from terraform.state import state_bucket, state_key
from terraform.tool import Tool, find_tool
from terraform.versions import ROOT
from tests.terraform.standin import stand_in

needs_tool = pytest.mark.skipif(
    not (shutil.which("terraform") or shutil.which("tofu")), reason="neither terraform nor tofu is on PATH"
)


# --- bootstrap ------------------------------------------------------------------------------------------------------


def test_bootstrap_makes_a_closed_versioned_encrypted_bucket_once(lab, lab_session):
    assert bootstrap(lab, lab_session) is True
    s3, name = lab_session.client("s3"), state_bucket(lab)
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert len(block) == 4 and all(block.values())
    (rule,) = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    (deny,) = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert {t["Key"]: t["Value"] for t in s3.get_bucket_tagging(Bucket=name)["TagSet"]} == lab.tags
    assert bootstrap(lab, lab_session) is False


def test_bootstrap_repairs_a_bucket_that_was_opened(lab, lab_session):
    bootstrap(lab, lab_session)
    s3, name = lab_session.client("s3"), state_bucket(lab)
    s3.delete_public_access_block(Bucket=name)
    bootstrap(lab, lab_session)
    assert s3.get_public_access_block(Bucket=name)


def test_another_account_is_refused_with_the_line_to_write(environments, session):
    with pytest.raises(
        EnvironmentNotReady, match=r'dev\.yaml says account_id 000000000000.*account_id: "123456789012"'
    ):
        bootstrap(environments["dev"], session)
    assert session.client("s3").list_buckets()["Buckets"] == []


def test_no_credentials_is_said(lab, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(EnvironmentNotReady, match="no usable AWS credentials"):
        bootstrap(lab, boto3.Session(region_name=lab.region))


def test_before_bootstrap_it_says_what_to_run(lab, lab_session):
    with pytest.raises(EnvironmentNotReady, match="run `make bootstrap ENV=lab` once"):
        deploy.check_state(lab, lab_session)


# --- the real binary ------------------------------------------------------------------------------------------------


@needs_tool
def test_state_goes_to_the_bucket_and_nowhere_else(lab, lab_session, stacks, versions, tmp_path, state):
    folder = stand_in(tmp_path, stacks["lab", "storage"])
    tool = find_tool(versions.terraform)
    assert not deploy.applied(lab, "storage", lab_session)
    tool.init(folder)
    tool.run(folder, "apply", "-auto-approve")
    assert deploy.applied(lab, "storage", lab_session)
    assert not list(folder.rglob("*.tfstate.backup")) and not (folder / "terraform.tfstate").exists()
    s3 = lab_session.client("s3")
    keys = [o["Key"] for o in s3.list_objects_v2(Bucket=state_bucket(lab))["Contents"]]
    assert keys == [state_key("storage")]  # and the lock file is gone again
    tool.run(folder, "destroy", "-auto-approve")
    assert not deploy.applied(lab, "storage", lab_session)


@needs_tool
def test_a_held_lock_stops_a_second_run(lab, lab_session, stacks, versions, tmp_path, state, capfd):
    folder = stand_in(tmp_path, stacks["lab", "platform"])
    tool = find_tool(versions.terraform)
    tool.init(folder)
    held = {"ID": "0", "Operation": "OperationTypeApply", "Who": "a colleague", "Created": "2026-11-22T00:00:00Z"}
    s3 = lab_session.client("s3")
    s3.put_object(Bucket=state_bucket(lab), Key=f"{state_key('platform')}.tflock", Body=json.dumps(held).encode())
    with pytest.raises(RemoteError, match="apply of platform failed"):
        tool.run(folder, "apply", "-auto-approve")
    assert "a colleague" in capfd.readouterr().err
    assert not deploy.applied(lab, "platform", lab_session)


@needs_tool
def test_a_plan_stops_at_the_first_stack_that_is_not_applied(
    lab, lab_session, stacks, versions, tmp_path, state, capfd
):
    for name in ("storage", "platform", "addons"):
        stand_in(tmp_path, stacks["lab", name])
    deploy.plan(lab, find_tool(versions.terraform), tmp_path, lab_session)
    said = capfd.readouterr().out
    assert "terraform_data.probe" in said
    assert "platform: can be planned once storage is applied" in said
    assert "addons: can be planned once storage is applied" in said


# --- finding and running the binary ---------------------------------------------------------------------------------


def script(folder, text: str) -> Tool:
    path = folder / "terraform"
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return Tool(path, (1, 10, 0))


@pytest.mark.parametrize(
    ("says", "expected"),
    [("echo Terraform v1.5.7", "is 1.5.7; 1.10.0 or newer is needed"), ("echo hello", "does not tell its version")],
)
def test_an_old_or_odd_binary_is_refused(says, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRAFORM", str(script(tmp_path, says).binary))
    with pytest.raises(EnvironmentNotReady, match=re.escape(expected)):
        find_tool("1.10.0")


def test_no_binary_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("TERRAFORM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentNotReady, match=r"terraform or tofu is not on PATH; install .* 1\.10\.0 or newer"):
        find_tool("1.10.0")


def test_ctrl_c_waits_for_the_binary_to_unlock_and_exits_130(tmp_path):
    """The terminal's Ctrl-C goes to the whole group; we must not kill a tool that is writing its state."""
    script(
        tmp_path,
        f"""
        trap 'sleep 0.5; touch {tmp_path}/unlocked; exit 1' INT
        touch {tmp_path}/started
        while :; do sleep 0.05; done
        """,
    )
    program = f"""
        from pathlib import Path
        from jobs.cli import main
        from terraform.tool import Tool
        main(lambda: Tool(Path({str(tmp_path / "terraform")!r}), (1, 10, 0)).run(Path("platform"), "apply"))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "started").exists():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (tmp_path / "unlocked").exists()
    assert process.returncode == 130
    assert "apply of platform was interrupted; run it again to go on" in stderr
