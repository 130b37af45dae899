"""Caption photos: python caption_onnx.py ENCODER.onnx START.onnx STEP.onnx PHOTO..."""

import json
import sys

import numpy
import onnxruntime
from PIL import Image, ImageOps

encoder, start, step = (onnxruntime.InferenceSession(path) for path in sys.argv[1:4])
about = {k: json.loads(v) for k, v in step.get_modelmeta().custom_metadata_map.items()}
size, penalty = about["generation"]["beam_size"], about["generation"]["length_penalty"]
space = "" if about["tokenizer"] == "characters" else " "
image_input = encoder.get_inputs()[0]


def run(session, **inputs):
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, inputs)))


for path in sys.argv[4:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pixels = numpy.asarray(image.resize(image_input.shape[1:3], Image.Resampling.BILINEAR))
    (features,) = encoder.run(None, {image_input.name: pixels[None]})
    beam = [(0.0, 0.0, [about["start"]], run(start, features=features))]
    for _ in range(about["max_words"]):
        candidates = [hypothesis for hypothesis in beam if hypothesis[2][-1] == about["end"]]
        for _, total, tokens, state in beam:
            if tokens[-1] == about["end"]:
                continue
            found = run(step, words=numpy.array(tokens[-1:]), **state)
            state = state | {"h": found["next_h"], "c": found["next_c"]}
            (row,) = found["log_probabilities"]
            row[about["not_generated"]] = -numpy.inf
            for token in row.argsort()[::-1][:size].tolist():
                score = (total + row[token]) / len(tokens) ** penalty
                candidates.append((score, total + row[token], [*tokens, token], state))
        beam = sorted(candidates, key=lambda hypothesis: -hypothesis[0])[:size]
    words = [about["vocabulary"][n] for n in beam[0][2][1:] if n != about["end"]]
    print(path, space.join(words), sep="\t")
