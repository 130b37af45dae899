"""An evaluation in words and numbers: the printed summary and scores.json."""

from collections.abc import Mapping

import numpy

from minicap.data.tokenisers import TOKENISERS, course
from minicap.data.vocabulary import SPECIAL
from minicap.evaluation.evaluation import FACTS, TRUE, Evaluation
from minicap.generation.config import GenerationConfig


def summary(evaluation: Evaluation) -> list[str]:
    """Return the lines that `minicap evaluate` prints."""
    s = evaluation.settings
    return [
        f"evaluated {s['evaluated']}, {s['split']}: {s['images']:,} images with "
        f"{s['references']:,} references in {s['captions']}",
        *([f"generated {describe(s['generation'])}"] if s["generation"] else []),
        f"scores    times 100; tokenizer {s['tokenizer']}; CIDEr: {s['CIDEr']}",
        *(f"          {line}" for line in table(evaluation)),
        *(f"{name:17} {value}" for name, value in statistics(evaluation)),
        *(f"note      {note}" for note in evaluation.notes),
        *(f"warning   {warning}" for warning in evaluation.warnings),
    ]


def table(evaluation: Evaluation) -> list[str]:
    """Return the scores of all systems, times 100, as a text table."""
    columns = [*evaluation.metrics, "distinct", "words"]
    width = max(map(len, evaluation.systems))
    lines = [" " * width + "".join(f"{name:>9}" for name in columns)]
    for name, system in evaluation.systems.items():
        cells = [f"{100 * system.scores[metric]:9.1f}" for metric in evaluation.metrics]
        cells += [f"{system.distinct:9,}", f"{system.length:9.1f}"]
        lines.append(name.ljust(width) + "".join(cells))
    return lines


def statistics(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return names and values that describe the evaluated captions as a whole."""
    evaluated = evaluation.evaluated
    number = len(evaluated.captions)
    tokenise = TOKENISERS.get(evaluation.settings["tokenizer"], course)
    lengths = [len(tokenise(text)) for texts in evaluation.images.captions for text in texts]
    (caption, count), *_ = evaluation.most_frequent(1)
    found = [
        ("distinct captions", f"{evaluated.distinct:,} of {number:,}"),
        (
            "most frequent",
            f'"{caption}", {count:,} times ({count / number:.1%})' if count > 1 else "none twice",
        ),
        ("mean length", f"{evaluated.length:.1f} words (references {numpy.mean(lengths):.1f})"),
    ]
    if evaluation.vocabulary and evaluation.unused is not None:
        words = len(evaluation.vocabulary) - len(SPECIAL)
        unused = f"{evaluation.unused:,} of {words:,} ({evaluation.unused / words:.1%})"
        found.append(("words never used", unused))
    if TRUE in evaluated.scores:
        true, facts = evaluated.scores[TRUE], numpy.mean(evaluated.each[FACTS])
        found.append(("true captions", f"{true:.1%}, with {facts:.1f} facts each"))
    return found


def describe(generation: Mapping) -> str:
    """Describe a generation config in words.

    Args:
        generation: a GenerationConfig as a dictionary.

    Returns:
        The beam size and length penalty, unless captions were sampled, and every other setting
        that is not the default.
    """
    default, beam = vars(GenerationConfig()), ("beam_size", "length_penalty")
    sampled = generation["temperature"] > 0
    names = [
        name
        for name, value in generation.items()
        if (not sampled if name in beam else value != default[name])
    ]
    return ", ".join(f"{name.replace('_', ' ')} {generation[name]}" for name in names)


def to_json(evaluation: Evaluation) -> dict:
    """Return the content of scores.json. Scores are from 0 to 1; CIDEr is from 0 to 10."""
    return {
        **evaluation.settings,
        "scores": {
            name: {
                **system.scores,
                "distinct captions": system.distinct,
                "words in a caption": system.length,
            }
            for name, system in evaluation.systems.items()
        },
        "vocabulary": evaluation.vocabulary and len(evaluation.vocabulary) - len(SPECIAL),
        "words never used": evaluation.unused,
        "most frequent": [
            {"caption": caption, "images": count} for caption, count in evaluation.most_frequent(5)
        ],
        "warnings": evaluation.warnings,
        "notes": evaluation.notes,
    }
