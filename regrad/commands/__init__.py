"""One module a command of ``regrad``, each with its ``main(argv)`` and its ``parser()``.

Nothing heavy is imported until the arguments are known to be good: no torch, Ray or scikit-learn on the way to a usage
error, to ``--help`` or to the status of a run.
"""

import importlib
from types import ModuleType

#: Every command, in the order in which they are used, and what it is for.
COMMANDS = {
    "score": "score every image of a dataset by how little the model understands it",
    "report": "a page: which images the model does not know, how many, and whether the score can be trusted",
    "calibrate": "a temperature, and what prediction sets need, from a labelled run",
    "audit": "every night: score what came in, hold it against a baseline and against gates, tell",
    "filter": "drop what does not belong: lists of ids, and shards of what is kept",
    "duplicates": "find images that are there more than once, within a run and across several",
    "select": "choose the images that are worth an annotator's time",
    "status": "how far a run is",
    "check": "count an output again, against its inputs; --repair drops what is damaged",
    "compact": "merge the many small files of an output into few large ones",
    "submit": "run any of these on a Ray cluster, with the job's own exit code",
    "train": "train a small classifier on labelled shards",
    "demo": "the whole road in two minutes, on data that comes with scikit-learn",
    "reproduce": "measure the paper's tables again (from a clone of the repository)",
    "benchmark": "measure the engines' speed, memory and error (from a clone of the repository)",
}

#: The folders of those that are not beside this file; the first is what only a clone of the repository has.
FOLDERS = {"clone": ("reproduce", "benchmark"), "lists": ("duplicates",)}


def module_of(command: str) -> ModuleType:
    """The module of one of :data:`COMMANDS`, imported."""
    folder = next((f"{name}." for name, commands in FOLDERS.items() if command in commands), "")
    return importlib.import_module(f"regrad.commands.{folder}{command}")
