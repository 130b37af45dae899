"""Feature maps: what an encoder has computed for each position of a photo, before pooling.

Pooling takes the mean over all positions, 8 x 8 for InceptionV3. Attention looks at each of them.
An encoder of maps is an ONNX file like any other, whose features are all positions one after the
other: F = L K numbers, for L positions with K principal components each.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from minicap.encoder.graph import MAP, encoder_id, save
from minicap.encoder.photos import PhotoSource
from minicap.encoder.session import Encoder, encoder_file
from minicap.utils.errors import UnusableImage, UserError

if TYPE_CHECKING:
    import onnx

SAMPLE = 400  # photos to which the principal components are fitted


def with_map(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Give an encoder its feature map as a second output, (N, C, height, width), called `map`.

    The encoder's id stays the same, because its features do.

    Args:
        model: an encoder whose features are a global average.

    Raises:
        UserError: they are not.
    """
    import onnx
    from onnx import TensorProto, helper

    outputs = [value.name for value in model.graph.output]
    if MAP in outputs:
        return model
    pools = [node for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    if not pools:
        raise UserError("this encoder has no feature map: its features are not a global average")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.node.append(helper.make_node("Identity", [pools[-1].input[0]], [MAP], name=MAP))
    shape = ["N", None, None, None]
    copy.graph.output.append(helper.make_tensor_value_info(MAP, TensorProto.FLOAT, shape))
    return copy


def principal_components(
    maps: Iterable[np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit the directions in which the positions of maps vary most.

    Args:
        maps: arrays (n, C, height, width).
        count: K, how many directions.

    Returns:
        The mean (C,), the directions (C, K), float32, and the share of the variance they keep.
    """
    total, products, seen = np.zeros(1), np.zeros(1), 0
    for some in maps:
        rows = some.transpose(0, 2, 3, 1).reshape(-1, some.shape[1]).astype(np.float64)
        total, products, seen = total + rows.sum(axis=0), products + rows.T @ rows, seen + len(rows)
    mean = total / seen
    values, vectors = np.linalg.eigh(products / seen - np.outer(mean, mean))
    kept = vectors[:, ::-1][:, :count]
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(count)])
    share = float(values[::-1][:count].sum() / values.sum())
    return mean.astype(np.float32), kept.astype(np.float32), share


def mix(directions: np.ndarray) -> np.ndarray:
    """Rotate directions at random among themselves.

    They still span the same subspace, but each has about the same share of the variance. Dropout,
    which removes components, then removes a little of everything that a position shows, and never
    all that the first principal component tells.

    Args:
        directions: (C, K) orthonormal.

    Returns:
        (C, K) orthonormal, float32.
    """
    K = directions.shape[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((K, K)))
    return (directions @ rotation).astype(np.float32)


def project(
    model: "onnx.ModelProto",
    mean: np.ndarray,
    components: np.ndarray,
    positions: int,
    about: Mapping[str, Any],
) -> "onnx.ModelProto":
    """Build the encoder of maps.

    Args:
        model: from `with_map`.
        mean: (C,).
        components: (C, K).
        positions: L.
        about: of the pooled encoder, from `Encoder.about`.

    Returns:
        A model with the input of `model` and the output `positions`, float32 (N, L K).
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    C, K = components.shape
    made = onnx.ModelProto()
    made.CopyFrom(model)

    def constant(name: str, array: Any) -> str:
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    each = constant("maps/positions", np.array([-1, positions, C]))
    flat = constant("maps/flat", np.array([-1, positions * K]))
    made.graph.node.extend(
        [
            helper.make_node("Transpose", [MAP], ["maps/last"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", ["maps/last", each], ["maps/rows"]),
            helper.make_node("Sub", ["maps/rows", constant("maps/mean", mean)], ["maps/centred"]),
            helper.make_node(
                "MatMul", ["maps/centred", constant("maps/components", components)], ["maps/few"]
            ),
            helper.make_node("Reshape", ["maps/few", flat], ["positions"]),
        ]
    )
    del made.graph.output[:]
    made.graph.output.append(
        helper.make_tensor_value_info("positions", TensorProto.FLOAT, ["N", positions * K])
    )
    metadata = {
        "weights": f"{about['name']}-map{K}",
        "pooled_encoder_id": about["id"],
        "encoder_id": encoder_id(made, about["preprocessing"]),
        "preprocessing": about["preprocessing"],
        "feature_size": str(positions * K),
        "positions": str(positions),
        "pooling": f"none: {positions} positions with {K} principal components each",
    }
    helper.set_model_props(made, metadata)
    return made


def map_encoder(
    encoder: Path,
    photos: PhotoSource,
    components: int,
    path: Path,
    preprocessing: str | None = None,
) -> Path:
    """Build an encoder of maps, unless it is there already.

    Args:
        encoder: an encoder's ONNX file, or `Path("pretrained")`.
        photos: a sample of these is what the principal components are fitted to.
        components: K, numbers for each position.
        path: the ONNX file to write.
        preprocessing: as for `Encoder`.

    Returns:
        The path.

    Raises:
        UserError: the encoder has no map or fewer than K channels, the file was made from another
            encoder, or no photo can be read.
    """
    import onnx

    source = encoder_file(encoder)
    pooled = Encoder(source, preprocessing=preprocessing)
    model = with_map(onnx.load(source))
    if path.exists():
        check_map_encoder(path, pooled, components)
        return path
    maps = sample_maps(model, pooled, photos)
    first = next(maps, None)
    if first is None:
        raise UserError("--map: none of the photos can be read to fit the components to")
    _, channels, height, width = first.shape
    if not 1 <= components <= channels:
        raise UserError(f"--components must be from 1 to {channels}, the channels of the map")
    mean, directions, share = principal_components(itertools.chain([first], maps), components)
    save(project(model, mean, mix(directions), height * width, pooled.about()), path)
    print(f"map       {path}: {height} x {width} positions, {components} of {channels} components")
    print(f"          with {100 * share:.0f} % of the variance")
    return path


def check_map_encoder(path: Path, pooled: Encoder, components: int) -> None:
    """Check that an encoder of maps is what `map_encoder` would build from an encoder.

    Raises:
        UserError: it is damaged, or was made from another encoder or with other components.
    """
    import onnx

    advice = "delete it with its store, or choose another --out"
    try:
        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        size = int(found["feature_size"]) // int(found["positions"])
    except Exception as error:  # protobuf's error classes have no common base
        raise UserError(f"{path}: damaged, or not an encoder of maps; {advice}") from error
    if (found.get("pooled_encoder_id"), size) != (pooled.id, components):
        raise UserError(
            f"{path}: was made from another encoder, or with other --components; {advice}"
        )


def sample_maps(
    model: "onnx.ModelProto", pooled: Encoder, photos: PhotoSource
) -> Iterator[np.ndarray]:
    """Compute the maps of up to SAMPLE photos, (1, C, height, width) each.

    Args:
        model: from `with_map`.
        pooled: the same network, which prepares the photos.
        photos: the sample is spread evenly over these. Unreadable ones are left out.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = photos.names[:: -(-len(photos.names) // SAMPLE)]
    for name in tqdm(names, desc="fitting components", unit=" photos"):
        try:
            pixels = pooled.pixels(photos.open(name))
        except UnusableImage:
            continue
        (found,) = session.run([MAP], {session.get_inputs()[0].name: pixels[None]})
        yield found
