"""Every state and reason of a run on a cluster, told apart and said in a sentence."""

from __future__ import annotations

import re

import pytest
from cluster_objects import CLUSTER, READY, RUN, event, ray_cluster, ray_job, ray_pod, unscheduled

from jobs.cluster.diagnosis import Finding, Observed, Operator, Phase, diagnose
from jobs.cluster.obstacles import refusal

HEAD = f"{CLUSTER}-head-2kq8v"
WORKER = f"{CLUSTER}-training-worker-5d8xk"
UP = (Operator("ray-system/kuberay-operator", 1, 1),)


def judge(observed: Observed, age_s: float = 60) -> Finding:
    return diagnose(observed, age_s, 30)


@pytest.mark.parametrize(
    ("job", "phase", "sentence", "exit_code"),
    [
        (ray_job("Initializing"), Phase.WAITING, "its Ray cluster is being made", None),
        (ray_job("Waiting"), Phase.WAITING, "its Ray cluster is being made", None),
        (ray_job("Running", "PENDING"), Phase.RUNNING, "runs", None),
        (ray_job("Running", "RUNNING"), Phase.RUNNING, "runs", None),
        (ray_job("Retrying", failed=1), Phase.WAITING, "attempt 1 failed; a new Ray cluster goes on", None),
        (ray_job("Complete", "SUCCEEDED", succeeded=1), Phase.FINISHED, "finished", 0),
        (ray_job("Complete", "STOPPED"), Phase.STOPPED, "was stopped", 130),
        (ray_job("Suspending"), Phase.STOPPED, "is suspended; make resume", 130),
        (ray_job("Suspended"), Phase.STOPPED, "is suspended; make resume", 130),
        (
            ray_job(
                "Failed", "FAILED", reason="AppFailed", message="Job entrypoint command failed with exit code 5, last "
                "available logs (truncated to 20,000 chars):\nerror: loss is nan at step 12",
            ),
            Phase.FAILED, "the job ended with exit code 5", 5,
        ),
        (
            ray_job("Failed", "FAILED", reason="AppFailed", message="The driver was killed: its node died."),
            Phase.FAILED, "the job failed: The driver was killed", 4,
        ),
        (ray_job("Failed", reason="AppFailed"), Phase.FAILED, "the job failed: AppFailed", 4),
        (
            ray_job(
                "Failed", reason="SubmissionFailed", message="Job submission has failed. Reason: BackoffLimitExceeded. "
                "Message: Job has reached the specified backoff limit",
            ),
            Phase.FAILED, "could not be submitted to its Ray cluster: .*backoff limit", 3,
        ),
        (
            ray_job("Failed", "RUNNING", reason="DeadlineExceeded", message="The RayJob has passed the …"),
            Phase.FAILED, "took longer than its deadline", 4,
        ),
        (
            ray_job("Failed", reason="PreRunningDeadlineExceeded", message="The RayJob has passed the …"),
            Phase.FAILED, "did not start within its deadline", 3,
        ),
        (
            ray_job("Failed", "RUNNING", reason="JobStatusCheckTimeoutExceeded", message="Job status checks have been "
                    "failing since 10:20; exceeded timeout of 600s"),
            Phase.FAILED, "Ray head stopped answering: .*600s", 4,
        ),
        (
            ray_job("Failed", reason="JobDeploymentStatusTransitionGracePeriodExceeded", message="submitter finished"),
            Phase.FAILED, "submitter ended without an end of the job", 4,
        ),
        (
            ray_job("Failed", reason="ValidationFailed", message="The RayJob spec is invalid: headGroupSpec should …"),
            Phase.FAILED, "KubeRay refuses the RayJob: The RayJob spec is invalid", 3,
        ),
        (
            ray_job("ValidationFailed", reason="ValidationFailed", message="BackoffLimit is incompatible with …"),
            Phase.FAILED, "KubeRay refuses the RayJob: BackoffLimit is incompatible", 3,
        ),
        (None, Phase.GONE, "its RayJob is gone", 4),
    ],
)  # fmt: skip
def test_states_and_reasons_of_the_operator(job: object, phase: Phase, sentence: str, exit_code: int | None) -> None:
    finding = judge(Observed(job))  # type: ignore[arg-type]

    assert (finding.phase, finding.exit_code) == (phase, exit_code)
    assert re.match(rf".*{sentence}", finding.sentence) and "\n" not in finding.sentence
    assert finding.is_over == (exit_code is not None)


@pytest.mark.parametrize(
    ("operators", "sentence"),
    [
        ((), r"no KubeRay operator is installed on this cluster; `make apply`"),
        (
            (Operator("ray-system/kuberay-operator", 1, 0),),
            r"operator is down \(ray-system/kuberay-operator: 0 of 1 available\); see kubectl -n ray-system describe",
        ),
        (UP, r"operator \(ray-system/kuberay-operator\) is available; does it watch this namespace"),
        (None, r"you may not see whether the KubeRay operator is up"),
    ],
)
def test_operator_that_does_not_answer(operators: tuple[Operator, ...] | None, sentence: str) -> None:
    silent = Observed(ray_job(), operators=operators)

    early, late = judge(silent, age_s=29), judge(silent, age_s=31)

    assert (early.phase, early.obstacle) == (Phase.WAITING, None)
    assert late.obstacle and late.obstacle.kind == "operator" and late.obstacle.hopeless
    assert re.search(sentence, late.sentence)


QUOTA = (
    'pods "w" is forbidden: exceeded quota: gpu-team, requested: requests.nvidia.com/gpu=1, '
    "used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4"
)
RESTRICTED = (
    'pods "w" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false '
    '(container "ray" must set securityContext.allowPrivilegeEscalation=false)'
)
WEBHOOK = 'admission webhook "validate.kyverno.svc-fail" denied the request: policy Pod/haetsal: image is not signed'
ACCOUNT = 'error looking up service account haetsal/train: serviceaccount "train" not found'


@pytest.mark.parametrize(
    ("observed", "kind", "hopeless", "sentence"),
    [
        pytest.param(
            {"pods": [ray_pod(gpus=1, conditions=unscheduled(
                "0/4 nodes are available: 1 Insufficient nvidia.com/gpu, 3 node(s) didn't match Pod's node affinity."
            ))]},
            "gpu", False, rf"no node has 1 free GPU for {WORKER}", id="all GPUs taken",
        ),
        pytest.param(
            {
                "pods": [ray_pod(gpus=8, conditions=unscheduled(
                    "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
                ))],
                "events": [event("Pod", WORKER, "TriggeredScaleUp", "pod triggered scale-up: [{eks-training 0->1}]",
                                 type_="Normal")],
            },
            "gpu", False, r"no node has 8 free GPUs for .*; a node for it is being started", id="scaling from zero",
        ),
        pytest.param(
            {
                "pods": [ray_pod(gpus=1, conditions=unscheduled("0/2 nodes are available: 2 Insufficient cpu, "
                                                                "2 Insufficient nvidia.com/gpu."))],
                "events": [
                    event("Pod", WORKER, "TriggeredScaleUp", "pod triggered scale-up", at="2026-11-22T10:16:00Z"),
                    event("Pod", WORKER, "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size "
                          "reached", at="2026-11-22T10:20:00Z"),
                ],
            },
            "gpu", False, r"and no node group can grow for it \(1 max node group size reached\)", id="pool is full",
        ),
        pytest.param(
            {
                "pods": [ray_pod(gpus=1, conditions=unscheduled("0/2 nodes are available: 2 Insufficient "
                                                                "nvidia.com/gpu."))],
                "events": [event("Pod", WORKER, "FailedScaleUp", "InsufficientInstanceCapacity")],
            },
            "gpu", False, r"the cloud has none to give just now", id="cloud has no GPU",
        ),
        pytest.param(
            {"pods": [ray_pod(conditions=unscheduled("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient "
                                                     "memory."))]},
            "room", False, r"no node has enough cpu and memory for", id="no room",
        ),
        pytest.param(
            {"pods": [ray_pod(conditions=unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint "
                                                     "{gpu-training: true}."))]},
            "room", False, r"no node takes .*untolerated taint", id="taint",
        ),
        pytest.param(
            {"pods": [ray_pod(conditions=unscheduled("Scheduling is blocked due to non-empty scheduling gates",
                                                     "SchedulingGated"))]},
            "queue", False, r"held back by a scheduling gate", id="gated",
        ),
        pytest.param(
            {"pods": [ray_pod(waiting=("ImagePullBackOff", "Back-off pulling image: ErrImagePull: rpc error: code = "
                                       "NotFound desc = manifest unknown"))]},
            "image", True, r"image registry\.example\.com/haetsal/job-gpu:0\.1\.0 of .* is not in the registry",
            id="image is not there",
        ),
        pytest.param(
            {"pods": [ray_pod(waiting=("ErrImagePull", "failed to authorize: 401 Unauthorized"))]},
            "image", False, r"may not be pulled by the nodes", id="registry refuses",
        ),
        pytest.param(
            {"pods": [ray_pod(waiting=("ImagePullBackOff", "dial tcp: lookup registry: no such host"))]},
            "image", False, r"cannot be pulled: dial tcp", id="registry is away",
        ),
        pytest.param(
            {"pods": [ray_pod(waiting=("InvalidImageName", "couldn't parse image reference"))]},
            "image", True, r"is no valid name", id="wrong name",
        ),
        pytest.param(
            {"pods": [ray_pod(waiting=("ErrImageNeverPull", "Container image is not present"))]},
            "image", True, r"kind load docker-image", id="kind without image",
        ),
        pytest.param(
            {"pods": [ray_pod(waiting=("CreateContainerConfigError", 'secret "object-store" not found'))]},
            "missing", False, r'cannot start: secret "object-store" not found', id="no secret",
        ),
        pytest.param(
            {"pods": [ray_pod()], "events": [event("Pod", WORKER, "FailedMount", 'MountVolume.SetUp failed for volume '
                                                   '"config" : configmap "x" not found')]},
            "missing", False, r'cannot start: MountVolume.*configmap "x" not found', id="no volume",
        ),
        pytest.param(
            {"pods": [ray_pod(phase="Running", waiting=("CrashLoopBackOff", "back-off 20s"),
                              ended={"exitCode": 1, "reason": "Error"})]},
            "crash", False, r"keeps ending with exit code 1", id="crash loop",
        ),
        pytest.param(
            {"pods": [ray_pod(phase="Running", ended={"exitCode": 137, "reason": "OOMKilled"})]},
            "crash", False, r"ran out of memory \(OOMKilled\)", id="out of memory",
        ),
        pytest.param(
            {"pods": [ray_pod(phase="Failed", reason="Evicted", message="The node was low on resource: "
                              "ephemeral-storage.")]},
            "crash", False, r"lost its node \(Evicted\): The node was low", id="evicted",
        ),
        pytest.param(
            {"events": [event("RayCluster", CLUSTER, "FailedToCreateHeadPod", f"Failed to create head Pod, {QUOTA}")]},
            "quota", False,
            r"quota gpu-team is used up: requests.nvidia.com/gpu=1 is asked for, .*=4 of .*=4 is taken", id="quota",
        ),
        pytest.param(
            {"clusters": [ray_cluster(CLUSTER, {"type": "ReplicaFailure", "status": "True",
                                                "reason": "FailedCreateWorkerPod", "message": QUOTA})],
             "pods": [ray_pod(HEAD, phase="Running", conditions=READY)]},
            "quota", False, r"quota gpu-team is used up", id="quota for workers only",
        ),
        pytest.param(
            {"events": [event("RayCluster", CLUSTER, "FailedToCreateHeadPod", RESTRICTED)]},
            "refused", True, r'Pod Security "restricted:latest" refuses its pods: allowPrivilegeEscalation',
            id="pod security",
        ),
        pytest.param(
            {"events": [event("Job", RUN, "FailedCreate", f"Error creating: {WEBHOOK}")]},
            "refused", True, r"webhook validate\.kyverno\.svc-fail refuses it: policy Pod/haetsal: image is not signed",
            id="webhook",
        ),
        pytest.param(
            {"events": [event("RayCluster", CLUSTER, "FailedToCreateHeadPod", 'Internal error occurred: failed calling '
                              'webhook "mutate.example.com": connect: connection refused')]},
            "refused", False, r"webhook mutate\.example\.com does not answer", id="webhook is away",
        ),
        pytest.param(
            {"events": [event("RayCluster", CLUSTER, "FailedToCreateHeadPod", f'pods "h" is forbidden: {ACCOUNT}')]},
            "missing", True, r"service account train is not there", id="no service account",
        ),
    ],
)  # fmt: skip
def test_obstacles(observed: dict[str, list[object]], kind: str, hopeless: bool, sentence: str) -> None:
    finding = judge(Observed(ray_job("Initializing"), **{key: tuple(value) for key, value in observed.items()}))  # type: ignore[arg-type]

    assert finding.phase is Phase.WAITING
    assert finding.obstacle and (finding.obstacle.kind, finding.obstacle.hopeless) == (kind, hopeless)
    assert re.search(sentence, finding.sentence) and "\n" not in finding.sentence


def test_obstacle_of_a_running_run_is_said_and_does_not_stop_it() -> None:
    pods = (
        ray_pod(HEAD, phase="Running", conditions=READY),
        ray_pod(gpus=1, conditions=unscheduled("0/1 nodes are …")),
    )

    finding = judge(Observed(ray_job("Running", "RUNNING"), pods=pods))

    assert finding.phase is Phase.RUNNING and not finding.is_over
    assert finding.sentence.startswith("runs, but not all of its workers do: no node has 1 free GPU")


def test_deadline_before_the_start_names_the_cause() -> None:
    pods = (ray_pod(gpus=1, conditions=unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")),)

    finding = judge(Observed(ray_job("Failed", reason="PreRunningDeadlineExceeded"), pods=pods))

    assert finding.exit_code == 3
    assert finding.sentence.startswith("it did not start within its deadline: no node has 1 free GPU")


def test_kueue_says_why_it_waits() -> None:
    job = ray_job("Suspended", labels={"kueue.x-k8s.io/queue-name": "gpu"})
    said = event("Workload", f"rayjob-{RUN}-6f1ad", "Pending", "couldn't assign flavors to pod set training: "
                 "insufficient unused quota for nvidia.com/gpu in flavor h100, 1 more needed")  # fmt: skip

    finding = judge(Observed(job, events=(said,)))

    assert finding.phase is Phase.WAITING and finding.obstacle and finding.obstacle.kind == "queue"
    assert finding.sentence.startswith("waits in the Kueue queue gpu: couldn't assign flavors")


def test_what_is_past_does_not_count() -> None:
    """The refusal was before the pod; the crashed pod and its event belong to the attempt before."""
    refused = event("RayCluster", CLUSTER, "FailedToCreateHeadPod", QUOTA, at="2026-11-22T10:15:10Z")
    head = ray_pod(HEAD, phase="Running", conditions=READY, made="2026-11-22T10:15:20Z")
    old = ray_pod("old-head", cluster="old", phase="Failed", reason="Evicted", message="low on memory")
    old_event = event("Pod", "old-head", "FailedMount", "gone")

    finding = judge(
        Observed(
            ray_job("Initializing"), (ray_cluster("old"), ray_cluster()), (old, head), (refused, old_event)
        )
    )  # fmt: skip

    assert finding.obstacle is None
    assert finding.sentence == "its Ray cluster starts: 1 of 1 pods are ready"


def test_refusals_are_known_whoever_was_refused() -> None:
    assert refusal("connection reset by peer") is None
    helm = f"Error: INSTALLATION FAILED: {WEBHOOK}"
    assert (found := refusal(helm)) and "kyverno" in found.sentence
