"""The web application: the page, its API, and how requests become answers."""

import asyncio
import contextlib
import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from minicap import __version__
from minicap.captioner import Captioner
from minicap.data.tokenisers import join
from minicap.generation.config import BEAM
from minicap.server.answers import Answers, Request
from minicap.server.batcher import Batcher, Busy
from minicap.server.guard import Guard, error
from minicap.server.openapi import openapi
from minicap.server.photo import MAX_BYTES, MAX_PIXELS, prepare_upload
from minicap.server.question import read_question
from minicap.server.samples import Sample
from minicap.utils.command_line import cpu_count
from minicap.utils.errors import UnusableImage, UserError

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/lab.css": ("lab.css", "text/css"),
    "/lab.js": ("lab.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
UPLOAD_SECONDS = 20.0  # for the body of a request
ALL_UPLOADS = 16 * MAX_BYTES  # bytes of all photos that are received or wait to be decoded
REMEMBERED = 512  # photos whose features are kept in memory
WAITING = 128  # requests; one more is answered with 429
RETRY = {"Retry-After": "2"}


class Lab:
    """Handles the requests.

    Attributes:
        captioner: computes the captions.
        samples: photos to try.
        features: of the last photos, by their id.
    """

    def __init__(self, captioner: Captioner, samples: Sequence[Sample] = ()) -> None:
        """Keep what all requests share."""
        self.captioner, self.samples = captioner, samples
        self.features: OrderedDict[str, numpy.ndarray] = OrderedDict()
        self.batcher = Batcher(Answers(captioner), limit=WAITING)
        self.held = 0  # bytes of uploads that are being received, or wait to be decoded
        self._readers = ThreadPoolExecutor(cpu_count(), "photos")  # bounds the memory, too

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Answer requests in the background while the server runs."""
        task = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            task.cancel()
            self._readers.shutdown(wait=False, cancel_futures=True)

    async def caption(self, request: HTTPRequest) -> Response:
        """Caption the photo in the request's body, or one that the server knows by its id."""
        query = request.query_params.multi_items()
        question = read_question((name, value) for name, value in query if name != "photo")
        self.batcher.check_room()
        async with self.upload(request) as content:
            photo = request.query_params.get("photo", "")
            if content:
                photo = hashlib.sha256(content).hexdigest()
            job = Request(question, features=self.features.get(photo))
            if job.features is None:
                job.pixels = await self.pixels(photo, content)
        answer = await self.batcher(job)
        assert job.features is not None
        self.features[photo] = job.features
        self.features.move_to_end(photo)
        if len(self.features) > REMEMBERED:
            self.features.popitem(last=False)
        return JSONResponse({"photo": photo, **answer})

    @contextlib.asynccontextmanager
    async def upload(self, request: HTTPRequest) -> AsyncIterator[bytes]:
        """Receive the body, within the limits of size and time. It is held until the block ends."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(
                415, "send the photo's bytes as the body, not a form: curl --data-binary @photo.jpg"
            )
        too_large = HTTPException(413, f"at most {MAX_BYTES:,} bytes; make the photo smaller")
        if int(request.headers.get("content-length", "0")) > MAX_BYTES:
            raise too_large
        chunks, size = [], 0
        try:
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    async for chunk in request.stream():
                        size += len(chunk)
                        self.held += len(chunk)
                        if size > MAX_BYTES:
                            raise too_large
                        if self.held > ALL_UPLOADS:
                            raise Busy("too many uploads at once; try again in a few seconds")
                        chunks.append(chunk)
            except TimeoutError:
                raise HTTPException(408, f"not received in {UPLOAD_SECONDS:g} seconds") from None
            content = b"".join(chunks)
            chunks.clear()
            yield content
        finally:
            self.held -= size

    async def pixels(self, photo: str, content: bytes) -> numpy.ndarray:
        """Prepare the pixels of an uploaded photo or a sample."""
        encoder = self.captioner.encoder
        loop = asyncio.get_running_loop()
        if content:
            return await loop.run_in_executor(self._readers, prepare_upload, content, encoder)
        if not photo:
            raise HTTPException(400, "no photo: send its bytes as the body of the request")
        opened = self.sample(photo.removeprefix("sample-"))
        return await loop.run_in_executor(
            self._readers, lambda: encoder.pixels(opened.open(), MAX_PIXELS)
        )

    def sample(self, number: str) -> Sample:
        """Return a sample by its number."""
        if not (number.isascii() and number.isdecimal() and len(number) < 5):
            raise HTTPException(404, "this photo is not known any more: send it again")
        if int(number) >= len(self.samples):
            raise HTTPException(404, f"there are {len(self.samples)} sample photos")
        return self.samples[int(number)]

    async def thumbnail(self, request: HTTPRequest) -> Response:
        """Send a sample photo, small."""
        found = self.sample(request.path_params["number"])
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._readers, found.thumbnail)
        return Response(content, headers={"Cache-Control": "max-age=600"}, media_type="image/jpeg")

    async def about(self, request: HTTPRequest) -> Response:
        """Describe the model, the defaults and the samples."""
        model = self.captioner.models[0]
        encoder = model.encoder or {}
        return JSONResponse(
            {
                "version": __version__,
                "encoder": encoder.get("name", "unknown"),
                "features": self.captioner.encoder.feature_size,
                "words": len(model.vocabulary),
                "cells": model.decoder.config.hidden_size,
                "space": join(["", ""], model.vocabulary.tokenizer),
                "cropped": self.captioner.encoder.preprocessing.startswith("crop"),
                "warning": self.captioner.warning,
                "generation": asdict(BEAM),
                "samples": [
                    {"id": f"sample-{number}", "name": sample.name}
                    for number, sample in enumerate(self.samples)
                ],
            }
        )

    async def health(self, request: HTTPRequest) -> Response:
        """Say that the server is up, and how busy it is."""
        return JSONResponse({"status": "ok", "unfinished": self.batcher.unfinished})


def without_dashes(message: str) -> str:
    """Write options as the API calls them: --beam-size is beam_size."""
    return re.sub(r"--([a-z-]+)", lambda found: found[1].replace("-", "_"), message)


def application(lab: Lab, names: Collection[str] = ()) -> Starlette:
    """Make the application.

    Args:
        lab: handles the requests.
        names: host names by which the server may be called, besides localhost and IP addresses.
    """
    document = openapi()

    def file(name: str, kind: str) -> Response:
        return Response((PAGE / name).read_bytes(), media_type=kind)

    pages = {path: file(*described) for path, described in FILES.items()}
    routes = [
        Route("/api/caption", lab.caption, methods=["POST"]),
        Route("/api/about", lab.about),
        Route("/api/openapi.json", lambda request: JSONResponse(document)),
        Route("/samples/{number}.jpg", lab.thumbnail),
        Route("/health", lab.health),
        *(Route(path, lambda request: pages[request.url.path]) for path in pages),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, names=names)],
        exception_handlers={
            HTTPException: lambda request, e: error(e.status_code, e.detail, **(e.headers or {})),
            UnusableImage: lambda request, e: error(422, str(e)),
            UserError: lambda request, e: error(400, without_dashes(str(e))),
            Busy: lambda request, e: error(429, str(e), **RETRY),
            ClientDisconnect: lambda request, e: error(400, "the client went away"),
            Exception: lambda request, e: error(500, "internal error; the server's log has more"),
        },
        lifespan=lab.lifespan,
    )
