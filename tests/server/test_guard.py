"""Requests that other web sites cause are refused; slow ones end; headers are added."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from minicap.server.guard import HEADERS, Guard


async def quick(request):
    return PlainTextResponse("ok")


async def slow(request):
    await asyncio.sleep(30)


APP = Starlette(routes=[Route("/", quick, methods=["GET", "POST"]), Route("/slow", slow)])


def send(method="GET", path="/", seconds=5.0, **headers):
    async def main():
        transport = httpx.ASGITransport(Guard(APP, ["lab.example"], seconds))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "[::1]",
     "192.168.0.7:8000", "lab.example:8000"],
)  # fmt: skip
def test_our_own_names(host):
    assert send(host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "",
     "127.0.0.1:8000:1", "localhost:http", "127.0.0.1@evil.example", "[::1].evil.example"],
)  # fmt: skip
def test_names_that_a_site_could_point_at_this_machine(host):
    answer = send(host=host)
    assert answer.status_code == 403 and "is not this server's" in answer.json()["error"]


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:9", "https://127.0.0.1", "http://localhost"],
)
def test_other_origins(origin):
    answer = send("POST", host="127.0.0.1", origin=origin)
    assert answer.status_code == 403 and "open this server's own page" in answer.json()["error"]


def test_our_own_origin():
    headers = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
    assert send("POST", **headers, **{"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_links_from_other_sites_work_and_embedding_does_not(site):
    headers = {"sec-fetch-site": site}
    assert send(**headers, **{"sec-fetch-mode": "navigate"}).status_code == 200
    assert send(**headers, **{"sec-fetch-mode": "no-cors"}).status_code == 403


def test_every_answer_has_the_security_headers():
    for answer in send(), send(host="evil.example"), send(path="/nothing"):
        assert all(answer.headers[name] == value for name, value in HEADERS.items())
        assert answer.headers["cache-control"] == "no-store"
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_a_slow_answer_ends_at_the_time_limit():
    answer = send(path="/slow", seconds=0.1)
    assert answer.status_code == 504 and "within 0.1 seconds" in answer.json()["error"]
