"""Uses report.html as people do, in Chromium: opens it, clicks, types, drags, reviews, takes the review out and reads it back.

Each check is a function that fails by an assertion with what was found. Nothing is fetched from outside: a request for anything
but a file, data or a blob fails the run, and so does any error on the page's console.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

HOSTILE = [
    b'<script>"document.title=1".jpg', b'"><img src=x onerror=document.title=2>.jpg', b"=1+2.jpg", b"+a.jpg", b"-b.jpg",
    b"@c.jpg", b"'d.jpg", b'e,"f".jpg', b"new\nline.jpg", b" space.jpg", "ä & ö&amp;.jpg".encode(), b"no\xfftext.jpg",
]
# Small images are enough for the page, and quick.
SMALL = ["--img-resize", "112"]
MOST_BYTES = 20_000_000
MOST_MS = 50


class Browser:
    """Pages of one browser that watch for what must not happen."""

    def __init__(self, chromium):
        self.chromium = chromium
        self.faults = []

    def open(self, path, expect_faults=False, **options):
        options = {"viewport": {"width": 1360, "height": 1000}, "color_scheme": "light", **options}
        context = self.chromium.new_context(**options)
        page = context.new_page()
        faults = [] if expect_faults else self.faults
        page.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url.split(":")[0] in ("file", "data", "blob")
                else faults.append(f"request of {request.url}"))
        page.on("requestfailed", lambda request: faults.append(f"not loaded: {request.url[:200]}"))
        page.goto(Path(path).resolve().as_uri())
        return page

    def done(self):
        assert not self.faults, self.faults


def wait(page, condition):
    """Until a condition holds. Playwright's own waiting is by `eval`, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def focused(page):
    """The chosen image: its name, or nothing."""
    return page.evaluate("document.activeElement.closest('.card')?.dataset.path ?? ''")


def state(page):
    """What the page says of itself."""
    return page.evaluate("""() => ({
        ng: +document.querySelector('#ng-count').textContent, ok: +document.querySelector('#ok-count').textContent,
        shown: [...document.querySelectorAll('.card')].filter((card) => !card.hidden).length,
        truth: document.querySelector('#truth-count').textContent, review: document.querySelector('#review-count').textContent,
        threshold: +document.querySelector('.threshold').getAttribute('aria-valuenow'),
    })""")


def opens_as_the_run_left_it(browser, report, scores):
    page = browser.open(report)
    rows = list(csv.DictReader(scores.open(encoding="utf-8", errors="replace", newline="")))
    found = state(page)
    assert found["ng"] == sum(row["decision"] == "NG" for row in rows), found
    assert found["ok"] == sum(row["decision"] == "OK" for row in rows), found
    # Worst first, and every picture there.
    ranks = page.eval_on_selector_all(".card", "cards => cards.map((card) => +card.dataset.rank)")
    assert ranks == list(range(1, len(rows) + 1)), ranks
    for row in rows:
        raw = page.evaluate("path => document.querySelector(`.card[data-path=${CSS.escape(JSON.stringify(path))}]`).dataset.raw",
                            row["path"])
        assert struct.pack("f", float(raw)) == struct.pack("f", float(row["raw_score"])), (row, raw)
    page.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    wait(page, "[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    heat = page.eval_on_selector(".card .heat", "image => ({ box: image.getBoundingClientRect().toJSON(), "
                                 "of: image.parentElement.querySelector('.picture').getBoundingClientRect().toJSON() })")
    assert all(abs(heat["box"][side] - heat["of"][side]) < 0.5 for side in ("x", "y", "width", "height")), heat
    assert page.eval_on_selector(".card .heat", "image => getComputedStyle(image).opacity") == "0.7"
    return page


def policy_holds(browser, report):
    """The policy is not only there: what it forbids does not happen."""
    page = browser.open(report, expect_faults=True)
    page.evaluate("""() => {
        window.seen = [];
        document.addEventListener('securitypolicyviolation', (event) => window.seen.push(event.effectiveDirective));
        const image = new Image();
        image.src = 'https://example.invalid/x.png';
        document.body.append(image);
        const frame = document.createElement('iframe');
        frame.src = 'data:text/html,x';
        document.body.append(frame);
        fetch('https://example.invalid/').catch(() => {});
        const styled = document.createElement('p');
        styled.setAttribute('style', 'color:red');
        document.body.append(styled);
        try { const script = document.createElement('script'); script.text = 'document.title = "harmed"'; document.body.append(script); }
        catch { window.seen.push('trusted types'); }
        try { document.body.setAttribute('onclick', 'document.title = "harmed"'); } catch { window.seen.push('trusted handlers'); }
    }""")
    page.click("body", position={"x": 5, "y": 500})
    page.wait_for_timeout(100)
    seen = page.evaluate("window.seen")
    for directive in ("img-src", "frame-src", "connect-src", "style-src-attr", "trusted types", "trusted handlers"):
        assert directive in seen, (directive, seen)
    assert "harmed" not in page.title(), page.title()


def threshold_moves(browser, report):
    page = browser.open(report)
    before = state(page)
    handle = page.locator(".threshold").first
    # By keys.
    page.keyboard.press("t")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    after = state(page)
    assert after["threshold"] > before["threshold"], (before, after)
    page.keyboard.press("Home")
    assert state(page)["ok"] == 0, state(page)
    page.keyboard.press("End")
    assert state(page)["ng"] == 0, state(page)
    assert page.locator(".card.ng").count() == 0
    # Back to the run's.
    page.click(".reset")
    assert state(page) == before, (before, state(page))
    assert page.locator(".reset").first.is_hidden()
    # By pointer: to the middle of the plot, and on with the button down.
    box = page.locator(".plot.scores").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.wait_for_timeout(60)
    middle = state(page)
    page.mouse.move(x + box["width"] / 4, y, steps=4)
    page.wait_for_timeout(60)
    right = state(page)
    page.mouse.up()
    page.mouse.move(x, y)
    page.wait_for_timeout(60)
    assert state(page) == right, "the pointer is up"
    assert right["threshold"] > middle["threshold"] and right["ng"] <= middle["ng"], (middle, right)
    raw = page.eval_on_selector_all(".card", "cards => cards.map((card) => [+card.dataset.raw, card.classList.contains('ng')])")
    assert all(ng == (score > right["threshold"]) for score, ng in raw), (right, raw)
    # The bars change colour where the handle stands.
    cut = page.eval_on_selector(".cut-ng", "rect => +rect.getAttribute('x')")
    assert handle.get_attribute("transform") == f"translate({cut:g} 0)" or str(cut) in handle.get_attribute("transform")
    # As a number.
    page.fill(".value", "1000000")
    page.keyboard.press("Tab")
    assert state(page)["ng"] == 0, state(page)
    assert "missed" in state(page)["truth"] or not state(page)["truth"], state(page)


def filters_and_order(browser, report):
    page = browser.open(report)
    whole = state(page)
    count = whole["ng"] + whole["ok"]
    for name, expected in (("ng", whole["ng"]), ("ok", whole["ok"]), ("unsure", 0), ("open", count), ("all", count)):
        page.click(f"[data-filter={name}]")
        assert state(page)["shown"] == expected, (name, state(page))
        assert page.get_attribute(f"[data-filter={name}]", "aria-pressed") == "true"
    page.keyboard.press("/")
    page.keyboard.type("_0003")
    assert 0 < state(page)["shown"] < count, state(page)
    page.keyboard.type("no such image")
    assert state(page)["shown"] == 0 and page.locator("#nothing").is_visible()
    page.fill("#find", "")
    for order, key in (("raw", "card => -card.dataset.raw"), ("name", "card => JSON.parse(card.dataset.path).toLowerCase()"),
                       ("rank", "card => +card.dataset.rank")):
        page.select_option("#sort", order)
        keys = page.eval_on_selector_all(".card", f"cards => cards.map({key})")
        assert keys == sorted(keys), (order, keys)


def classes_are_told_apart(browser, report):
    page = browser.open(report)
    whole = state(page)
    names = page.eval_on_selector_all("#class option", "options => options.map((option) => option.value)")
    assert names == ["", "0", "1"], names
    page.select_option("#class", "1")
    part = state(page)
    assert 0 < part["shown"] < whole["shown"], part
    assert page.locator(".histogram:visible").count() == 1
    page.select_option("#class", "")
    # A threshold is that of its class alone.
    page.locator(".value").nth(1).fill("0")
    page.keyboard.press("Tab")
    moved = page.eval_on_selector_all(".card:not(.ng)", "cards => cards.map((card) => card.dataset.class)")
    assert moved and set(moved) == {"0"}, set(moved)


def heat_and_outlines(browser, report):
    page = browser.open(report)
    opacity = "getComputedStyle(document.querySelector('.heat')).opacity"
    page.focus("#heat")
    page.keyboard.press("Home")
    assert page.evaluate(opacity) == "0"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(opacity) == "0.01"
    page.fill("#heat", "50")
    page.keyboard.press("h")
    assert page.evaluate(opacity) == "0"
    page.keyboard.press("h")
    assert page.evaluate(opacity) == "0.5"
    page.keyboard.press("]")
    assert page.evaluate(opacity) == "0.6"
    outline = page.locator(".ng .outlines").first
    assert outline.is_visible()
    box, frame = outline.bounding_box(), page.locator(".ng .stack").first.bounding_box()
    assert all(abs(box[side] - frame[side]) < 0.5 for side in box), (box, frame)
    page.keyboard.press("d")
    assert outline.is_hidden()


def large_view(browser, report):
    page = browser.open(report)
    page.locator(".card .frame").nth(1).click()
    assert page.locator("#large").is_visible()
    name = page.locator("#large-name").text_content()
    assert name == page.locator(".card .name").nth(1).text_content(), name
    box = page.locator("#large .picture").bounding_box()
    small = page.locator(".card .picture").nth(1).bounding_box()
    assert box["width"] > 1.5 * small["width"], (box, small)
    ratio = page.eval_on_selector("#large .picture", "image => image.naturalWidth / image.naturalHeight")
    assert abs(box["width"] / box["height"] / ratio - 1) < 0.02, (box, ratio)
    window = page.viewport_size
    assert box["x"] >= 0 and box["y"] + box["height"] <= window["height"], box
    page.keyboard.press("j")
    assert page.locator("#large-name").text_content() == page.locator(".card .name").nth(2).text_content()
    page.keyboard.press("n")
    assert page.locator("#large-name").text_content() == page.locator(".card .name").nth(3).text_content()
    page.click("#before")
    assert page.locator("#large [data-review=NG]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator("#large").is_hidden()
    # The event that a dialog has closed comes a little later.
    wait(page, "document.activeElement === document.querySelectorAll('.card')[2]")
    page.keyboard.press("Enter")
    assert page.locator("#large").is_visible()


def keys(browser, report):
    page = browser.open(report)
    order = page.eval_on_selector_all(".card", "cards => cards.map((card) => card.dataset.path)")
    page.keyboard.press("n")
    assert state(page)["review"] == "", "a review without an image"
    page.keyboard.press("j")
    assert focused(page) == order[0]
    page.keyboard.press("j")
    assert focused(page) == order[1]
    page.keyboard.press("k")
    assert focused(page) == order[0]
    page.keyboard.press("ArrowRight")
    assert focused(page) == order[1]
    page.keyboard.press("ArrowDown")
    row = page.evaluate("""() => { const top = (at) => document.querySelectorAll('.card')[at].offsetTop;
        let at = 0; while (top(at) === top(0)) at += 1; return at; }""")
    assert focused(page) == order[1 + row], row
    page.keyboard.press("ArrowUp")
    page.keyboard.press("o")
    assert focused(page) == order[2] and "1 reviewed" in state(page)["review"]
    page.keyboard.press("u")
    assert state(page)["review"] == "2 reviewed, 1 unsure", state(page)
    page.keyboard.press("k")
    page.keyboard.press("x")
    assert state(page)["review"] == "1 reviewed", state(page)
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden() and state(page)["review"] == "1 reviewed"
    # It lasts over a reload, and belongs to this page alone.
    page.reload()
    assert state(page)["review"] == "1 reviewed", state(page)
    assert page.locator(".card").nth(1).locator("[data-review=OK]").get_attribute("aria-pressed") == "true"


def nothing_is_kept_and_nothing_breaks(browser, report):
    """A browser that lets a page keep nothing."""
    context = browser.chromium.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: browser.faults.append(str(error)))
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })")
    page.goto(Path(report).resolve().as_uri())
    page.keyboard.press("j")
    page.keyboard.press("n")
    assert state(page)["review"] == "1 reviewed"


def review_goes_out_and_comes_back(browser, musc, folder, report, scores):
    page = browser.open(report)
    title = page.title()
    count = page.locator(".card").count()
    # By a pattern, paths are bare names, and begin as a formula does.
    assert count >= len(HOSTILE) - 1, count
    words = ["n", "o", "u"]
    page.keyboard.press("j")
    for at in range(count - 1):
        page.keyboard.press(words[at % 3])
    with page.expect_download() as waiting:
        page.click("#save")
    table = folder / "away" / "review.csv"
    table.parent.mkdir()
    waiting.value.save_as(table)
    assert waiting.value.suggested_filename == "review.csv"
    assert page.title() == title and page.locator("img[src=x]").count() == 0, "a name was taken for markup"
    rows = list(csv.DictReader(table.open(encoding="utf-8", newline="")))
    assert [list(rows[0])] == [["path", "label", "review"]] and len(rows) == count, rows
    for at, row in enumerate(rows):
        assert row["path"][0] not in "=+-@", row
        review = "" if at == count - 1 else {"n": "NG", "o": "OK", "u": "unsure"}[words[at % 3]]
        assert row["review"] == review and row["label"] == {"NG": "1", "OK": "0"}.get(review, ""), row
    assert sum(row["path"].startswith("'") for row in rows) == 5, rows
    done = musc(["*.jpg", "--output-dir", "../output", *SMALL, "--labels", str(table), "--overwrite"], "photos")
    assert "AUROC" in done.stdout, done.stdout
    labels = {row["path"]: row["label"] for row in csv.DictReader(scores.open(encoding="utf-8", errors="replace", newline=""))}
    assert len(labels) == count
    for row in rows:
        path = row["path"].removeprefix("'")
        assert labels[path] == row["label"], (row, labels)
    again = browser.open(report)
    assert again.locator(".figures").count() == 1 and "missed" in state(again)["truth"]


def accessible(browser, report):
    page = browser.open(report)
    names_of = {"button", "slider", "searchbox", "combobox", "spinbutton", "image", "link", "dialog", "article", "group", "region"}
    # A dialog that is open hides all else.
    for opened, least in ((None, 40), ("?", 2), ("z", 8)):
        if opened:
            page.keyboard.press("Escape")
            page.keyboard.press(opened)
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")]
        named = [entry for entry in seen if entry[0] in names_of]
        assert len(named) >= least, seen
        # A group of SVG is a group too, and says nothing by itself.
        assert all(name for role, name in named if role != "group"), [entry for entry in named if not entry[1]]
    page.keyboard.press("Escape")
    page = browser.open(report)
    # The way by Tab: the link past the controls first, every control once, and each place is seen.
    stops = []
    for _ in range(40):
        page.keyboard.press("Tab")
        stop = page.evaluate("""() => { const at = document.activeElement, style = getComputedStyle(at);
            const line = at.matches('.threshold') && getComputedStyle(at.querySelector('.line'));
            return { what: at.id || at.className.baseVal || at.className || at.dataset.filter || at.tagName,
                seen: style.outlineStyle !== 'none' || line.strokeWidth === '2.5px' }; }""")
        stops.append(stop["what"])
        assert stop["seen"], stop
        if stop["what"].startswith("card"):
            break
    assert stops[0] == "skip" and stops[-1].startswith("card"), stops
    assert {"save", "help-open", "find", "sort", "heat", "threshold"} <= set(stops), stops
    roles = page.eval_on_selector_all("[aria-live]", "all => all.length")
    assert roles >= 2, roles


def luminance(colour):
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def light_and_dark(browser, report):
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.open(report, color_scheme=scheme)
        colours = page.evaluate("""() => Object.fromEntries(
            ['--bg', '--panel', '--press', '--ink', '--faint', '--ng', '--ok', '--unsure', '--blue'].map((name) => {
                const probe = document.createElement('i');
                probe.style.color = getComputedStyle(document.documentElement).getPropertyValue(name);
                document.body.append(probe);
                return [name, getComputedStyle(probe).color];
            }))""")
        grounds.append(colours["--bg"])
        # WCAG 2: text at least 4.5, the badges' letters on their own colour too.
        for ground in ("--bg", "--panel"):
            for ink in ("--ink", "--faint", "--ng", "--ok", "--unsure", "--blue"):
                light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
                contrast = (light + 0.05) / (dark + 0.05)
                assert contrast >= 4.5, (scheme, ink, ground, contrast)
    assert grounds[0] != grounds[1], grounds


def prints(browser, report):
    page = browser.open(report)
    page.emulate_media(media="print")
    assert page.locator("#save").is_hidden() and page.locator(".card").first.is_visible()
    assert len(page.pdf()) > 50_000


def narrow(browser, report):
    page = browser.open(report, viewport={"width": 380, "height": 700})
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 380, f"{width} pixels wide"


def times(browser, report, enforce):
    """Size, time to open, and from an input to the frame that shows it."""
    inside = report.stat().st_size
    beside = sum(path.stat().st_size for path in report.parent.glob("report_files/*"))
    started = time.perf_counter()
    page = browser.open(report)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    opened = (time.perf_counter() - started) * 1000
    took = page.evaluate("""async () => {
        const frame = () => new Promise((done) => requestAnimationFrame(() => {
            const { port1, port2 } = new MessageChannel(); port1.onmessage = done; port2.postMessage(0); }));
        const timed = async (act) => { const took = []; for (let at = 0; at < 30; at += 1) {
            await frame(); const start = performance.now(); act(at); await frame(); took.push(performance.now() - start); } return took; };
        const heat = document.querySelector('#heat'), handle = document.querySelector('.threshold');
        const slide = await timed((at) => { heat.value = at * 3; heat.dispatchEvent(new Event('input')); });
        const key = await timed((at) => handle.dispatchEvent(new KeyboardEvent('keydown', { key: at % 2 ? 'Home' : 'End', bubbles: true })));
        return { slide, key };
    }""")
    images = page.locator(".card").count()
    figures = {name: (statistics.median(values), max(values)) for name, values in took.items()}
    print(f"    {images} images: {inside / 1e6:.2f} MB and {beside / 1e6:.2f} MB beside it, open in {opened:.0f} ms; to the next frame, "
          f"median and most of 30: opacity {figures['slide'][0]:.1f} and {figures['slide'][1]:.1f} ms, "
          f"threshold end to end {figures['key'][0]:.1f} and {figures['key'][1]:.1f} ms")
    assert inside < MOST_BYTES, inside
    if enforce:
        assert figures["slide"][0] < MOST_MS, figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--musc-run", type=Path, required=True)
    parser.add_argument("--example", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="a folder that stays, for pictures of the pages")
    parser.add_argument("--times", action="store_true", help="times have to be what the docs promise")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    program = args.musc_run.resolve()

    def musc(words, within="."):
        done = subprocess.run([program, *words], cwd=folder / within, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    def step(check, *words):
        print(f"  {check.__name__.replace('_', ' ')}", flush=True)
        found = check(*words)
        browser.done()
        return found

    try:
        musc(["demo", *SMALL, "--overwrite"])
        demo = folder / "output/demo"
        shutil.rmtree(folder / "photos", ignore_errors=True)
        shutil.rmtree(folder / "away", ignore_errors=True)
        (folder / "photos").mkdir()
        samples = sorted(demo.glob("images/*/*.jpg"))
        for name, sample in zip(HOSTILE, samples[4:]):
            shutil.copy(sample, os.fsencode(folder / "photos") + b"/" + name)
        musc(["photos", *SMALL, "--overwrite"])
        hostile = folder / "output/folder/photos"
        musc(["*.jpg", "--output-dir", "../output", *SMALL, "--overwrite"], "photos")
        bare = folder / "output/folder/images"
        for count in (30, 1000):
            subprocess.run([args.example, folder / f"drawn{count}", str(count)], check=True)
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
            browser = Browser(chromium)
            report, drawn = demo / "report.html", folder / "drawn30/report.html"
            page = step(opens_as_the_run_left_it, browser, report, demo / "scores.csv")
            page.screenshot(path=folder / "demo.png")
            page = step(opens_as_the_run_left_it, browser, hostile / "report.html", hostile / "scores.csv")
            page.screenshot(path=folder / "hostile.png")
            step(policy_holds, browser, report)
            step(threshold_moves, browser, report)
            step(filters_and_order, browser, report)
            step(classes_are_told_apart, browser, drawn)
            step(heat_and_outlines, browser, drawn)
            step(large_view, browser, report)
            step(large_view, browser, drawn)
            step(keys, browser, report)
            step(nothing_is_kept_and_nothing_breaks, browser, report)
            step(review_goes_out_and_comes_back, browser, musc, folder, bare / "report.html", bare / "scores.csv")
            step(accessible, browser, report)
            step(light_and_dark, browser, report)
            step(prints, browser, report)
            step(narrow, browser, report)
            step(narrow, browser, drawn)
            for count in (30, 1000):
                step(times, browser, folder / f"drawn{count}/report.html", args.times)
            step(times, browser, report, args.times)
            chromium.close()
        print(json.dumps({"report": "works in Chromium"}))
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
