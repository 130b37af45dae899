"""Judge captions: `python -m minicap.evaluate MODEL`, or `--results FILE`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy
import tyro

from minicap import checkpoint, commands
from minicap.backend import device_module
from minicap.data.dataset import DataFiles
from minicap.data.judged import read_pictures, sources, training_pictures
from minicap.data.results import coco_numbers, image_ids, read_results, results_text
from minicap.ensemble import check_vocabularies
from minicap.errors import UserError
from minicap.evaluation import (
    Evaluation,
    Written,
    check_features,
    choose,
    facts,
    manner,
    score,
    table,
    to_json,
    write,
)
from minicap.files import write_text
from minicap.floors import floors
from minicap.gallery import gallery, scenes_beside
from minicap.generate import BEAM, Writing
from minicap.metrics import Judge, Tokenizer
from minicap.model import Model
from minicap.page import page, read_history

SCORES, CAPTIONS, REPORT = "scores.json", "captions.json", "report.html"


@dataclass(frozen=True)
class Options:
    """Judge a model's captions, or those of a results file, beside floors that need no model.

    Without data options: on the data that the model was trained on. Writes scores.json,
    captions.json (COCO's results format) and report.html.
    """

    model: tyro.conf.Positional[Path | None] = None
    """model.safetensors, as `python -m minicap.train` wrote it"""
    ensemble: tuple[Path, ...] = ()
    """further models, of the same vocabulary and encoder, that write together with the first"""
    results: Path | None = None
    """judge the captions of this file instead: JSON, [{"image_id": ..., "caption": ...}, ...]"""
    data: Annotated[DataFiles, tyro.conf.arg(name="")] = DataFiles()
    split: Literal["dev", "test", "all"] | None = None
    """the pictures to judge by [default: the split that a list is given of, else dev; for a results
    file else all]"""
    tokenizer: Tokenizer = "words"
    """what a word is: words, as minicap's vocabulary has them; ptb, as COCO's evaluation does
    (needs Java)"""
    meteor: bool = False
    """METEOR too (needs Java)"""
    neighbours: int = 30
    """training pictures that are asked for the nearest-neighbour floor"""
    photos: Path | None = None
    """your photos (a folder, a zip file or a list), for the report [default: those that training
    was given]"""
    shown: int = 36
    """pictures in the report: the best, the worst, and some between"""
    out: Path | None = None
    """folder to write into [default: evaluation, beside the model or the results file]"""
    writing: Annotated[Writing, tyro.conf.arg(name="")] = BEAM
    seed: int = 0
    """of the shuffling, and of drawing"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute"""

    def check(self) -> None:
        """UserError for what makes no sense."""
        if (self.model is None) == (self.results is None):
            raise UserError("name a MODEL, or a file with --results")
        for name, given in (
            ("--ensemble", self.ensemble),
            ("--device", self.device != "cpu"),
            ("an option of writing, such as --beams,", self.writing != BEAM),
        ):
            if given and not self.model:
                raise UserError(f"{name} goes with a MODEL")
        if self.out and self.out.is_file():
            raise UserError(f"--out {self.out}: this is a file; name a folder")
        self.writing.check()
        for name, least in (("neighbours", 1), ("shown", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be {least} or more")

    def which_split(self) -> str:
        """The split to judge by."""
        listed = "dev" if self.data.dev_split else "test" if self.data.test_split else None
        return self.split or listed or ("all" if self.results else "dev")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = tyro.cli(Options, prog="python -m minicap.evaluate", args=arguments)
    options.check()
    source = options.model or options.results
    assert source
    models: list[Model] = []
    remembered = {}
    if options.model:
        xp = device_module(options.device)
        paths = options.model, *options.ensemble
        models = [Model.load(path, xp) for path in paths]
        check_vocabularies(models)
        remembered = checkpoint.load(options.model, "model")[1].get("options", {})
    files, trained_on = sources(options.data, remembered.get("data"))
    assert files.captions
    out = options.out or source.parent / "evaluation"
    data = [value for some in (files, *trained_on) for value in vars(some).values()]
    read = [source, *options.ensemble, *data]
    taken = {path.resolve() for path in read if isinstance(path, Path)}
    for name in SCORES, CAPTIONS, REPORT:
        if (out / name).resolve() in taken:
            raise UserError(
                f"--out {out}: {name} would replace a file that is read; choose another"
            )
    split = options.which_split()
    pictures = read_pictures(files, split)
    scenes = scenes_beside(files.captions, pictures.names)
    shown = gallery(pictures.names, scenes, options.photos, remembered.get("photos"))
    train, notes = training_pictures(trained_on, pictures, lot=bool(models) or split != "all")
    judge = Judge(pictures.references, options.tokenizer, options.meteor)
    ids = image_ids(pictures.names, coco_numbers(files.captions))
    if models:
        rng = numpy.random.default_rng(options.seed)
        notes += check_features(models, pictures)
        written = write(models, pictures, options.writing, rng)
    else:
        texts = read_results(source, ids)
        written = [[Written(texts[name])] for name in pictures.names]
    captions = [candidates[0].text for candidates in written]
    writers = {"model" if models else "results": captions}
    writers |= floors(captions, pictures, train, options.neighbours, options.seed)
    evaluation = Evaluation(
        pictures,
        score(judge, pictures, writers, scenes),
        written,
        models[0].vocabulary if models else None,
        {
            "judged": " + ".join(map(str, (source, *options.ensemble))),
            "writing": dataclasses.asdict(options.writing) if models else None,
            "captions": str(files.captions),
            "split": split,
            "pictures": len(pictures.names),
            "references": sum(map(len, pictures.captions)),
            "tokenizer": options.tokenizer,
            "CIDEr": judge.frequencies,
            "seed": options.seed,
        },
        pictures.notes + notes,
    )
    named = dict(zip(pictures.names, captions, strict=True))
    seen = [row for row, name in enumerate(pictures.names) if name in shown]
    chosen = choose(evaluation, seen or range(len(captions)), options.shown)
    contents = {
        SCORES: json.dumps(to_json(evaluation), indent=1, ensure_ascii=False) + "\n",
        CAPTIONS: results_text(named, ids),
        REPORT: page(evaluation, chosen, shown, read_history(source.parent)),
    }
    for name, text in contents.items():
        write_text(out / name, text)
    print(*lines(evaluation), sep="\n")
    print(*(f"written   {out / name}" for name in contents), sep="\n")


def lines(evaluation: Evaluation) -> list[str]:
    """What the command prints."""
    told = evaluation.settings
    return [
        f"judged    {told['judged']}, {told['split']}: {told['pictures']:,} pictures with "
        f"{told['references']:,} references in {told['captions']}",
        *([f"writing   {manner(told['writing'])}"] if told["writing"] else []),
        f"scores    times 100; tokenizer {told['tokenizer']}; CIDEr: {told['CIDEr']}",
        *(f"          {line}" for line in table(evaluation)),
        *(f"{name:17} {value}" for name, value in facts(evaluation)),
        *(f"note      {note}" for note in evaluation.notes),
        *(f"warning   {warning}" for warning in evaluation.warnings),
    ]


if __name__ == "__main__":
    commands.run(main)
