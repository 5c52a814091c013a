"""Explanations of the methods and of the field's terms for newcomers."""

from __future__ import annotations

from typing import Any

from copal_core.methods.criteria import CRITERIA
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS
from copal_core.methods.strategies import STRATEGIES
from copal_core.system.registry import Registry

GLOSSARY = {
    "perplexity": "How surprised the model is by unseen text: exp of the mean loss per token. Lower is better.",
    "calibration": "Windows of a domain's text that the method reads to decide which weights matter.",
    "evaluation": "Other windows of the domain, on which perplexity is measured. No document is in both; in a domain "
    "with a single document, they are other parts of it.",
    "window": "A piece of text of a fixed number of tokens.",
    "criterion": "How a weight's importance is computed from the weight and the calibration text.",
    "strategy": "Decides what the method remembers from one domain to the next.",
    "sparsity": "The share of weights that are removed (set to zero) in the decoder's linear layers.",
    "structure": "The pattern of removed weights. Unstructured: any. N:M: exactly N of each M neighbouring inputs are "
    "kept.",
    "group": "Weights are ranked within each row (one output neuron) or within the whole layer.",
    "propagation": "A block is calibrated on the outputs of the pruned blocks before it, or of the dense ones.",
    "seed": "Decides which windows are drawn. The same seed gives the same run.",
    "bwt": "Backward transfer: how much the perplexity of earlier domains rose, on average, from the step in which "
    "each was added to the last. Lower is better: at 0 nothing was forgotten, below 0 they improved.",
    "fwt": "Forward transfer: how much the steps before a domain was added had changed its perplexity from the dense "
    "model's, on average over the domains from the second on. Lower is better.",
    "forgetting": "A domain's final perplexity minus its best one since the domain was added. Lower is better.",
    "stasis": "Of the weights pruned now, the share that was pruned one step before. 100 %: the mask no longer moves.",
    "jaccard": "Weights pruned by both masks over weights pruned by either. 1: the same mask; 0: nothing in common.",
    "bytes": "Stored bytes, relative to the dense layer at 16 bits per weight. A mask stores the kept values and "
    "one bit for every weight, an N:M mask the kept values and the position of each in its group; two factors of rank "
    "r store r numbers for every output and every input.",
    "fit": "The text whose statistics the methods are given. Errors are measured on every domain, seen or not.",
    "output error": "Squared error of the layer's output relative to the output itself, on the domain's calibration "
    "windows: 0 % is the same output, 100 % is as bad as no layer at all. Each layer is measured separately.",
    "singular": "A weight matrix is a sum of directions, each with a size: its singular value. Low rank keeps the "
    "largest. The faster they decay, the less it loses.",
    "inside": "Low rank keeps r output directions and drops the rest. This is the share of a masked weight's squared "
    "norm that lies within those directions.",
    "angles": "Angles between the directions that low rank keeps and the masked weight's own leading ones. 0°: shared; "
    "90°: not contained in the other.",
    "rank": "How many directions two factors keep. Full rank is the dense weight.",
    "hidden neuron": "One hidden unit of a feed-forward layer: a row of gate and of up, a column of down. Removing it "
    "makes the layer narrower, so that the model is smaller and faster, not only sparser.",
    "information": "Mutual information in nats: how much one neuron's activation tells about another's. 0: nothing. "
    "Estimated from ranks as a Gaussian copula, which detects monotone dependence; the estimate from nearest "
    "neighbours beside it detects any.",
    "spread": "The worst criterion's average perplexity over the best one's, minus one, at the same number of "
    "neurons. 0 %: the choice does not matter. Random neurons are a baseline, not a criterion, and are left out.",
    "gqa": "Grouped-query attention: several query heads share one key and value head.",
    "weight": "One number of a layer: how strongly one output responds to one input.",
    "neuron": "One output of a layer: a row of weights, one for each input.",
    "token": "A piece of text, about a short word, as the model reads it. Here: one dot, its values at the inputs.",
    "mask": "The pattern of weights that are kept and weights that are set to zero.",
    "output lost": "Squared error of the layer's output relative to the output itself: 0 % is the same output.",
    "sensitivity": "How strongly the layer's output reacts to a small change of the weight, summed over tokens.",
    "memory": "Sums of statistics over all texts so far. Sums of two texts can be added, so no text has to be stored.",
    "dtype": "The number format of the weights while computing.",
}

_CRITERIA = {
    "magnitude": (
        "Magnitude",
        "Keeps the largest weights; uses no text. The baseline that everything should beat.",
    ),
    "wanda": (
        "Wanda",
        "Weight size times how strongly its input is used on the calibration text (arXiv 2306.11695).",
    ),
    "sparsegpt": (
        "SparseGPT",
        "Removes the weights that change the layer's output least, and updates the others to compensate "
        "(arXiv 2301.00774).",
    ),
    "copal": (
        "COPAL",
        "How sensitively the layer's output reacts to the weight, token by token (arXiv 2405.02347).",
    ),
}
_DECOMPOSITIONS = {
    "whitened-svd": (
        "Whitened SVD",
        "Factorises every layer so that its output on the calibration text changes least (SVD-LLM, arXiv 2403.07378).",
    ),
    "svd": (
        "SVD",
        "Keeps the largest directions of each weight; uses no text. The baseline of low rank.",
    ),
    "hybrid": (
        "Hybrid",
        "For every layer a mask or the whitened SVD, whichever loses less at the same bytes.",
    ),
    "plrd": (
        "PLRD",
        "Factorises in steps of falling rank and trains after each (arXiv 2406.19995).",
    ),
    "basel": (
        "Basel",
        "Relearns the size of every direction, drops the small ones, adds a few (arXiv 2405.15877).",
    ),
}
_NEURONS = {
    "mutual-information": (
        "Mutual information",
        "Removes one of two redundant neurons; the other compensates where it can (arXiv 2406.00030).",
    ),
    "copal-neurons": (
        "COPAL, whole neurons",
        "Removes the neurons whose weights the output is least sensitive to.",
    ),
    "magnitude-neurons": (
        "Magnitude, whole neurons",
        "Removes the neurons with the smallest weights; no text.",
    ),
    "random-neurons": (
        "Random neurons",
        "Removes neurons at random: the baseline that any criterion must beat.",
    ),
}
_STRATEGIES = {
    "accumulate": "Adds the new domain's statistics to a memory of earlier ones; stores no past text. COPAL's idea.",
    "restart": "Prunes the dense model for the newest domain alone. Shows forgetting.",
    "sequential": "Prunes the already pruned model again for the newest domain. Shows masks that cannot move.",
    "joint": "Uses the text of all domains so far together. The reference, which needs the past data.",
}


def criteria() -> dict[str, tuple[str, str]]:
    """Return name -> (label, explanation) of every registered criterion, without importing torch."""
    return _explained(CRITERIA, dict(reversed(_CRITERIA.items())))


def decompositions() -> dict[str, tuple[str, str]]:
    """Return name -> (label, explanation) of every registered decomposition, without importing torch."""
    return _explained(LOWRANK, _DECOMPOSITIONS)


def neuron_selectors() -> dict[str, tuple[str, str]]:
    """Return name -> (label, explanation) of every registered neuron selector, without importing torch."""
    return _explained(NEURONS, _NEURONS)


def strategies() -> dict[str, str]:
    """Return name -> explanation of every registered strategy, without importing torch."""
    ours = {name: (name, words) for name, words in _STRATEGIES.items()}
    return {name: words for name, (_, words) in _explained(STRATEGIES, ours).items()}


def _explained(registry: Registry[Any], ours: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return name -> (label, explanation): ours in our order, others after them by the first line of their class."""
    known = registry.names()
    others = (name for name in known if name not in ours)
    return {name: words for name, words in ours.items() if name in known} | {
        name: (name, (registry.facts(name, object).__doc__ or name).splitlines()[0]) for name in others
    }
