"""The tree of a beam search holds every hypothesis that the search kept."""

import numpy
import pytest

from minicap.generation.beam_tree import BeamTree
from minicap.generation.config import GenerationConfig
from minicap.generation.generate import generate
from tests import tiny


def path(tree, number):
    words = []
    while number is not None:
        words.append(tree.nodes[number].token)
        number = tree.nodes[number].parent
    return words[::-1]


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_the_final_beam_is_what_the_tree_keeps(beam, penalty):
    model = tiny.model()
    features = numpy.random.default_rng(beam).normal(size=(1, tiny.WIDTH)).astype("float32")
    config = GenerationConfig(beam_size=beam, length_penalty=penalty)
    tree = BeamTree(penalty)
    (captions,) = generate([model], features, config, observe=tree)
    steps = max(node.first for node in tree.nodes) + 1
    parents = {node.parent for node in tree.nodes}
    kept = [
        number
        for number, node in enumerate(tree.nodes)
        if node.last == steps - 1
        and (node.token == model.vocabulary.end or node.first == steps - 1)
        and not any(other.parent == number and other.last == steps - 1 for other in tree.nodes)
    ]
    ends = [model.vocabulary.end]
    found = sorted((tree.nodes[n].score, path(tree, n)) for n in kept)
    expected = sorted((c.score, (c.ids + ends)[: len(c.log_probabilities)]) for c in captions)
    assert [words for _, words in found] == [words for _, words in expected]
    numpy.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected])
    assert parents - {None} <= set(range(len(tree.nodes)))


def test_each_node_comes_after_its_parent_and_each_step_drops_at_most_a_beam():
    model, tree = tiny.model(), BeamTree(0.7)
    features = numpy.ones((1, tiny.WIDTH), "float32")
    generate([model], features, GenerationConfig(beam_size=3), observe=tree)
    dropped = 0
    for number, node in enumerate(tree.nodes):
        assert node.parent is None or node.parent < number
        assert node.parent is None or tree.nodes[node.parent].first == node.first - 1
        assert node.last >= node.first - 1
        dropped += node.last < node.first
    assert dropped
    for step in range(max(node.first for node in tree.nodes) + 1):
        new = [node for node in tree.nodes if node.first == step]
        assert sum(node.last >= step for node in new) <= 3 and len(new) <= 6
