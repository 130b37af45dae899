"""Fine-tuning: training that starts from a trained model, with other captions and new words."""

from dataclasses import replace

import numpy

from minicap.data.dataset import Dataset
from minicap.data.vocabulary import SPECIAL, Vocabulary
from minicap.model.trained_model import Model
from minicap.nn.parameters import Parameters
from minicap.training.recipes import Recipe
from minicap.utils.errors import UserError
from minicap.utils.renamed import option


def adapted(recipe: Recipe, model: Model) -> Recipe:
    """Return a recipe with the settings that the model fixes, and with its maximum length.

    Args:
        recipe: how to train.
        model: the model to start from.
    """
    training = replace(
        recipe.training,
        tokenizer=model.vocabulary.tokenizer,
        max_length=model.max_length,
        standardise=False,  # the model's scaling is kept
        components=0,
    )
    return Recipe(model.decoder.config, training)


def check(recipe: Recipe, model: Model) -> None:
    """Check that a recipe keeps what the model fixes: the architecture, tokeniser and scaling.

    Args:
        recipe: what is about to be trained.
        model: the model to start from.

    Raises:
        UserError: a setting differs. The message names the option.
    """
    kept = adapted(recipe, model)
    given = vars(recipe.decoder) | vars(recipe.training)
    for name, value in (vars(kept.decoder) | vars(kept.training)).items():
        if given[name] != value and name != "max_length":
            raise UserError(
                f"{option(name)} cannot be changed with --init-from: the model's {name} is "
                f"{value}; leave this option out"
            )


def transfer(parameters: Parameters, vocabulary: Vocabulary, model: Model) -> None:
    """Copy a trained model's parameters. Those of new words stay as they are.

    Args:
        parameters: of a new decoder of the same architecture, on the host; changed in place.
        vocabulary: of the new decoder; contains all words of the model.
        model: the trained model, on the host.
    """
    ids = numpy.array([vocabulary.ids[word] for word in model.vocabulary.words])
    for name, array in model.decoder.parameters.items():
        if name == "word_embed":
            parameters[name][ids] = array
        elif name == "token_logits":
            parameters[name][:, ids] = array
        else:
            parameters[name][...] = array


def notes(dataset: Dataset, model: Model) -> list[str]:
    """Describe the vocabulary after fine-tuning, and any doubt about the features' encoder.

    Raises:
        UserError: the model was trained on the features of another encoder.
    """
    warning = model.check_encoder(dataset.encoder or {}, len(model.scaling.mean))
    new = sorted(set(dataset.vocabulary.words) - set(model.vocabulary.words))
    lines = [f"fine-tuning: {len(model.vocabulary) - len(SPECIAL):,} known words, {len(new):,} new"]
    if new:
        lines[0] += f" ({', '.join(new[:5])}{', ...' * (len(new) > 5)})"
    return lines + [warning] * bool(warning)
