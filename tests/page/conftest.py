"""A real Chromium, the real gateway, and the stand-in engine of known pace behind it."""

import shutil
from collections.abc import Iterator

import pytest

from tests.bench.serving import servers

FLAGS = [
    "--no-sandbox",  # containers have no user namespaces to make one from
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """The system's browser. For a module only: while it is open, asyncio.run does not work in this thread."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: install the package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test does that")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[servers.Server]:
    with servers.bare() as server:
        yield server


@pytest.fixture(scope="session")
def feedback(tmp_path_factory):
    """Where feedback is kept."""
    return tmp_path_factory.mktemp("feedback")


@pytest.fixture(scope="session")
def gateway(engine, feedback) -> Iterator[servers.Server]:
    """Without keys; `chat` has a champion and a challenger, `plain` only one variant."""
    config = servers.routes([engine.url])
    config["models"]["chat"]["variants"].append({"name": "challenger", "backend": "engine", "weight": 0})
    config["models"]["plain"] = {"variants": [{"name": "only", "backend": "engine"}]}
    with servers.gateway(config | {"feedback": {"address": str(feedback)}}) as server:
        yield server


class Visit:
    """One tab on the page, and everything that a console, a policy or a network would complain of."""

    def __init__(self, browser, url: str, **options) -> None:
        self.context = browser.new_context(viewport={"width": 1000, "height": 900}, **options)
        self.context.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.context.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective))"
        )
        self.page = self.context.new_page()
        self.page.on("console", lambda message: message.type in ("error", "warning") and self._complain(message.text))
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("#model option, #error:not(:empty)", state="attached")

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def ask(self, text: str) -> None:
        self.page.fill("#prompt", text)
        self.page.press("#prompt", "Enter")

    def answered(self, count: int = 1) -> list[str]:
        """The texts of the last answers, once nothing is being written any more."""
        self.page.wait_for_selector("#send", state="visible")
        return [one.text_content() for one in self.page.query_selector_all(".answer .text")][-count:]

    def shows(self, selector: str, text: str) -> None:
        """Waits until it contains the text. (`wait_for_function` would need what the page's policy forbids: eval.)"""
        self.page.locator(selector, has_text=text).wait_for()

    def text(self, selector: str) -> str:
        return self.page.text_content(selector).strip()


@pytest.fixture
def visit(chromium, gateway):
    """Opens the page; at the end nothing must have been complained of, and nothing asked of anybody else."""
    visits: list[Visit] = []

    def opened(url: str = gateway.url, **options) -> Visit:
        visits.append(Visit(chromium, url, **{"locale": "en-US", **options}))
        return visits[-1]

    yield opened
    for one in visits:
        one.context.close()
        assert one.complaints == []
        assert [address for address in one.addresses if not address.startswith("http://127.0.0.1")] == []
