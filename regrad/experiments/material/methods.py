"""The methods of the paper's tables in its order, each with the score that it is here, and what we add."""

from __future__ import annotations

#: As the paper's tables call it -> the column of the score table.
PAPER = {
    "NEGrad": "negrad",
    "UNGrad": "ungrad",
    "GradNorm": "gradnorm",
    "ExGrad": "exgrad",
    "Perturb x": "perturb_x",
    "Perturb θ": "perturb_theta",
    "MC-AA": "mc_aa",
    "Inserted Dropout": "inserted_dropout",
    "Entropy": "entropy",
    "ExGrad V Term": "exgrad_v",
    "LA": "laplace",
    "REGrad*": "regrad",
}
OURS = {
    "GradNorm, negated": "gradnorm_negated",
    "ExGrad + layer-selective": "exgrad_layers",
    "ExGrad + layer-selective + perturb": "exgrad_smoothed",
    "Max probability": "max_probability",
    "Margin": "margin",
    "Max logit": "max_logit",
    "Energy": "energy",
}
#: The rows of Table 4.
ABLATION = {
    "ExGrad": "exgrad",
    "REGrad": "regrad_plain",
    "REGrad + layer-selective": "regrad_layers",
    "REGrad + layer-selective + perturb": "regrad",
}
#: What they are without a network's features (:mod:`regrad.experiments.measured.bare`).
BARE = {"REGrad, last bias alone": "regrad_bias", "ExGrad, last bias alone": "exgrad_bias"}
EVERY_SCORE = tuple(dict.fromkeys((*PAPER.values(), *OURS.values(), *ABLATION.values())))
ALL = PAPER | OURS | BARE
#: What people use today, on the clean image and without training data.
IN_USE = {
    "REGrad": "regrad_layers",
    "REGrad, γ = 0.35": "regrad_35",
    "REGrad, γ = 0.25": "regrad_25",
    "Displacement": "displacement",
    "ExGrad + layer-selective": "exgrad_layers",
    "ExGrad, L1, last layer": "exgrad_l1_last",
    "Entropy": "entropy",
    "Max probability": "max_probability",
    "Max logit": "max_logit",
    "Energy": "energy",
    "GEN": "gen",
    "ASH-S": "ash",
    "SCALE": "scale",
    "Feature norm": "feature_norm",
    "fDBD": "fdbd",
}
#: The same with training data.
WITH_DATA = {
    "k-NN": "knn",
    "ViM": "vim",
    "Mahalanobis": "mahalanobis",
    "Relative Mahalanobis": "relative_mahalanobis",
    "ReAct": "react",
    "NCI": "nci",
}
#: Those that draw random numbers: another noise seed gives them other values.
DRAWN = ("regrad", "exgrad_smoothed", "perturb_x", "perturb_theta", "inserted_dropout", "laplace")
#: What REGrad* is set against in differences.
RIVALS = {
    "REGrad* − Entropy": "entropy",
    "REGrad* − ExGrad": "exgrad",
    "REGrad* − Energy": "energy",
    "REGrad* − REGrad, last bias alone": "regrad_bias",
}
