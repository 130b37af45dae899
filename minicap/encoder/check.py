"""Does an encoder give the features that others have computed with the same weights?"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from minicap.encoder.session import Encoder
from minicap.utils.errors import UserError

TOLERANCE = 1e-3  # relative L2 of one photo's features: decoders of JPEG differ by about so much


def differences(
    encoder: Encoder, photos: Sequence[Path], expected: Mapping[str, np.ndarray]
) -> Iterator[tuple[Path, float]]:
    """For each photo: |features - expected| / |expected|, L2. TOLERANCE or less is agreement.

    expected: path or file name -> (feature_size,). UserError: a photo that cannot be read, or of
    which nothing is expected, or features of another size.
    """
    for photo in photos:
        row = expected.get(str(photo), expected.get(photo.name))
        if row is None:
            raise UserError(f"{photo}: not among the {len(expected)} photos with expected features")
        wanted = np.asarray(row, np.float64)
        if wanted.shape != (encoder.feature_size,):
            raise UserError(
                f"{photo}: {wanted.size} features are expected, the encoder has "
                f"{encoder.feature_size}"
            )
        found = np.asarray(encoder([photo])[0], np.float64)
        size = np.linalg.norm(wanted)
        difference = float(np.linalg.norm(found - wanted) / size) if size else np.inf
        yield photo, difference if np.isfinite(difference) else np.inf


def keras_features(
    weights: Path, encoder: Encoder, photos: Sequence[Path]
) -> dict[str, np.ndarray]:
    """What Keras itself, with the weights of this .h5 file, makes of the photos as `encoder`
    prepares them: path -> features. UserError where Keras is not installed."""
    try:
        import keras
    except ImportError as error:
        raise UserError(
            "to check against Keras, install it (pip install keras tensorflow-cpu); or give the "
            "features that are expected, --expected features.npz"
        ) from error
    network = keras.applications.InceptionV3(weights=None)
    body = keras.Model(network.input, network.get_layer("mixed10").output)
    try:
        try:
            body.load_weights(weights)
        except ValueError:  # the file with the top has one more layer
            network.load_weights(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{weights}: Keras itself cannot read it ({reason})") from error
    found = {}
    for photo in photos:
        x = encoder.pixels(photo)[None] / np.float32(127.5) - 1
        last = np.asarray(body.predict(x, verbose=0))
        found[str(photo)] = last.mean((0, 1, 2), dtype=np.float64)
    return found
