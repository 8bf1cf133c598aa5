"""The nightly audit as a job of Dagster; what holds its gates is filtered.

Where it runs there must be the command `regrad`, which submits to the cluster at RAY_ADDRESS. An exit code that another
try would not change fails the step at once.
"""

import subprocess

import dagster as dg

FINAL = {2: "wrong configuration", 3: "a gate was exceeded", 4: "too many rows in quarantine"}
SUBMIT = ["regrad", "submit", "--"]
AUDIT = [
    *("regrad", "audit", "s3://BUCKET/shards"),
    *("--model", "torchvision:resnet50", "--weights", "s3://BUCKET/weights/resnet50.safetensors"),
    *("--baseline", "s3://BUCKET/baseline", "--output", "s3://BUCKET/audit", "--score", "regrad"),
    *("--gate", "flagged_share < 0.10", "--gate", "quarantined < 0.001"),
    *("--num-workers", "8", "--gpus-per-worker", "1", "--cpus-per-worker", "6"),
]
FILTER = [
    *("regrad", "filter", "s3://BUCKET/audit", "--quantile", "0.95"),
    *("--output", "s3://BUCKET/filtered", "--replace", "--write-shards", "--num-workers", "8"),
]
TRIES = dg.RetryPolicy(max_retries=2, delay=300)


def run(command: list[str]) -> None:
    """Run it to its end; raises by its exit code."""
    code = subprocess.run([*SUBMIT, *command], check=False).returncode  # noqa: S603  # a list, and our own
    if code:
        why = FINAL.get(code, "the next try goes on where this one stopped")
        raise dg.Failure(f"exit code {code}: {why}", metadata={"exit_code": code}, allow_retries=code not in FINAL)


@dg.op(retry_policy=TRIES, out=dg.Out(dg.Nothing))
def audit() -> None:
    """Score what has come in, and hold it against the gates."""
    run(AUDIT)


@dg.op(retry_policy=TRIES, ins={"audited": dg.In(dg.Nothing)})
def keep() -> None:
    """Drop what does not belong."""
    run(FILTER)


@dg.job(tags={"dagster/max_runtime": 82800})
def regrad_nightly():
    """Audit, then filter."""
    keep(audit())


@dg.schedule(job=regrad_nightly, cron_schedule="15 2 * * *", execution_timezone="UTC")
def nightly(context: dg.ScheduleEvaluationContext):
    """One night at a time: where one is still at work, the next is left out."""
    going = dg.RunsFilter(job_name=regrad_nightly.name, statuses=[dg.DagsterRunStatus.STARTED])
    if context.instance.get_runs_count(going):
        return dg.SkipReason("the night before is still at work")
    return dg.RunRequest()


defs = dg.Definitions(jobs=[regrad_nightly], schedules=[nightly])
