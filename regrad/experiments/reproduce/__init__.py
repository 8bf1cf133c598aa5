"""The paper's tables, measured again: what is compared with what, on which images, and what came of it.

    paper         the numbers of the paper (paper.csv)
    methods       its methods, and which of our scores each is
    packs         where images come from: a data folder, or a download
    image_sets    which images stand for which set, as shards
    proxies       images that no network can know, made of those that it knows
    shifts        images changed, mixed in or left out, and nights drawn with them
    models        the networks, pre-trained or with the recipe that trains them
    scoring       images through the score job, into one output for each network and seed
    bare          two scores that show what of REGrad is a function of the softmax alone
    experiments   what is set against what
    separation, calibration, hyperparameters, temperature, labelling, in_use, probes, sketched, drift, runtime
                  the tables, one family a file
    tasks         the datasets of active learning, and how labels are asked for
    quick         every table in a small form
    results       one number with its interval, and the paper's beside it
    render        the tables as Markdown and as a page; figures draws the plots

``regrad reproduce`` runs them.
"""

#: The tables, as ``regrad reproduce`` calls them.
NAMES = (
    "ood",
    "calibration",
    "active-learning",
    "active-learning-more",
    "ablation",
    "hyperparameters",
    "temperature",
    "architecture",
    "scores",
    "scores-errors",
    "probes",
    "sketch",
    "drift",
    "runtime",
)
