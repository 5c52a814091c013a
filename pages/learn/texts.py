"""The lesson's words: a title, a short text, and one question with its explanations for each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pages.learn import answers as found


@dataclass(frozen=True)
class Option:
    """One answer. why: what to say when it is chosen; computed, as it may quote numbers."""

    text: str
    right: bool
    why: Callable[[], str]


@dataclass(frozen=True)
class Question:
    text: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Step:
    """title; text; the words of the glossary that it uses; question."""

    title: str
    text: str
    words: tuple[str, ...]
    question: Question


def _wrong(text: str, why: str) -> Option:
    return Option(text, False, lambda: why)


def _right(text: str, why: str) -> Option:
    return Option(text, True, lambda: why)


STEPS = (
    Step(
        "Prune a layer by hand",
        "A language model is a stack of layers, and this is a very small one: two inputs, four neurons. "
        "Each arrow is one neuron. Its two **weights** say how strongly it listens to input 1 (sideways) and to "
        "input 2 (upwards). The dots are the text: what arrives at the two inputs, token by token.\n\n"
        "Pruning sets weights to zero. **Keep one weight in each neuron**, and its arrow falls onto an axis. "
        "Try to lose as little output as you can.",
        ("weight", "neuron", "token", "mask", "output lost"),
        Question(
            "The first choice kept the larger weight of every neuron. Is that the best mask for this text?",
            (
                _wrong(
                    "Yes: the larger weight always matters more",
                    "A large weight on an input that is almost silent changes little. Switch neurons 3 and 4 to "
                    "input 1 and watch the output lost go down.",
                ),
                Option("No: it also depends on how busy each input is", True, found.by_hand),
                _wrong(
                    "It makes no difference, half of the weights are gone either way",
                    "The number of zeros is the same, but what they cost is not: move any neuron and the output "
                    "lost changes.",
                ),
            ),
        ),
    ),
    Step(
        "A calibration set",
        "To know which inputs are busy, a method has to look at some text. The text that it looks at is its "
        "**calibration set**. Bold dots are looked at, faint ones are the rest of the same text.\n\n"
        "Take fewer tokens, draw others, and see how often the mask comes out as it would from the whole text.",
        ("calibration", "evaluation", "token", "mask"),
        Question(
            "What happens to the weights while the calibration set is read?",
            (
                _wrong(
                    "They are trained a little on it",
                    "Nothing is trained. There is no gradient step and no new value: that is why calibration takes "
                    "seconds where training takes days.",
                ),
                _right(
                    "Nothing: the method only measures what arrives at each layer",
                    "It adds up a few sums for every layer, decides the mask, and only then sets weights to zero.",
                ),
                _wrong(
                    "The ones that are not used are deleted at once",
                    "The decision comes after the whole set was read: importance is a sum over all its tokens.",
                ),
            ),
        ),
    ),
    Step(
        "Three ways to score a weight",
        "One neuron, two weights, six tokens. Each criterion gives both weights a score, and the lower one goes:\n\n"
        "- **Magnitude**: the size of the weight.\n"
        "- **Wanda**: that size times how strongly its input is used.\n"
        "- **COPAL**: that size times how strongly *input and output* are active together, token by token.\n\n"
        "Tokens on the dashed line make the two weights cancel: the output is zero. "
        "**Move token 6**, near that line, and watch the table.",
        ("criterion", "weight", "token", "sensitivity"),
        Question(
            "A token with large inputs lies on the dashed line. Which criterion takes no notice of it?",
            (
                _wrong(
                    "Wanda",
                    "Wanda adds up the squares of the inputs, whatever the neuron makes of them. A token on the line "
                    "counts in full.",
                ),
                _right(
                    "COPAL",
                    "COPAL multiplies each input by the output of the same token. On the line the output is zero, so "
                    "that token adds nothing. (Magnitude takes no notice of any token at all.)",
                ),
                _wrong(
                    "Neither: both see every token",
                    "Put token 6 onto the line (x = −2.7, y = 3.0, say) and compare: Wanda's scores still grow with "
                    "it, COPAL's no longer do.",
                ),
            ),
        ),
    ),
    Step(
        "Why pruning a pruned model stands still",
        "The layer was pruned on text A. Now text B arrives, and the *pruned* layer is scored again. "
        "Outlines: the scores on text B if the weights were still dense. Solid: the scores that the pruned weights "
        "really get.\n\n**Make text B as different and as loud as you like.** Can you bring a weight back?",
        ("strategy", "stasis", "criterion", "mask"),
        Question(
            "Text B uses input 2 a hundred times more strongly than text A did. What does the mask do?",
            (
                _wrong(
                    "It moves to input 2 after a while",
                    "It never can. A pruned weight is zero, zero times anything is zero, and a score of zero is the "
                    "lowest there is: the same weights are pruned again.",
                ),
                _wrong(
                    "It moves, but only in the neurons that need input 2",
                    "Not even there: look at the zeros. What was set to zero scores zero in every neuron.",
                ),
                _right(
                    "Nothing: the mask stays as text A left it",
                    "A zero scores zero on every text, so it is pruned again. This is **weight stasis**: the model "
                    "is pruned for the first text for ever.",
                ),
            ),
        ),
    ),
    Step(
        "Why starting afresh forgets",
        "The obvious way out: go back to the dense weights and prune them for text B alone. Now the mask moves. "
        "**Turn text B and step between the two texts**, and watch what text A loses.",
        ("strategy", "forgetting", "output lost"),
        Question(
            "When does starting afresh for text B forget little of text A?",
            (
                _right(
                    "When both texts use the inputs alike",
                    "Then both ask for the same mask. Turn text B to 12°, the direction of text A: nothing moves, "
                    "and nothing is forgotten.",
                ),
                _wrong(
                    "When text B is short",
                    "Its length does not matter here: text A has no vote at all, however short text B is.",
                ),
                _wrong(
                    "Never",
                    "Turn text B to 12°, the direction of text A. Both then ask for the same mask, and nothing is "
                    "lost by asking only one.",
                ),
            ),
        ),
    ),
    Step(
        "Remember sums, not text",
        "COPAL keeps the dense weights *and* a memory: for every weight the sum of its sensitivities so far. A new "
        "text adds to the sum, and the mask follows the total. No past text is kept.\n\n"
        "**Turn text B and change its length**: each strategy ends with another compromise.",
        ("memory", "strategy", "sensitivity", "output lost"),
        Question(
            "What does *accumulate* have to keep from the past texts?",
            (
                _wrong(
                    "The calibration tokens of every text",
                    "That is *joint*. In this one layer both end with the same mask, and yet accumulate never looks "
                    "at text A again: a sum over both texts is the sum of both sums.",
                ),
                Option("One running sum for each weight", True, found.memory),
                _wrong(
                    "One mask for each text",
                    "Old masks only say what was decided, not by how much. Sums can be weighed against each other.",
                ),
            ),
        ),
    ),
    Step(
        "What a rank costs",
        "There is another way to be smaller: write the layer as a product of two thin ones. Here that is **rank 1**: "
        "all neurons have to lie on *one common line*, each with a length of its own. A mask instead lets each "
        "neuron choose its axis.\n\n"
        "**Turn the line, then spread the neurons**, and see which of the two loses less.",
        ("rank", "bytes", "output lost"),
        Question(
            "For which layer is rank 1 nearly free?",
            (
                _wrong(
                    "One whose neurons lie close to the axes",
                    "That is where the *mask* is nearly free: an arrow close to an axis moves little when it falls "
                    "onto it.",
                ),
                Option("One whose neurons all point much the same way", True, found.rank),
                _wrong(
                    "One with large weights",
                    "Size cancels out: the output lost is a share. What counts is how alike the directions are.",
                ),
            ),
        ),
    ),
    Step(
        "Read a real run",
        "No toy any more: a real model, one domain of text after another. Each line is one method; the band marks "
        "the step at which the domain itself was added.\n\n"
        "**Choose a domain.** Look for a flat line (stasis), for a line that rises after its band (forgetting), and "
        "for one that does neither.",
        ("perplexity", "bwt", "stasis", "forgetting"),
        Question(
            "A method's backward transfer is exactly 0: it forgot nothing. Is it the best one?",
            (
                _wrong(
                    "Yes: forgetting is what we wanted to avoid",
                    "A mask that never moves forgets nothing, and learns nothing either. Look at the flat lines on "
                    "the *last* domain.",
                ),
                Option("Not for that reason alone", True, found.real_run),
                _wrong(
                    "No: 0 means that it was not measured",
                    "It was measured. What was not measured is missing on these pages, never 0.",
                ),
            ),
        ),
    ),
)
