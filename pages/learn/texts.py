"""Texts of the lesson: a title, a short text, and one question with explained answers for each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pages.learn import answers


@dataclass(frozen=True)
class Option:
    """One answer. `why` computes its explanation, which may quote numbers."""

    text: str
    right: bool
    why: Callable[[], str]


@dataclass(frozen=True)
class Question:
    text: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Step:
    """One step of the lesson; `words` are keys of the glossary."""

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
        "Each arrow is one neuron. Its two **weights** say how strongly it responds to input 1 (sideways) and to "
        "input 2 (upwards). The dots are the text: the values at the two inputs, token by token.\n\n"
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
                Option("No: it also depends on how busy each input is", True, answers.by_hand),
                _wrong(
                    "It makes no difference, half of the weights are gone either way",
                    "The number of zeros is the same, but their cost is not: change any neuron and the output "
                    "lost changes.",
                ),
            ),
        ),
    ),
    Step(
        "A calibration set",
        "To know which inputs are busy, a method has to read some text. The text that it reads is its "
        "**calibration set**. Bold dots are read, faint ones are the rest of the same text.\n\n"
        "Take fewer tokens, draw other ones, and see how often the mask is the same as for the whole text.",
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
                    "Nothing: the method only measures the inputs of each layer",
                    "It adds up a few sums for every layer, decides the mask, and only then sets weights to zero.",
                ),
                _wrong(
                    "The ones that are not used are deleted at once",
                    "The decision comes after the whole set has been read: importance is a sum over all its tokens.",
                ),
            ),
        ),
    ),
    Step(
        "Three ways to score a weight",
        "One neuron, two weights, six tokens. Each criterion scores both weights, and the lower one is removed:\n\n"
        "- **Magnitude**: the size of the weight.\n"
        "- **Wanda**: that size times how strongly its input is used.\n"
        "- **COPAL**: that size times how strongly *input and output* are active together, token by token.\n\n"
        "Tokens on the dashed line make the two weights cancel: the output is zero. "
        "**Move token 6**, near that line, and watch the table.",
        ("criterion", "weight", "token", "sensitivity"),
        Question(
            "A token with large inputs lies on the dashed line. Which criterion ignores it?",
            (
                _wrong(
                    "Wanda",
                    "Wanda adds up the squares of the inputs, regardless of the neuron's output. A token on the line "
                    "counts in full.",
                ),
                _right(
                    "COPAL",
                    "COPAL multiplies each input by the output of the same token. On the line the output is zero, so "
                    "that token adds nothing. (Magnitude ignores all tokens.)",
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
        "Why pruning a pruned model changes nothing",
        "The layer was pruned on text A. Now text B arrives, and the *pruned* layer is scored again. "
        "Outlines: the scores on text B if the weights were still dense. Solid: the actual scores of the pruned "
        "weights.\n\n**Make text B as different and as loud as you like.** Can you bring a weight back?",
        ("strategy", "stasis", "criterion", "mask"),
        Question(
            "Text B uses input 2 a hundred times more strongly than text A did. What does the mask do?",
            (
                _wrong(
                    "It moves to input 2 after a while",
                    "It never can. A pruned weight is zero, zero times anything is zero, and zero is the lowest "
                    "possible score: the same weights are pruned again.",
                ),
                _wrong(
                    "It moves, but only in the neurons that need input 2",
                    "Not even there: look at the zeros. A weight that was set to zero scores zero in every neuron.",
                ),
                _right(
                    "Nothing: the mask stays as text A left it",
                    "A zero scores zero on every text, so it is pruned again. This is **weight stasis**: the model "
                    "stays pruned for the first text forever.",
                ),
            ),
        ),
    ),
    Step(
        "Why starting over forgets",
        "The obvious way out: go back to the dense weights and prune them for text B alone. Now the mask moves. "
        "**Turn text B and step between the two texts**, and watch what text A loses.",
        ("strategy", "forgetting", "output lost"),
        Question(
            "When does starting over for text B forget little of text A?",
            (
                _right(
                    "When both texts use the inputs in the same way",
                    "Then both need the same mask. Turn text B to 12°, the direction of text A: nothing moves, "
                    "and nothing is forgotten.",
                ),
                _wrong(
                    "When text B is short",
                    "Its length does not matter here: text A has no vote at all, however short text B is.",
                ),
                _wrong(
                    "Never",
                    "Turn text B to 12°, the direction of text A. Both then need the same mask, and nothing is "
                    "lost by using only one of them.",
                ),
            ),
        ),
    ),
    Step(
        "Remember sums, not text",
        "COPAL keeps the dense weights *and* a memory: for every weight the sum of its sensitivities so far. A new "
        "text adds to the sum, and the mask follows the total. No past text is stored.\n\n"
        "**Turn text B and change its length**: each strategy ends with a different compromise.",
        ("memory", "strategy", "sensitivity", "output lost"),
        Question(
            "What does *accumulate* have to keep from the past texts?",
            (
                _wrong(
                    "The calibration tokens of every text",
                    "That is *joint*. In this one layer both end with the same mask, and yet accumulate never reads "
                    "text A again: a sum over both texts is the sum of both sums.",
                ),
                Option("One running sum for each weight", True, answers.memory),
                _wrong(
                    "One mask for each text",
                    "Old masks record only decisions, not by what margin. Sums can be weighed against each other.",
                ),
            ),
        ),
    ),
    Step(
        "What a rank costs",
        "There is another way to make a layer smaller: write it as a product of two thin ones. Here that is **rank "
        "1**: all neurons have to lie on *one common line*, each with its own length. A mask instead lets each "
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
                Option("One whose neurons all point much the same way", True, answers.rank),
                _wrong(
                    "One with large weights",
                    "Size cancels out: the output lost is a share. The similarity of the directions counts.",
                ),
            ),
        ),
    ),
    Step(
        "Read a real run",
        "Now a real model, with one domain of text after another. Each line is one method; the band marks "
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
                Option("Not for that reason alone", True, answers.real_run),
                _wrong(
                    "No: 0 means that it was not measured",
                    "It was measured. On these pages a missing measurement is left blank, never shown as 0.",
                ),
            ),
        ),
    ),
)
