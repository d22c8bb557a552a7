#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""browse.py PAGE OUT: opens a report in headless Chromium as light, dark, phone and print, and says what is wrong with it.

Talks to Chromium through a pipe (--remote-debugging-pipe), so nothing but Python's own library is needed. Wrong is: an entry of the
console, a request for anything but the page, a figure without a box, a page wider than its window, a link that leads nowhere, text
with too little contrast. Leaves screenshots light.png, dark.png, phone.png in OUT. Exit 0: nothing is wrong."""
import base64, json, os, pathlib, shutil, subprocess, sys, tempfile

PROBE = """(() => {
  const bad = [], box = e => e.getBoundingClientRect();
  for (const f of document.querySelectorAll('figure, svg')) {
    const b = box(f);
    if (!(b.width > 0 && b.height > 0)) bad.push('no box: ' + (f.id || f.getAttribute('aria-label')));
  }
  for (const f of document.querySelectorAll('figure')) {
    if (!f.id) bad.push('a figure without an id');
    if (!f.querySelector('svg :is(rect, circle, polyline)')) bad.push('an empty figure: ' + f.id);
  }
  for (const t of document.querySelectorAll('svg text')) {
    const b = box(t), s = box(t.closest('svg'));
    if (b.left < s.left - 2 || b.right > s.right + 2) bad.push('text outside of its drawing: ' + t.textContent);
  }
  for (const a of document.querySelectorAll('a')) {
    const to = a.getAttribute('href');
    if (!to.startsWith('#') || !document.getElementById(to.slice(1))) bad.push('a link to nowhere: ' + to);
  }
  // not innerWidth: a phone zooms out until a wide page fits
  const wide = document.scrollingElement.scrollWidth, room = document.documentElement.clientWidth;
  if (wide > room) bad.push('the page is ' + wide + ' wide in a window of ' + room);
  const rgb = c => c.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const lum = c => { const [r, g, b] = rgb(c).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                     return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
                      if (c != 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  for (const e of document.querySelectorAll('p, td, th, h1, h2, h3, pre, code, a, summary, dt, dd, b, figcaption, svg text')) {
    const s = getComputedStyle(e), a = lum(e.closest('svg') ? s.fill : s.color), b = lum(back(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) { bad.push('contrast ' + ratio.toFixed(2) + ': ' + e.tagName + ' ' + e.className); break; }
  }
  const focus = document.querySelectorAll('summary, a[href], [tabindex="0"]').length;
  if (!focus) bad.push('nothing can be reached by keyboard');
  return {bad, figures: [...document.querySelectorAll('figure')].map(f => f.id),
          height: Math.ceil(document.documentElement.getBoundingClientRect().height)};
})()"""


class Browser:
    def __init__(self, program, profile):
        to_r, self.to = os.pipe()
        self.back, back_w = os.pipe()
        def wire():  # Chromium reads from 3 and writes to 4
            a, b = os.dup(to_r), os.dup(back_w)
            os.dup2(a, 3), os.dup2(b, 4)
            for fd in (3, 4):
                os.set_inheritable(fd, True)
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
             "--disable-background-networking", "--user-data-dir=" + profile, "--remote-debugging-pipe", "about:blank"],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=wire, close_fds=False)
        os.close(to_r), os.close(back_w)
        self.number, self.rest, self.events, self.session = 0, b"", [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(domain + ".enable")

    def receive(self):
        while b"\0" not in self.rest:
            data = os.read(self.back, 1 << 16)
            if not data:
                raise SystemExit("the browser has ended")
            self.rest += data
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def ask(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, url):
        self.events = []
        self.ask("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.receive())

    def close(self):
        try:
            self.session = None
            self.ask("Browser.close")
        except (SystemExit, OSError):
            pass
        self.process.wait(30)


def complaints(events, url):
    for e in events:
        method, p = e.get("method"), e.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            yield "console: " + json.dumps(p)[:300]
        if method == "Network.requestWillBeSent" and p["request"]["url"] != url:
            yield "a request: " + p["request"]["url"][:200]


def view(browser, url, out, name, width, scheme, media=""):
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=2 if width < 500 else 1,
                mobile=width < 500)
    browser.ask("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(url)
    found = browser.ask("Runtime.evaluate", expression=PROBE, returnByValue=True)["result"]["value"]
    if name:
        clip = {"x": 0, "y": 0, "width": width, "height": min(found["height"], 16000), "scale": 1}
        shot = browser.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        (out / (name + ".png")).write_bytes(base64.b64decode(shot["data"]))
    # every detail opened: still no wider than its window
    browser.ask("Runtime.evaluate", expression="document.querySelectorAll('details').forEach(d => d.open = true)")
    opened = browser.ask("Runtime.evaluate", expression=PROBE, returnByValue=True)["result"]["value"]
    bad = dict.fromkeys(found["bad"] + opened["bad"] + list(complaints(browser.events, url)))
    return [f"{name or media}: {b}" for b in bad], found["figures"]


def main():
    page, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        raise SystemExit("no chromium")
    out.mkdir(parents=True, exist_ok=True)
    bad, figures = [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            for name, width, scheme, media in (("light", 1200, "light", ""), ("dark", 1200, "dark", ""), ("phone", 360, "light", ""),
                                               ("", 360, "dark", ""), ("", 800, "light", "print")):
                wrong, figures = view(browser, page.as_uri(), out, name, width, scheme, media)
                bad += wrong
        finally:
            browser.close()
    print("\n".join(figures))
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


sys.exit(main())
