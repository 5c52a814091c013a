"""The product's explanations: methods, and the field's words that a newcomer meets."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import copal_core

GLOSSARY = {
    "perplexity": "How surprised the model is by unseen text: exp of the mean loss per token. Lower is better.",
    "calibration": "Windows of a domain's text that the method looks at to decide which weights matter.",
    "evaluation": "Other windows of the domain, on which perplexity is measured. No document is in both; of a domain "
    "that is one document, they are other parts of it.",
    "window": "A piece of text of a fixed number of tokens.",
    "criterion": "How a weight's importance is computed from the weight and the calibration text.",
    "strategy": "What the method remembers from one domain to the next.",
    "sparsity": "The share of weights that are removed (set to zero) in the decoder's linear layers.",
    "structure": "Which weights may go. Unstructured: any. N:M: exactly N of each M neighbouring inputs are kept.",
    "group": "Weights are ranked within each row (one output neuron) or within the whole layer.",
    "propagation": "A block is calibrated on the outputs of the pruned blocks before it, or of the dense ones.",
    "seed": "Decides which windows are drawn. The same seed gives the same run.",
    "bwt": "Backward transfer: how much the perplexity of earlier domains rose, on average, from the step in which "
    "each was added to the last. Lower is better: 0 is nothing forgotten, below 0 they improved.",
    "fwt": "Forward transfer: how much the steps before a domain was added had moved its perplexity from the dense "
    "model's, on average over the domains from the second on. Lower is better.",
    "forgetting": "A domain's final perplexity minus its best one since the domain was added. Lower is better.",
    "stasis": "Of the weights pruned now, the share that was pruned one step before. 100 %: the mask no longer moves.",
    "jaccard": "Pruned weights in both masks over pruned weights in either. 1: the same mask; 0: nothing in common.",
    "bytes": "What is stored, over what the dense layer stores at 16 bits a weight. A mask stores the kept values and "
    "one bit for every weight, an N:M mask the kept values and the place of each in its group; two factors of rank r "
    "store r numbers for every output and every input.",
    "fit": "The text whose statistics the methods are given. Errors are measured on every domain, seen or not.",
    "output error": "Squared error of the layer's output over the output's own size, on the domain's calibration "
    "windows: 0 % is the same output, 100 % is as bad as no layer at all. Layers are taken one by one.",
    "singular": "A weight matrix is a sum of directions, each with a size: its singular value. Low rank keeps the "
    "largest. The faster they fall, the less it loses.",
    "inside": "Low rank keeps r output directions and drops the rest. This is the share of a masked weight's squared "
    "size that lies within those directions.",
    "angles": "Angles between the directions low rank keeps and the masked weight's own leading ones. 0°: shared; "
    "90°: the other does not have it.",
    "rank": "How many directions two factors keep. Full rank is the dense weight.",
    "hidden neuron": "One hidden unit of a feed-forward layer: a row of gate and of up, a column of down. Removing it "
    "makes the layer narrower, so that the model is smaller and faster, not only emptier.",
    "information": "Mutual information in nats: how much one neuron's activation tells of another's. 0: nothing. "
    "Estimated from ranks as a Gaussian copula, which sees rising and falling dependence; the estimate from nearest "
    "neighbours beside it sees any.",
    "spread": "The worst criterion's average perplexity over the best one's, less one, at the same number of neurons. "
    "0 %: the choice does not matter. Neurons drawn by lot are no criterion and are left out.",
    "gqa": "Grouped-query attention: several query heads share one key and value head.",
    "weight": "One number of a layer: how strongly one output listens to one input.",
    "neuron": "One output of a layer: a row of weights, one for each input.",
    "token": "A piece of text, about a short word, as the model reads it. Here: one dot, what arrives at the inputs.",
    "mask": "Which weights are kept and which are set to zero.",
    "output lost": "Squared error of the layer's output over the output's own size: 0 % is the same output.",
    "sensitivity": "How strongly the layer's output reacts to a small change of the weight, summed over tokens.",
    "memory": "Sums of statistics over all texts so far. Two texts' sums add up, so no text has to be kept.",
    "dtype": "The number format of the weights while computing.",
}

_CRITERIA = {
    "magnitude": (
        "Magnitude",
        "Keeps the largest weights; looks at no text at all. The baseline that everything should beat.",
    ),
    "wanda": (
        "Wanda",
        "Weight size times how strongly its input is used on the calibration text (arXiv 2306.11695).",
    ),
    "sparsegpt": (
        "SparseGPT",
        "Removes what costs the layer's output least and updates the kept weights to make up (arXiv 2301.00774).",
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
        "Keeps the largest directions of each weight; looks at no text. The baseline of low rank.",
    ),
    "hybrid": ("Hybrid", "For every layer whichever of mask and whitened SVD loses less at the same bytes."),
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
        "Removes one of two neurons that say the same; the other takes over what it can (arXiv 2406.00030).",
    ),
    "copal-neurons": (
        "COPAL, whole neurons",
        "Removes the neurons whose weights the output is least sensitive to.",
    ),
    "magnitude-neurons": (
        "Magnitude, whole neurons",
        "Removes the neurons with the smallest weights; no text.",
    ),
    "random-neurons": ("Random neurons", "Removes neurons drawn by lot: what any criterion must beat."),
}
_STRATEGIES = {
    "accumulate": "Adds the new domain's statistics to a memory of all earlier ones; keeps no past text. COPAL's idea.",
    "restart": "Prunes the dense model for the newest domain alone. Shows forgetting.",
    "sequential": "Prunes the already pruned model again for the newest domain. Shows masks that cannot move.",
    "joint": "Uses the text of all domains so far together. The reference, which needs the past data.",
}


def criteria() -> dict[str, tuple[str, str]]:
    """name -> (label, explanation) of every registered criterion, without importing torch."""
    known = {name: (name, words) for name, words in registered("methods/criteria", "CRITERIA").items()}
    return {name: _CRITERIA.get(name, known[name]) for name in _ordered(known, _CRITERIA, reverse=True)}


def decompositions() -> dict[str, tuple[str, str]]:
    """name -> (label, explanation) of every registered decomposition, without importing torch."""
    known = {name: (name, words) for name, words in registered("methods/lowrank", "LOWRANK").items()}
    return {name: _DECOMPOSITIONS.get(name, known[name]) for name in _ordered(known, _DECOMPOSITIONS)}


def neuron_selectors() -> dict[str, tuple[str, str]]:
    """name -> (label, explanation) of every registered neuron selector, without importing torch."""
    known = {name: (name, words) for name, words in registered("methods/neurons", "NEURONS").items()}
    return {name: _NEURONS.get(name, known[name]) for name in _ordered(known, _NEURONS)}


def strategies() -> dict[str, str]:
    """name -> explanation of every registered strategy, without importing torch."""
    known = registered("methods/strategies", "STRATEGIES")
    return {name: _STRATEGIES.get(name, known[name]) for name in _ordered(known, _STRATEGIES)}


@cache
def registered(package: str, registry: str) -> dict[str, str]:
    """Names that a package's files register, and the first line of each docstring, read from the source.

    Importing the files would import torch, which a page does not need.
    """
    found = {}
    for path in sorted((Path(copal_core.__file__).parent / package).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                for name in _registered_as(node, registry):
                    found[name] = (ast.get_docstring(node) or name).splitlines()[0]
    return found


def _registered_as(node: ast.ClassDef, registry: str) -> list[str]:
    return [
        str(call.args[0].value)
        for call in node.decorator_list
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "register"
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == registry
        and isinstance(call.args[0], ast.Constant)
    ]


def _ordered(known: dict[str, object], first: dict[str, object], reverse: bool = False) -> list[str]:
    """Names of `known`: ours in our order, others after them."""
    ours = [name for name in first if name in known]
    return [*(reversed(ours) if reverse else ours), *(name for name in known if name not in first)]
