"""The API's description in OpenAPI 3.1, served as /api/openapi.json."""

from dataclasses import fields
from typing import Any

from minicap import __version__
from minicap.generation.config import BEAM, GenerationConfig
from minicap.server.photo import MAX_BYTES, MAX_PIXELS
from minicap.server.question import MOST, OPTIONS, Question

ABOUT = {
    "beam_size": f"hypotheses that beam search keeps, 1 to {MOST} (1: greedy decoding)",
    "length_penalty": "rank captions by log-probability / length**length_penalty",
    "temperature": "0: beam search; above 0: sample from softmax(logits / temperature)",
    "top_k": "sample only from this many of the likeliest words (0: all)",
    "top_p": "sample only from the fewest likeliest words whose probabilities add up to this",
    "no_repeat_ngram_size": "n-grams of this many words occur only once (0: no limit)",
    "min_length": "minimum number of words",
    "prefix": "words that the caption starts with",
    "count": f"captions to return, 1 to {MOST}: the best ones of the beam, or samples",
    "seed": "for sampling",
    "candidates": f"likeliest tokens to list for each token of the first caption, 0 to {MOST}",
    "tree": "return the beam search as a tree",
    "cells": "LSTM cells to show: auto, or their numbers, such as 3,17",
}
TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def openapi() -> dict[str, Any]:
    """Describe the API."""
    defaults = {f.name: getattr(BEAM, f.name) for f in fields(GenerationConfig)}
    defaults |= {f.name: f.default for f in fields(Question) if f.name in OPTIONS}
    parameters = [
        {
            "name": "photo",
            "in": "query",
            "description": "instead of a body: the id of a photo sent before, or of a sample",
            "schema": {"type": "string"},
        },
        *(
            {
                "name": name,
                "in": "query",
                "description": ABOUT[name],
                "schema": {"type": TYPES[kind], "default": defaults[name]},
            }
            for name, kind in OPTIONS.items()
        ),
    ]
    limits = f"at most {MAX_BYTES:,} bytes and {MAX_PIXELS:,} pixels"
    return {
        "openapi": "3.1.0",
        "info": {"title": "minicap", "version": __version__},
        "paths": {
            "/api/caption": {
                "post": {
                    "summary": "Caption a photo",
                    "parameters": parameters,
                    "requestBody": {
                        "description": f"the photo's bytes, {limits}",
                        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
                    },
                    "responses": {
                        "200": _response("captions, best first", "Answer"),
                        **{
                            status: _response(about, "Error")
                            for status, about in {
                                "400": "an option is wrong, or there is no photo",
                                "403": "the request comes from another web site",
                                "404": "no photo has this id",
                                "408": "the body came too slowly",
                                "413": "the body is too large",
                                "415": "the body is a form",
                                "422": "not an image, damaged, or too many pixels",
                                "429": "too many requests: try again later",
                                "504": "it took too long",
                            }.items()
                        },
                    },
                }
            },
            "/api/about": {
                "get": {
                    "summary": "Describe the model, the default options and the sample photos",
                    "responses": {"200": _response("the description", "About")},
                }
            },
            "/health": {
                "get": {
                    "summary": "Say whether the server is up",
                    "responses": {"200": _response("it is", "Health")},
                }
            },
        },
        "components": {"schemas": SCHEMAS},
    }


def _response(description: str, schema: str) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"description": description, "content": {"application/json": content}}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": [*required],
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


STRING, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
LOG_PROBABILITY = {"type": "number", "maximum": 0, "description": "natural logarithm"}
SCHEMAS = {
    "Answer": _object(
        {
            "photo": {"type": "string", "description": "the photo's id, for the next request"},
            "captions": _list({"$ref": "#/components/schemas/Caption"}),
        },
        {
            "candidates": {
                "description": "for each token of the first caption, the likeliest tokens",
                **_list(_list(_object({"token": STRING, "log_probability": LOG_PROBABILITY}))),
            },
            "attention": {
                "description": "for each token of the first caption, the weights of the positions, "
                "row by row; if the model has attention",
                **_list(_list(NUMBER)),
            },
            "tree": _list({"$ref": "#/components/schemas/Node"}),
            "cells": _list({"$ref": "#/components/schemas/Cell"}),
        },
    ),
    "Caption": _object(
        {
            "caption": STRING,
            "tokens": {"description": "#END# is the caption's end", **_list(STRING)},
            "log_probabilities": _list(LOG_PROBABILITY),
            "score": NUMBER,
            "doubt": {"type": "string", "description": "why the caption is doubtful, or empty"},
        }
    ),
    "Node": _object(
        {
            "parent": {"type": ["integer", "null"], "description": "number of the node before"},
            "token": STRING,
            "log_probability": LOG_PROBABILITY,
            "score": NUMBER,
            "first": {"type": "integer", "description": "the step at which it appeared"},
            "last": {"type": "integer", "description": "the last step that kept it"},
        }
    ),
    "Cell": _object(
        {
            "number": INTEGER,
            "kind": {"enum": ["keeps", "drifts", "reacts"]},
            "state": {"description": "before the first step and after each", **_list(NUMBER)},
            "input": {"description": "step t reads the token before token t", **_list(NUMBER)},
            "forget": _list(NUMBER),
            "output": _list(NUMBER),
            "sentence": STRING,
        }
    ),
    "About": {"type": "object"},
    "Health": _object({"status": {"const": "ok"}, "unfinished": INTEGER}),
    "Error": _object({"error": STRING}),
}
