"""The decoder with attention: gradients, generation, files, and training from the command line."""

import numpy
import pytest

from minicap import train
from minicap.data.features import Features, Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.generation.config import BEAM, GREEDY
from minicap.generation.generate import generate
from minicap.generation.trace import trace
from minicap.model.attending_decoder import AttendingDecoder, make_decoder
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder
from minicap.model.initial import initial_parameters
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError
from tests import tiny
from tests.model.test_decoder import (
    assert_decoder_complex_step,
    assert_generation_equals_the_loss,
    case,
)
from tests.tiny import arguments, write_data

ATTENTION = {"image_input": "attention", "positions": 5, "attention_size": 4}
BARE = ATTENTION | {"image_bottleneck": 0, "logit_bottleneck": 0}
L, A = 4, 3


EQUAL = ATTENTION | {"attention_size": 0}


@pytest.mark.gradcheck
@pytest.mark.parametrize(
    "sizes", [ATTENTION, BARE, EQUAL], ids=["all layers", "no bottlenecks", "equal weights"]
)
def test_complex_step(sizes):
    assert_decoder_complex_step(steps=20, dropout=True, **sizes)


@pytest.mark.gradcheck
def test_generation_step_by_step_equals_the_loss():
    assert_generation_equals_the_loss(case(steps=20, **ATTENTION)[0])


def test_the_architecture_decides():
    assert type(case(**ATTENTION)[0]) is AttendingDecoder and type(case()[0]) is Decoder


def model(seed=0):
    """An untrained model with large parameters, which looks at four positions."""
    sizes = {"hidden_size": 8, "embedding_size": 6, "image_bottleneck": 5, "logit_bottleneck": 7}
    config = DecoderConfig(**sizes, image_input="attention", attention_size=6, positions=L)
    vocabulary, rng = Vocabulary(["a", "blue", "dog", "red"]), numpy.random.default_rng(seed)
    parameters = initial_parameters(config, config.shapes(L * A, len(vocabulary)), rng)
    parameters.flat *= 4
    encoder = {"id": "maps", "name": "maps", "positions": L}
    scaling = Scaling.none(L * A)
    return Model(make_decoder(config, parameters), vocabulary, scaling, 7, encoder)


FEATURES = numpy.random.default_rng(1).normal(size=(9, L * A)).astype("float32")


@pytest.mark.parametrize("config", [GREEDY, BEAM], ids=["greedy", "beam"])
@pytest.mark.parametrize("count", [1, 2])
def test_captions_do_not_depend_on_the_batch(config, count):
    models = [model(seed) for seed in range(count)]
    together = generate(models, FEATURES, config)
    for row, captions in zip(FEATURES, together, strict=True):
        (alone,) = generate(models, row[None], config)
        assert [c.ids for c in alone] == [c.ids for c in captions]
    assert len({tuple(captions[0].ids) for captions in together}) > 1


def test_the_order_of_positions_changes_no_caption():
    turned = FEATURES.reshape(9, L, A)[:, ::-1].reshape(9, L * A)
    before, after = (generate([model()], features, BEAM) for features in (FEATURES, turned))
    assert [c[0].ids for c in before] == [c[0].ids for c in after]


def test_the_trace_has_the_probabilities_of_generation():
    (captions,) = generate([model()], FEATURES[:1], GREEDY)
    ids = (captions[0].ids + [model().vocabulary.end])[: len(captions[0].log_probabilities)]
    (found,) = trace([model()], FEATURES[:1], [ids])
    assert found.log_probabilities[:, 0] == pytest.approx(captions[0].log_probabilities, abs=1e-5)


def test_the_trace_has_the_weights_of_every_step():
    ids = [[4, 5, 6], [6, 6, 5, 4, 3]]
    found = trace([model()], FEATURES[:2], ids)
    assert [each.weights.shape for each in found] == [(3, L), (5, L)]
    for each in found:
        numpy.testing.assert_allclose(each.weights.sum(axis=1), 1, rtol=1e-5)
        assert each.weights.std() > 0.01
    (alone,) = trace([model()], FEATURES[1:2], ids[1:])
    numpy.testing.assert_allclose(alone.weights, found[1].weights, rtol=1e-4, atol=1e-6)
    assert trace([tiny.model()], FEATURES[:1, : tiny.WIDTH], ids[:1])[0].weights is None


def test_a_position_that_differs_changes_the_weights_where_it_is():
    """The weights belong to the positions in the order of the features."""
    features = FEATURES[:1].copy()
    before = trace([model()], features, [[4]])[0].weights[0]
    order = [2, 0, 3, 1]
    turned = features.reshape(1, L, A)[:, order].reshape(1, -1)
    after = trace([model()], turned, [[4]])[0].weights[0]
    numpy.testing.assert_allclose(after, before[order], rtol=1e-4, atol=1e-6)


def test_a_file_keeps_everything(tmp_path):
    model().save(tmp_path / "model.safetensors")
    loaded = Model.load(tmp_path / "model.safetensors")
    assert (
        type(loaded.decoder) is AttendingDecoder and loaded.decoder.config == model().decoder.config
    )
    same = generate([loaded], FEATURES, BEAM)
    assert [c[0].ids for c in same] == [c[0].ids for c in generate([model()], FEATURES, BEAM)]


def test_without_units_all_weights_are_equal():
    equal = tiny.model(**tiny.ATTENTION | {"attention_size": 0})
    features = numpy.random.default_rng(2).normal(size=(2, tiny.WIDTH)).astype("float32")
    for found in trace([equal], features, [[4, 5, 6], [5]]):
        assert (found.weights == 0.25).all()


@pytest.fixture
def files(tmp_path):
    """The tiny data set, with maps of two positions."""
    files = write_data(tmp_path / "data")
    rng, names = numpy.random.default_rng(0), [f"{number}.jpg" for number in range(12)]
    array = rng.normal(size=(12, 6)).astype("float32")
    array[numpy.arange(12), numpy.arange(12) % 3] += 3
    about = {"id": "tiny", "name": "tiny encoder", "positions": 2}
    Features(names, array, about).save(files.features[0])
    return files


def test_training_with_self_critical_epochs_and_workers(files, tmp_path):
    options = [
        "--image-input=attention",
        "--attention-size=5",
        "--self-critical-epochs=1",
        "--monitor=cider",
    ]
    options += [f"--out={tmp_path / 'run'}", "--samples-per-image=2"]
    command = [word for word in arguments(files, *options) if not word.startswith("--workers")]
    train.main([*command, "--workers=2"])
    trained = Model.load(tmp_path / "run/model.safetensors")
    assert trained.decoder.config.positions == 2
    assert trained.decoder.parameters["attention_keys"].shape == (4, 5)


def test_pooled_features_are_refused(tmp_path):
    files = write_data(tmp_path / "data")
    with pytest.raises(UserError, match="encode the photos with `minicap encode --map`"):
        train.main(arguments(files, "--image-input=attention", f"--out={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()
