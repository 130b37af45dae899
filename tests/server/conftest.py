"""A lab with a tiny model, without a network."""

import importlib.util
import io

import numpy
import pytest
from PIL import Image

NEEDED = "starlette", "uvicorn", "httpx", "jsonschema", "onnx", "onnxruntime"
# Without the extras `serve`, `test` and `cpu`, there is nothing to test here.
collect_ignore_glob = [] if all(map(importlib.util.find_spec, NEEDED)) else ["test_*.py"]


@pytest.fixture(scope="session")
def captioner(tmp_path_factory):
    from minicap.captioner import Captioner
    from minicap.encoder.session import Encoder
    from tests.test_caption import save_encoder
    from tests.tiny import model

    encoder = Encoder(save_encoder(tmp_path_factory.mktemp("encoder") / "encoder.onnx"))
    return Captioner([model(encoder.about())], encoder)


@pytest.fixture
def lab(captioner):
    from minicap.server.app import Lab
    from minicap.server.samples import drawn_samples

    return Lab(captioner, drawn_samples(2))


def picture(colour, size=(40, 30), kind="PNG"):
    """An image file of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def noise(seed=0, size=(90, 120)):
    """A JPEG of random pixels."""
    out = io.BytesIO()
    rng = numpy.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype="uint8")).save(out, "JPEG")
    return out.getvalue()


class Client:
    """Sends requests to the application in this process."""

    def __init__(self, lab):
        from minicap.server.app import application

        self.app, self.lab = application(lab, ["lab.example"]), lab

    async def __aenter__(self):
        import httpx

        self.running = self.lab.lifespan(self.app)
        await self.running.__aenter__()
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")
        return self.http

    async def __aexit__(self, *error):
        await self.http.aclose()
        await self.running.__aexit__(*error)


@pytest.fixture
def client(lab):
    return Client(lab)
