"""Compare an encoder's features with reference features computed from the same weights."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from minicap.encoder.session import Encoder
from minicap.utils.errors import UserError

TOLERANCE = 1e-3  # relative L2 error of one photo's features: JPEG decoders differ by about this


def differences(
    encoder: Encoder, photos: Sequence[Path], expected: Mapping[str, np.ndarray]
) -> Iterator[tuple[Path, float]]:
    """Compute the relative error of each photo's features.

    Args:
        encoder: the encoder to check.
        photos: paths of the photos.
        expected: reference features (feature_size,) by path or by file name.

    Yields:
        Each photo's path with ||features - expected|| / ||expected|| (L2 norms), infinite if it
        is undefined. TOLERANCE or less counts as agreement.

    Raises:
        UserError: a photo cannot be read or has no expected features, or the sizes differ.
    """
    for photo in photos:
        row = expected.get(str(photo), expected.get(photo.name))
        if row is None:
            raise UserError(f"{photo}: not among the {len(expected)} photos with expected features")
        reference = np.asarray(row, np.float64)
        if reference.shape != (encoder.feature_size,):
            raise UserError(
                f"{photo}: {reference.size} features are expected, the encoder has "
                f"{encoder.feature_size}"
            )
        features = np.asarray(encoder([photo])[0], np.float64)
        norm = np.linalg.norm(reference)
        difference = float(np.linalg.norm(features - reference) / norm) if norm else np.inf
        yield photo, difference if np.isfinite(difference) else np.inf


def keras_features(
    weights: Path, encoder: Encoder, photos: Sequence[Path]
) -> dict[str, np.ndarray]:
    """Compute reference features with Keras' own InceptionV3.

    Args:
        weights: Keras' .h5 weight file.
        encoder: prepares the photos.
        photos: paths of the photos.

    Returns:
        Features (2048,) float64 by path.

    Raises:
        UserError: Keras is not installed or cannot read the weights.
    """
    try:
        import keras
    except ImportError as error:
        raise UserError(
            "checking against Keras needs Keras: pip install keras tensorflow-cpu; or pass "
            "reference features with --expected features.npz"
        ) from error
    network = keras.applications.InceptionV3(weights=None)
    body = keras.Model(network.input, network.get_layer("mixed10").output)
    try:
        try:
            body.load_weights(weights)
        except ValueError:  # a file with the classifier has one more layer
            network.load_weights(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{weights}: Keras itself cannot read it ({reason})") from error
    features = {}
    for photo in photos:
        x = encoder.pixels(photo)[None] / np.float32(127.5) - 1
        y = np.asarray(body.predict(x, verbose=0))
        features[str(photo)] = y.mean((0, 1, 2), dtype=np.float64)
    return features
