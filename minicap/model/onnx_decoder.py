"""Export a decoder to two ONNX files, which generate captions without minicap.

    NAME-start.onnx   features (N, F) -> h, c, and what the LSTM gets of the image at every step:
                      its projection, or with attention the keys and values of its positions
    NAME-step.onnx    words (N,), h, c, ... -> log_probabilities (N, V), next_h, next_c

Features are as the encoder returns them: their scaling is in the graph. The metadata hold
everything else that generation needs, as JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from minicap.backend import array_module, to_host
from minicap.model.attending_decoder import Looking
from minicap.model.decoder import State, split_lstm
from minicap.model.trained_model import Model
from minicap.nn.dense import affine
from minicap.nn.lstm import FORGET_BIAS
from minicap.utils.errors import UserError
from minicap.utils.files import replacing

if TYPE_CHECKING:
    import onnx

FORMAT = 1
IR_VERSION, OPSET = 10, 20  # not the newest, which ONNX Runtime supports only some releases later
TOLERANCE = 1e-5  # of log-probabilities and states, relative to the largest of each array
STEPS = 8  # that are checked


@dataclass
class Graph:
    """Collects the nodes and the weights of an ONNX graph."""

    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def node(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Add an operator; returns the name of its first output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, list(outputs), outputs[0], **attributes))
        return outputs[0]

    def weight(self, name: str, array: numpy.ndarray) -> str:
        """Add a constant; returns its name."""
        from onnx import numpy_helper

        array = numpy.ascontiguousarray(array, numpy.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        """Add a constant list of int64; returns its name."""
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(numpy.array(values), name))
        return name

    def affine(self, x: str, Wb: numpy.ndarray, name: str) -> str:
        """Add x W + b; Wb (I + 1, O) has the bias as its last row."""
        W, b = self.weight(f"{name}/W", Wb[:-1]), self.weight(f"{name}/b", Wb[-1])
        return self.node("Add", [self.node("MatMul", [x, W], f"{name}/product"), b], name)

    def model(
        self,
        name: str,
        inputs: Mapping[str, list[Any]],
        outputs: Mapping[str, list[Any]],
        about: Mapping[str, Any],
    ) -> "onnx.ModelProto":
        """Make the model of these nodes. Inputs and outputs: name -> shape; "words" are ids."""
        from onnx import TensorProto, helper

        def described(shapes: Mapping[str, list[Any]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(
                    each, TensorProto.INT64 if each == "words" else TensorProto.FLOAT, shape
                )
                for each, shape in shapes.items()
            ]

        graph = helper.make_graph(
            self.nodes, name, described(inputs), described(outputs), self.weights
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name="minicap"
        )
        texts = {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
        helper.set_model_props(model, texts)
        return model


def build(
    model: Model, generation: Mapping[str, Any]
) -> tuple["onnx.ModelProto", "onnx.ModelProto"]:
    """Build the ONNX models of a decoder.

    Args:
        model: the trained model.
        generation: settings of beam search to store, by name.

    Returns:
        The two models, start and step.
    """
    config, v = model.decoder.config, model.vocabulary
    about = {
        "format": FORMAT,
        "vocabulary": v.words,
        "tokenizer": v.tokenizer,
        "start": v.start,
        "end": v.end,
        "not_generated": [v.start, v.pad, v.unk],
        "max_words": model.max_length - 1,
        "generation": dict(generation),
        "encoder": model.encoder,
    }
    p = {name: to_host(array) for name, array in model.decoder.parameters.items()}
    W_image, _, _, UWb = split_lstm(config, p["lstm"])
    H = config.hidden_size
    scaling = model.scaling
    state: dict[str, list[Any]] = {"h": ["N", H], "c": ["N", H]}
    attends, L = config.image_input == "attention", config.positions
    A = scaling.width // L
    if attends:
        state |= {"keys": ["N", L, config.attention_size], "values": ["N", L, A]}
    elif len(W_image):
        state["image"] = ["N", 4 * H]

    start = Graph()
    x = start.node("Sub", ["features", start.weight("mean", scaling.mean)], "centred")
    x = start.node("Mul", [x, start.weight("scale", scaling.scale)], "scaled")
    if scaling.rotation is not None:
        x = start.node("MatMul", [x, start.weight("rotation", scaling.rotation)], "rotated")
    if attends:
        shape = start.integers("shape of positions", [-1, L, A])
        start.node("Reshape", [x, shape], "values")
        start.affine("values", p["attention_keys"], "keys")
        one = start.integers("positions' axis", [1])
        x = start.node("ReduceMean", ["values", one], "mean of positions", keepdims=0)
    elif len(W_image):
        start.node("MatMul", [x, start.weight("lstm/W_image", W_image)], "image")
    for name in config.image_layers:
        x = start.node("Elu", [start.affine(x, p[name], f"{name}/affine")], name)
    start.node("Identity", [x], "h")
    start.node("Identity", [x], "c")
    features = {"features": ["N", len(scaling.mean)]}

    step, bias, inputs = Graph(), numpy.zeros(4 * H, "float32"), ["h", "x"]
    bias[2 * H : 3 * H] = FORGET_BIAS
    weights = p["lstm"] if attends else UWb
    weights = numpy.vstack([weights[:-1], weights[-1] + bias])
    embedding = step.weight("word_embed", p["word_embed"])
    x = step.node("Gather", [embedding, "words"], "x")
    if attends:
        inputs = ["context", "h", "x"]
        one = step.integers("positions' axis", [1])
        spoken = step.node("Concat", ["h", "x"], "h and x", axis=1)
        query = step.affine(spoken, p["attention_query"], "query")
        query = step.node("Unsqueeze", [query, one], "query of each position")
        t = step.node("Tanh", [step.node("Add", ["keys", query], "keys and query")], "tanh keys")
        scores = step.weight("attention_scores", p["attention_scores"])
        a = step.node("Softmax", [step.node("MatMul", [t, scores], "scores")], "weights", axis=1)
        looked = step.node("Mul", [a, "values"], "weighted values")
        step.node("ReduceSum", [looked, one], "context", keepdims=0)
    z = step.affine(step.node("Concat", inputs, "inputs", axis=1), weights, "lstm")
    if "image" in state:
        z = step.node("Add", [z, "image"], "lstm with image")
    step.node("Split", [z], "z_i", "z_j", "z_f", "z_o", axis=1, num_outputs=4)
    i, f, o = (step.node("Sigmoid", [f"z_{gate}"], gate) for gate in "ifo")
    j = step.node("Tanh", ["z_j"], "j")
    kept = step.node("Mul", [f, "c"], "f c")
    c = step.node("Add", [kept, step.node("Mul", [i, j], "i j")], "next_c")
    x = step.node("Mul", [o, step.node("Tanh", [c], "tanh c")], "next_h")
    for name in config.output_layers:
        x = step.node("Elu", [step.affine(x, p[name], f"{name}/affine")], name)
    logits = step.affine(x, p["token_logits"], "token_logits")
    step.node("LogSoftmax", [logits], "log_probabilities", axis=1)
    outputs = {"log_probabilities": ["N", len(v)], "next_h": ["N", H], "next_c": ["N", H]}
    return (
        start.model("start", features, state, about),
        step.model("step", {"words": ["N"], **state}, outputs, about),
    )


def difference(start: bytes, step: bytes, model: Model, rows: int = 7) -> float:
    """Compare two ONNX models with the decoder they were made of, on random inputs.

    Args:
        start, step: the files' contents.
        model: the trained model.
        rows: number of captions.

    Returns:
        The largest difference of a log-probability or a state after any of STEPS steps, relative
        to the largest absolute value of its array, or to 1 if that is larger.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(each, options) for each in (start, step)]
    rng, worst = numpy.random.default_rng(0), 0.0
    scaling, decoder = model.scaling, model.decoder
    deviation = 1 / numpy.where(scaling.scale, scaling.scale, 1)
    noise = rng.normal(size=(rows, len(scaling.mean)))
    features = (scaling.mean + deviation * noise).astype(numpy.float32)
    state: State = decoder.initial_state(scaling(features))
    names = [each.name for each in sessions[0].get_outputs()]
    pairs = [*zip(arrays(state), sessions[0].run(None, {"features": features}), strict=True)]
    for _ in range(STEPS):
        words = rng.integers(0, len(model.vocabulary), rows)
        given = dict(
            zip(names, arrays(state), strict=True)
        )  # minicap's, so that rounding does not add up
        y, state = decoder.step(words, state)
        logits = affine(y, decoder.parameters["token_logits"]).astype(numpy.float64)
        logits -= logits.max(axis=1, keepdims=True)
        expected = logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))
        log_probabilities, h, c = sessions[1].run(None, {"words": words, **given})
        pairs += [(expected, log_probabilities), (state[0], h), (state[1], c)]
    for a, b in pairs:
        worst = max(worst, float(numpy.abs(a - b).max() / max(numpy.abs(a).max(), 1)))
    return worst


def arrays(state: State) -> list[numpy.ndarray]:
    """List the arrays of a decoder's state, in the order of the outputs of NAME-start.onnx."""
    h, c, *image = state
    if image and isinstance(image[0], Looking):
        exp_keys, values = image[0].arrays()
        # The files compute with the keys themselves.
        image = [array_module(exp_keys).log(exp_keys) / 2, values]
    return [h, c, *image]


def paths(out: Path) -> tuple[Path, Path]:
    """Name the two files: NAME.onnx gives NAME-start.onnx and NAME-step.onnx."""
    start, step = (out.with_name(f"{out.stem}-{part}.onnx") for part in ("start", "step"))
    return start, step


def export_decoder(model: Model, out: Path, generation: Mapping[str, Any]) -> float:
    """Write a decoder's two ONNX files, after a check that they compute what minicap computes.

    Args:
        model: the trained model, on the CPU.
        out: NAME.onnx, see `paths`.
        generation: settings of beam search to store, by name.

    Returns:
        The largest difference, see `difference`.

    Raises:
        UserError: onnx or onnxruntime is not installed, a file cannot be written, or the files
            differ from minicap by more than TOLERANCE. Then nothing is written.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting needs {error.name}, which is not installed: pip install -e '.[cpu]'"
        ) from error
    start, step = (each.SerializeToString() for each in build(model, generation))
    found = difference(start, step, model)
    if not found <= TOLERANCE:
        raise UserError(
            f"{out}: ONNX Runtime's results differ from minicap's by {found:.1e}, more than "
            f"{TOLERANCE:g}; no file was written; update onnxruntime"
        )
    first, second = paths(out)
    with replacing(first) as a, replacing(second) as b:
        a.write_bytes(start)
        b.write_bytes(step)
    return found
