"""Ray Data: read_parquet, download, map_batches(ScoreImages), write_parquet, with its checkpoint.

python ray_checkpoint.py ROWS OUTPUT SETTINGS.json
"""

import json
import os
import sys
from pathlib import Path

import ray
from ray.data.checkpoint import CheckpointConfig
from ray.data.expressions import download

from regrad.pipeline import ScoreImages

if __name__ == "__main__":
    rows, output, settings = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    threads = {"env_vars": {"OMP_NUM_THREADS": str(os.cpu_count())}}  # else the scorer has one
    ray.init(address="local", num_cpus=4, runtime_env=threads)  # with 2, actors that wait for each other hold both
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=f"{output}-done", delete_checkpoint_on_success=False
    )
    scored = (
        ray.data.read_parquet(rows)
        .repartition(target_num_rows_per_block=settings["batch"])  # what is done is kept by block
        .with_column("image", download("uri"))
        .map_batches(
            ScoreImages,
            fn_constructor_kwargs={
                "model": settings["model"],
                "weights": settings["weights"],
                "scores": settings["scores"],
                "samples": settings["samples"],
                "score_modules": [settings["score_module"]],
                "id_column": "id",
            },
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=settings["batch"],
        )
    )
    scored.drop_columns(["image"]).write_parquet(output)
