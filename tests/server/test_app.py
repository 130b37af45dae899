"""The API, request by request, without a network."""

import asyncio
import json

import jsonschema
import pytest

from minicap.server import app as module
from minicap.server.batcher import Busy
from minicap.server.openapi import ABOUT, openapi
from minicap.server.question import OPTIONS
from tests.server.conftest import noise, picture


def run(client, scenario):
    async def main():
        async with client as http:
            return await asyncio.wait_for(scenario(http), 30)

    return asyncio.run(main())


def check(answer, schema):
    """The answer fits its schema in the API's description."""
    document = openapi()
    reference = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.validate(answer, reference)


def test_a_caption_with_everything(client, captioner):
    query = {"beam_size": 4, "count": 3, "tree": "true", "cells": "auto", "candidates": 5}

    async def scenario(http):
        return await http.post("/api/caption", content=noise(), params=query)

    response = run(client, scenario)
    answer = response.json()
    assert response.status_code == 200, answer
    check(answer, "Answer")
    assert len(answer["captions"]) == 3 and answer["tree"] and len(answer["cells"]) == 6
    assert {len(some) for some in answer["candidates"]} == {5}
    assert answer["captions"][0]["doubt"] == ""


def test_a_photo_is_known_by_its_id_and_another_word_continues(client, monkeypatch):
    async def scenario(http):
        first = (await http.post("/api/caption", content=noise())).json()
        monkeypatch.setattr(module, "prepare_upload", None)  # nothing is decoded again
        again = (await http.post("/api/caption", params={"photo": first["photo"]})).json()
        more = {"photo": first["photo"], "prefix": "blue dog"}
        forced = (await http.post("/api/caption", params=more)).json()
        unknown = await http.post("/api/caption", params={"photo": "0" * 64})
        return first, again, forced, unknown

    first, again, forced, unknown = run(client, scenario)
    assert again == first
    assert forced["captions"][0]["tokens"][:2] == ["blue", "dog"]
    assert unknown.status_code == 404 and "send it again" in unknown.json()["error"]


def test_only_so_many_photos_are_remembered(client, lab, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 2)

    async def scenario(http):
        return [
            (await http.post("/api/caption", content=picture(colour))).json()["photo"]
            for colour in ("red", "green", "red", "blue")
        ]

    red, _, _, blue = run(client, scenario)
    assert [*lab.features] == [red, blue]


def test_concurrent_requests_share_batches(client, lab):
    sizes, answer = [], lab.batcher._answer

    def counted(jobs):
        sizes.append(len(jobs))
        return answer(jobs)

    lab.batcher._answer = counted

    async def scenario(http):
        sent = (http.post("/api/caption", content=noise(n)) for n in range(20))
        return [response.json() for response in await asyncio.gather(*sent)]

    answers = run(client, scenario)
    assert sum(sizes) == 20 and max(sizes) > 1
    assert len({answer["photo"] for answer in answers}) == 20


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"params": {"beam_size": "many"}, "content": noise()}),
        (400, {"params": {"prefix": "nonsense"}, "content": noise()}),
        (400, {"params": {"top_k": "3"}, "content": noise()}),
        (400, {"params": {"cells": "8"}, "content": noise()}),
        (400, {}),
        (404, {"params": {"photo": "sample-2"}}),
        (404, {"params": {"photo": "../../etc/passwd"}}),
        (404, {"params": {"photo": "sample-²"}}),
        (413, {"content": bytes(module.MAX_BYTES + 1)}),
        (415, {"files": {"photo": noise()}}),
        (422, {"content": b"nonsense"}),
        (422, {"content": noise()[:1000]}),
    ],
)
def test_errors_are_json(client, status, request_):
    async def scenario(http):
        return await http.post("/api/caption", **request_)

    response = run(client, scenario)
    assert response.status_code == status
    check(response.json(), "Error")
    message = response.json()["error"].replace("curl --data-binary", "")
    assert "--" not in message and "\n" not in message, "options are named as the API calls them"
    assert str(status) in openapi()["paths"]["/api/caption"]["post"]["responses"]


def test_a_body_without_a_length_is_limited_too(client, lab, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)

    async def endless():
        while True:
            yield bytes(300)

    async def scenario(http):
        return await http.post("/api/caption", content=endless())

    assert run(client, scenario).status_code == 413
    assert lab.held == 0


def test_a_slow_body_ends(client, lab, monkeypatch):
    monkeypatch.setattr(module, "UPLOAD_SECONDS", 0.1)

    async def slow():
        yield b"\xff\xd8"
        await asyncio.sleep(20)

    class Stream:
        async def stream(self):
            async for chunk in slow():
                yield chunk

        headers = {}

    async def scenario(http):
        with pytest.raises(module.HTTPException) as caught:
            async with lab.upload(Stream()):
                pytest.fail("the upload did not end")
        return caught.value

    assert run(client, scenario).status_code == 408
    assert lab.held == 0


def test_uploads_share_a_limit(client, lab):
    lab.held = module.ALL_UPLOADS

    async def scenario(http):
        return await http.post("/api/caption", content=noise())

    response = run(client, scenario)
    assert response.status_code == 429 and response.headers["retry-after"]
    assert lab.held == module.ALL_UPLOADS


def test_photos_that_wait_to_be_decoded_count_as_uploads(client, lab, monkeypatch):
    seen = []

    def slow(content, encoder):
        seen.append(lab.held)
        raise module.UnusableImage("photo", "refused")

    monkeypatch.setattr(module, "prepare_upload", slow)

    async def scenario(http):
        return await http.post("/api/caption", content=noise())

    assert run(client, scenario).status_code == 422
    assert seen == [len(noise())] and lab.held == 0


def test_a_full_queue_answers_429_before_it_reads_the_photo(client, lab, monkeypatch):
    def full():
        raise Busy("128 requests are waiting; try again in a few seconds")

    monkeypatch.setattr(lab.batcher, "check_room", full)
    monkeypatch.setattr(lab, "upload", None)

    async def scenario(http):
        return await http.post("/api/caption", content=noise())

    response = run(client, scenario)
    assert response.status_code == 429 and response.headers["retry-after"]
    check(response.json(), "Error")


def test_a_bug_is_a_json_error_without_details(client, lab, monkeypatch):
    monkeypatch.setattr(module, "prepare_upload", lambda *a: 1 / 0)

    async def scenario(http):
        return await http.post("/api/caption", content=noise())

    response = run(client, scenario)
    assert response.status_code == 500 and "division" not in response.text
    check(response.json(), "Error")


def test_samples(client):
    async def scenario(http):
        about = (await http.get("/api/about")).json()
        images = [await http.get(f"/samples/{n}.jpg") for n in (0, 1, 2)]
        caption = await http.post("/api/caption", params={"photo": about["samples"][1]["id"]})
        return about, images, caption.json()

    about, images, answer = run(client, scenario)
    check(about, "About")
    assert [image.status_code for image in images] == [200, 200, 404]
    assert images[0].headers["content-type"] == "image/jpeg"
    assert answer["photo"] == "sample-1" and answer["captions"][0]["tokens"]


def test_the_page_asks_for_nothing_outside(client):
    async def scenario(http):
        names = "/", "/lab.css", "/lab.js", "/icon.svg"
        return [await http.get(name) for name in names]

    for response in run(client, scenario):
        assert response.status_code == 200
        text = response.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "eval(" not in text
        assert "innerHTML" not in text and " style=" not in text and "onclick=" not in text


def test_health_and_unknown_pages(client):
    async def scenario(http):
        return await http.get("/health"), await http.get("/../setup.cfg"), await http.get("/x")

    health, outside, unknown = run(client, scenario)
    check(health.json(), "Health")
    assert outside.status_code == unknown.status_code == 404
    check(unknown.json(), "Error")


def test_other_sites_are_refused(client):
    async def scenario(http):
        headers = {"origin": "http://evil.example"}
        return await http.post("/api/caption", content=noise(), headers=headers)

    assert run(client, scenario).status_code == 403


def test_the_description_is_valid_and_complete(client):
    async def scenario(http):
        return (await http.get("/api/openapi.json")).json()

    document = run(client, scenario)
    assert document == json.loads(json.dumps(openapi()))
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = {each["name"] for each in document["paths"]["/api/caption"]["post"]["parameters"]}
    assert names == {*OPTIONS, "photo"} and ABOUT.keys() == OPTIONS.keys()
