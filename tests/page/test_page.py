"""The chat page as its readers have it: with mouse, keyboard and input method, in two languages, and with bad luck."""

import json
import re
import time
import urllib.request
from datetime import UTC, datetime, timedelta

import yaml

from jobs.serving.gateway.keys import Keys
from tests.bench.serving import servers
from tests.bench.serving.engine import counted, order
from tests.bench.serving.servers import ROOT

PAGE = ROOT / "jobs/serving/gateway/page"
LONG = order(tokens=2000, pace_ms=20)


def test_an_answer_appears_as_it_is_written(visit):
    tab = visit()
    tab.ask(order(tokens=60, pace_ms=20))
    tab.shows(".answer .text", "햇살1")
    partly = tab.text(".answer .text")
    assert tab.page.is_visible("#stop") and not tab.page.is_visible("#send")
    assert tab.answered() == [counted(60)]
    assert counted(60).startswith(partly) and len(partly) < len(counted(60)) / 2
    assert tab.text(".answer .who") == "champion"
    first, rate, tokens = re.fullmatch(
        r"First word after (\d+) ms · ([\d.]+) tokens/s · (\d+) tokens", tab.text(".answer .figures")
    ).groups()
    assert 20 <= int(first) < 5000 and 5 < float(rate) <= 50 and tokens == "60"
    assert tab.text("#status") == f"Answer finished: {counted(60)}".strip()
    assert tab.page.evaluate("document.activeElement.id") == "prompt"


def test_enter_that_ends_a_hangul_syllable_does_not_send(visit):
    tab = visit()
    tab.page.focus("#prompt")
    keyboard = tab.context.new_cdp_session(tab.page)
    keyboard.send("Input.imeSetComposition", {"text": "햇", "selectionStart": 1, "selectionEnd": 1})
    composing = {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
    press = "given => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', given))"
    assert tab.page.evaluate(press, composing)
    keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    keyboard.send("Input.insertText", {"text": "햇살"})
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.type("line")
    assert tab.page.query_selector(".turn") is None
    assert tab.page.input_value("#prompt") == "햇살\nline"
    tab.page.keyboard.press("Enter")
    assert tab.answered() == ["햇살\nline"]
    assert tab.text(".said .text") == "햇살\nline"


def test_stop_ends_the_answer_here_and_at_the_engine(visit, gateway):
    def gone() -> float:
        metrics = urllib.request.urlopen(f"{gateway.url}/metrics").read().decode()
        left = re.findall(r'^haetsal_gateway_requests_total\{.*status="499".*\} (\S+)$', metrics, re.M)
        return sum(map(float, left))

    before = gone()
    tab = visit()
    tab.page.fill("#prompt", LONG)
    tab.page.focus("#send")
    tab.page.keyboard.press("Enter")
    tab.shows(".answer .text", "햇살3")
    assert tab.page.evaluate("document.activeElement.id") == "stop"
    tab.page.keyboard.press("Enter")
    (text,) = tab.answered()
    assert counted(2000).startswith(text) and text.count("햇살") < 1000
    assert tab.text(".answer .trouble").startswith("Stopped")
    assert tab.page.evaluate("document.activeElement.id") == "prompt"
    deadline_s = time.monotonic() + 10
    while gone() == before:
        assert time.monotonic() < deadline_s, "the gateway still works for a reader who stopped"
    tab.ask("and on")
    assert tab.answered() == ["and on"]


def test_champion_and_challenger_side_by_side(visit):
    tab = visit()
    asked = []
    tab.page.on("request", lambda request: request.method == "POST" and asked.append(request))
    tab.page.check("#compare")
    tab.ask("둘 다")
    assert tab.answered(2) == ["둘 다", "둘 다"]
    assert [one.text_content() for one in tab.page.query_selector_all(".answer .who")] == ["champion", "challenger"]
    boxes = [one.bounding_box() for one in tab.page.query_selector_all(".answer")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    tab.ask("again")
    tab.answered(2)
    assert [one.headers["x-haetsal-variant"] for one in asked] == ["champion", "challenger"] * 2
    bodies = [json.loads(one.post_data) for one in asked]
    assert [m["content"] for m in bodies[2]["messages"]] == ["둘 다", "둘 다", "again"]
    assert len({body["user"] for body in bodies}) == 1
    tab.page.select_option("#model", "plain")
    assert tab.page.is_disabled("#compare") and not tab.page.is_checked("#compare")


def test_feedback_reaches_the_gateway(visit, feedback):
    tab = visit()
    tab.ask("hello")
    tab.answered()
    tab.page.click(".feedback button[type=submit]")
    assert tab.text(".thanks") == "Choose a thumb or a score, or write a comment."
    tab.page.click(".thumb[value=down]")
    tab.page.click(".thumb[value=up]")
    assert [one.get_attribute("aria-pressed") for one in tab.page.query_selector_all(".thumb")] == ["true", "false"]
    tab.page.select_option(".score", "4")
    tab.page.fill(".comment", "정확해요")
    before = set(feedback.rglob("*.json"))
    tab.page.press(".comment", "Enter")
    tab.shows(".thanks", "Thank you")
    (file,) = set(feedback.rglob("*.json")) - before
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert (kept["thumb"], kept["score"], kept["comment"], kept["variant"]) == ("up", 4, "정확해요", "champion")


def test_korean_and_english(visit):
    tab = visit(locale="ko-KR")
    assert tab.text("#send") == "보내기" and tab.page.get_attribute("html", "lang") == "ko"
    tab.ask("안녕")
    tab.answered()
    assert "초당" in tab.text(".answer .figures")
    tab.page.click("#language")
    assert tab.text("#send") == "Send" and tab.page.get_attribute("html", "lang") == "en"
    assert "tokens/s" in tab.text(".answer .figures") and tab.text(".said .who") == "You"
    assert tab.page.get_attribute(".thumb", "aria-label") == "Good answer"
    tab.page.reload()
    assert tab.text("#send") == "Send"


def test_every_word_is_there_in_both_languages():
    source = (PAGE / "words.js").read_text(encoding="utf-8")
    english, korean = (re.search(rf"const {name} = {{(.*?)\n}};", source, re.S)[1] for name in ("en", "ko"))
    entry = re.compile(r'^  (\w+): "(.*)",$', re.M)
    english, korean = dict(entry.findall(english)), dict(entry.findall(korean))
    assert english.keys() == korean.keys() and all(english.values())
    for word, text in english.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", korean[word])), word
        assert re.search("[가-힣]", korean[word]), word
    used = "".join(file.read_text(encoding="utf-8") for file in PAGE.iterdir() if file.name != "words.js")
    for word in re.findall(r'data-(?:text|label|placeholder)="(\w+)"', used) + re.findall(r'Trouble\("(\w+)"', used):
        assert word in english, word


def test_what_a_model_says_is_never_markup(visit):
    tab = visit()
    evil = """<img src=x onerror="hacked=1"><script>hacked=1</script><a href="javascript:hacked=1">x</a>&amp;"""
    tab.ask(evil)
    assert tab.answered() == [evil]
    assert tab.text(".said .text") == evil
    assert tab.page.query_selector("#turns :is(img, script, a)") is None
    assert tab.page.evaluate("window.hacked") is None


def test_an_api_key_stays_in_memory_unless_asked(visit, engine, tmp_path):
    keys, key = Keys().with_new("reader", datetime.now(UTC), timedelta())
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump(keys.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    with servers.gateway(servers.routes([engine.url]) | {"keys_file": str(file)}) as closed:
        tab = visit(closed.url)
        assert tab.text("#error") == "This server asks for an API key. Enter it above."
        tab.page.fill("#key", "hs-reader.wrong")
        tab.page.press("#key", "Tab")
        tab.shows("#error", "does not accept")
        tab.page.fill("#key", "열쇠")
        tab.page.press("#key", "Tab")
        tab.shows("#error", "Latin letters")
        tab.page.fill("#key", key)
        tab.page.press("#key", "Tab")
        tab.page.wait_for_selector("#model option", state="attached")
        assert tab.text("#error") == ""
        tab.ask("hello")
        assert tab.answered() == ["hello"]
        stored = "() => JSON.stringify([Object.values(localStorage), Object.values(sessionStorage), document.cookie])"
        assert key not in tab.page.evaluate(stored)
        tab.page.check("#remember")
        assert tab.page.evaluate("sessionStorage.getItem('key')") == key
        assert tab.page.evaluate("localStorage.length") == 0
        tab.page.reload()
        tab.page.wait_for_selector("#model option", state="attached")
        tab.page.uncheck("#remember")
        assert key not in tab.page.evaluate(stored)
        # The browser itself notes each 401.
        assert len(tab.complaints) == 2 and all("401" in one for one in tab.complaints)
        tab.complaints.clear()


def test_troubles_are_told_in_words(visit):
    with servers.bare() as engine:
        config = servers.routes([engine.url]) | {"timeouts": {"first_byte_s": 10}, "limits": {"prompt_chars": 20_000}}
        with servers.gateway(config) as gateway:
            tab = visit(gateway.url)
            tab.ask(LONG)
            tab.shows(".answer .text", "햇살3")
            engine.process.kill()
            (text,) = tab.answered()
            assert counted(2000).startswith(text) and "broke off" in tab.text(".answer .trouble")
            tab.ask("hello")
            tab.answered()
            assert "not available at the moment" in tab.text(".turn:last-child .trouble")
            tab.page.click("#new")
            tab.ask("x" * 20_001)
            tab.answered()
            assert tab.text(".trouble").startswith("The server refused: ")
            gateway.process.kill()
            gateway.process.wait()
            tab.ask("hello")
            tab.answered()
            assert "cannot be reached" in tab.text(".turn:last-child .trouble")
            tab.page.click("#language")
            assert "연결할 수 없습니다" in tab.text(".turn:last-child .trouble")
            assert all(re.search("503|400|ERR_CONNECTION_REFUSED", one) for one in tab.complaints)
            tab.complaints.clear()


def test_the_page_is_small_and_its_own():
    files = list(PAGE.iterdir())
    assert sum(file.stat().st_size for file in files) < 50_000
    for file in files:
        outside = re.findall(r"https?://[^\"' )]+", file.read_text(encoding="utf-8"))
        assert set(outside) <= {"http://www.w3.org/2000/svg"}, file.name
