"""Whether the page can be used without a mouse, without eyes, with weak eyes, and without motion."""

import pytest

from tests.bench.serving.engine import order

CONTROLS = {"button", "textbox", "combobox", "checkbox", "link", "group", "article"}

CONTRASTS = """
() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, under) => ({
    r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a),
    b: top.b * top.a + under.b * (1 - top.a), a: 1,
  });
  const ground = (element) => {
    const own = parse(getComputedStyle(element).backgroundColor);
    if (own.a === 1) return own;
    return over(own, element.parentElement ? ground(element.parentElement) : { r: 255, g: 255, b: 255 });
  };
  const luminance = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest("svg, template, .hidden") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const field = element.matches("input:not([type=checkbox]), textarea, select, button");
    const written = field || [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
    const name = `${element.tagName}#${element.id}.${element.className}`;
    const under = ground(element);
    if (written) found.push([name, "text", ratio(over(parse(style.color), under), under), 4.5]);
    if (field) found.push([name, "border", ratio(parse(style.borderTopColor), ground(element.parentElement)), 3]);
  }
  return found;
}
"""


@pytest.fixture
def answered(visit):
    """A tab with an answer, its feedback form and an error."""

    def opened(**options):
        tab = visit(**options)
        tab.ask("hello there")
        tab.answered()
        tab.page.click(".thumb[value=up]")
        tab.page.evaluate(
            "document.querySelector('.trouble').textContent = document.querySelector('#error').textContent = 'x'"
        )
        return tab

    return opened


def test_every_control_has_a_name(answered):
    tab = answered()
    nodes = tab.context.new_cdp_session(tab.page).send("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in CONTROLS
    ]
    assert len(named) > 15 and [role for role, name in named if not name.strip()] == []
    roles = {node["role"]["value"] for node in nodes if "role" in node}
    assert {"main", "banner", "status", "alert", "heading"} <= roles


def test_the_keyboard_reaches_everything_in_order(answered):
    tab = answered()
    tab.page.evaluate("document.activeElement.blur()")
    tab.page.evaluate("scrollTo(0, 0)")
    order_of_focus = []
    describe = "(e => e.id || e.value || e.className || e.type)(document.activeElement)"
    tab.page.focus(".skip")
    for _ in range(30):
        order_of_focus.append(tab.page.evaluate(describe))
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement === document.body"):
            break
    for passed in ("log",):  # Chromium lets the keyboard scroll what can be scrolled
        if passed in order_of_focus:
            order_of_focus.remove(passed)
    assert order_of_focus == [
        *("skip", "new", "language", "model", "key", "remember", "compare"),
        *("up", "down", "score", "comment", "submit", "prompt", "send"),
    ]
    tab.page.focus(".skip")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate(outline) == "solid"
    tab.page.focus(".skip")
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "prompt"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(answered, scheme):
    tab = answered(color_scheme=scheme)
    found = tab.page.evaluate(CONTRASTS)
    assert len(found) > 25
    assert [(name, kind, round(ratio, 2)) for name, kind, ratio, least in found if ratio < least] == []


def test_nothing_moves_for_who_asked_for_that(visit):
    running = "document.getAnimations({subtree: true}).length"
    for wish, expected in (("no-preference", 1), ("reduce", 0)):
        tab = visit(reduced_motion=wish)
        tab.ask(order(tokens=500, pace_ms=20))
        tab.page.wait_for_selector(".answer.busy")
        assert tab.page.evaluate(running) == expected
        tab.page.click("#stop")


def test_a_narrow_window_needs_no_sideways_scrolling(answered):
    tab = answered()
    tab.page.set_viewport_size({"width": 320, "height": 640})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 320
