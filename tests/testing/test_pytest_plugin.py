"""The pytest plugin and the examples, run as a user would: in a project of their own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scamp.testing.mock_mesh

CONFTEST = 'pytest_plugins = ["scamp.testing.pytest_plugin"]\n'

CLIENT_TEST = """
import pytest
from scamp import ServiceError

async def total(requester, skus):
    prices = []
    for sku in skus:
        async with await requester.request("Product.Price.fetch", b'{{"sku":"%s"}}' % sku) as reply:
            prices.append((await reply.json())["price"])
    return sum(prices)

{mark}
async def test_prices_are_added_up(scamp_mesh):
    scamp_mesh.action("Product.Price.fetch", flags="read", returns={{"price": 7}})
    assert await total(scamp_mesh.requester, [b"a", b"b"]) == 14
    assert [call.json["sku"] for call in scamp_mesh.calls("Product.Price.fetch")] == ["a", "b"]
    assert scamp_mesh.unexpected == []

{mark}
async def test_each_test_has_a_mesh_of_its_own(scamp_mesh):
    assert scamp_mesh.calls() == []
    scamp_mesh.action("Product.Price.fetch", raises=ServiceError("gone"))
    with pytest.raises(ServiceError, match="gone"):
        await scamp_mesh.call("Product.Price.fetch")

{mark}
async def test_a_service(scamp_mesh, scamp_identity):
    from scamp import Service
    service = Service("shop", key=scamp_identity.key, certificate=scamp_identity.certificate)

    @service.action("Shop.echo", flags="noauth")
    async def echo(request):
        return await request.json()

    await scamp_mesh.serve(service)
    assert await scamp_mesh.call("Shop.echo", [1]) == [1]
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process and folder of its own, with warnings as errors and no other plugins."""
    environ = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [
            sys.executable,
            *("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", folder),
            *("-o", "asyncio_default_fixture_loop_scope=function"),
            *arguments,
        ],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        ("", ("-o", "asyncio_mode=auto")),
        ("@pytest.mark.asyncio", ("-o", "asyncio_mode=strict")),
        ("", ("-o", "asyncio_mode=auto", "-p", "no:aiohttp")),
    ],
    ids=["auto", "strict", "without pytest-aiohttp"],
)
def test_the_fixtures_work_in_a_project_of_their_own(
    tmp_path: Path, mark: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_client.py").write_text(CLIENT_TEST.format(mark=mark))
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_examples_in_the_docstring_run(tmp_path: Path) -> None:
    """Both, word for word, around what they leave to the user."""
    text = scamp.testing.mock_mesh.__doc__ or ""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    assert len(blocks) == 2
    code = "\n".join(line[4:] for block in blocks for line in block.split("\n"))
    tests = [n.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.AsyncFunctionDef)]
    assert len(tests) == 2
    (tmp_path / "test_examples.py").write_text(
        "import orjson, pytest\n"
        "from scamp import Requester, Service, ServiceError\n"
        "from scamp.testing import (\n"
        "    MockMesh, ServiceHarness, make_identity, make_ticket, make_verifier)\n"
        "async def total(requester, skus):\n"
        "    found = 0\n"
        "    for sku in skus:\n"
        "        body = orjson.dumps({'sku': sku})\n"
        "        async with await requester.request('Product.Price.fetch', body) as reply:\n"
        "            found += (await reply.json())['price']\n"
        "    return found\n"
        "def make_service():\n"
        "    keys = make_identity()\n"
        "    service = Service('shop', key=keys.key, certificate=keys.certificate,\n"
        "                      ticket_verifier=make_verifier())\n"
        "    @service.action('Product.Sku.fetch')\n"
        "    async def fetch(request):\n"
        "        raise ServiceError('not_found', (await request.json())['sku'])\n"
        "    return service\n" + code
    )
    done = run(tmp_path, "-o", "asyncio_mode=auto")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_without_pytest_there_is_still_a_mesh() -> None:
    """Nothing but the plugin needs pytest; nor does importing the package load it."""
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['pytest_asyncio'] = None\n"
        "import scamp.testing\n"
        "assert scamp.testing.MockMesh"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
