"""The nightly audit as a DAG of Airflow 3; what holds its gates is filtered.

A worker needs the command `regrad`, which submits to the cluster at RAY_ADDRESS. An exit code that another try would
not change fails the task at once.
"""

import subprocess
from datetime import datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

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


def run(command: list[str]) -> None:
    """Run it to its end; raises by its exit code."""
    code = subprocess.run([*SUBMIT, *command], check=False).returncode  # noqa: S603  # a list, and our own
    if code in FINAL:
        raise AirflowFailException(f"exit code {code}: {FINAL[code]}")
    if code:
        raise RuntimeError(f"exit code {code}: the next try goes on where this one stopped")


@dag(
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # nights never overlap
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=23)},
)
def regrad_nightly():
    """Audit, then filter."""

    @task
    def audit() -> None:
        run(AUDIT)

    @task
    def keep() -> None:
        run(FILTER)

    audit() >> keep()


regrad_nightly()
