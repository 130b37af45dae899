"""Run one evaluation: read the data, generate captions, score them, write the files."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from minicap.backend import device_module
from minicap.data.evaluation_set import read_evaluation_set, sources, training_set
from minicap.data.results import coco_numbers, image_ids, read_results, results_text
from minicap.data.tokenisers import TOKENISERS, course
from minicap.evaluation.baselines import baselines
from minicap.evaluation.evaluation import Evaluation, Prediction, score
from minicap.evaluation.gallery import Gallery, choose, gallery, read_scenes
from minicap.evaluation.html_report import html_report, read_history
from minicap.evaluation.metrics import Scorer, Tokenizer
from minicap.evaluation.options import EvaluationOptions
from minicap.evaluation.predictions import attention_weights, check_features, predict
from minicap.evaluation.summary import to_json
from minicap.generation.generate import check_vocabularies
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError
from minicap.utils.files import listed, write_text
from minicap.utils.ranks import world

SCORES, CAPTIONS, REPORT = "scores.json", "captions.json", "report.html"


def evaluate(options: EvaluationOptions) -> tuple[Evaluation, list[Path]]:
    """Evaluate, and write scores.json, captions.json and report.html.

    Args:
        options: valid ones, see `EvaluationOptions.check`.

    Returns:
        The evaluation and the paths written.

    Raises:
        UserError: files are missing, broken or do not fit together.
    """
    models: list[Model] = []
    training_options: dict = {}
    if options.model:
        xp = device_module(options.device)
        models = [Model.load(path, xp) for path in (options.model, *options.ensemble)]
        check_vocabularies(models)
        training_options = checkpoint.load(options.model, "model")[1].get("options", {})
    files, trained_on = sources(options.data, training_options.get("data"))
    assert files.captions
    data: list = []
    for group in (files, *trained_on):
        data += [*group.captions, *group.features, *vars(group).values()]
    inputs = [options.source, *options.ensemble, *data]
    check_output(options.folder, [path for path in inputs if isinstance(path, Path)])

    split = options.which_split()
    images = read_evaluation_set(files, split)
    scenes = read_scenes(files.captions, images.names)
    shown = gallery(images.names, scenes, options.photos, training_options.get("photos"))
    train, notes = training_set(trained_on, images, random=bool(models) or split != "all")
    tokenizer: Tokenizer = options.tokenizer or (
        models[0].vocabulary.tokenizer if models else "course"
    )
    scorer = Scorer(images.references, tokenizer, options.meteor)
    ids = image_ids(images.names, coco_numbers(files.captions))
    if models:
        notes += check_features(models, images)
        predictions = predict(models, images, options.generation, options.seed)
    else:
        texts = read_results(options.source, ids)
        predictions = [[Prediction(texts[name])] for name in images.names]
    captions = [candidates[0].text for candidates in predictions]
    systems = {"model" if models else "results": captions}
    tokenise = TOKENISERS.get(tokenizer, course)
    systems |= baselines(captions, images, train, options.neighbours, options.seed, tokenise)
    evaluation = Evaluation(
        images,
        score(scorer, images, systems, scenes),
        predictions,
        models[0].vocabulary if models else None,
        {
            "evaluated": " + ".join(map(str, (options.source, *options.ensemble))),
            "generation": dataclasses.asdict(options.generation) if models else None,
            "captions": listed(files.captions),
            "split": split,
            "images": len(images.names),
            "references": sum(map(len, images.captions)),
            "tokenizer": tokenizer,
            "CIDEr": scorer.frequencies,
            "seed": options.seed,
        },
        images.notes + notes,
    )
    contents = {
        SCORES: json.dumps(to_json(evaluation), indent=1, ensure_ascii=False) + "\n",
        CAPTIONS: results_text(dict(zip(images.names, captions, strict=True)), ids),
        REPORT: report(evaluation, models, shown, options),
    }
    paths = {options.folder / name: text for name, text in contents.items()}

    def write() -> None:
        for path, text in paths.items():
            write_text(path, text)

    world().first(write)
    return evaluation, list(paths)


def check_output(folder: Path, inputs: list[Path]) -> None:
    """Raise UserError if an output file would replace an input file."""
    resolved = {path.resolve() for path in inputs}
    for name in SCORES, CAPTIONS, REPORT:
        if (folder / name).resolve() in resolved:
            raise UserError(
                f"--out {folder}: {name} would replace an input file; choose another folder"
            )


def report(
    evaluation: Evaluation, models: Sequence[Model], shown: Gallery, options: EvaluationOptions
) -> str:
    """The HTML report, with some of the images that can be shown."""
    images = evaluation.images
    rows = [row for row, name in enumerate(images.names) if name in shown]
    chosen = choose(evaluation, rows or range(len(images.names)), options.shown)
    drawn = [row for group in chosen.values() for row in group if images.names[row] in shown]
    attention = attention_weights(models, images, evaluation.predictions, drawn)
    history = read_history(options.source.parent)
    return html_report(evaluation, chosen, shown, history, attention)
