// helios-ci: what a page can do beyond being complete without this file. Live lines, follow and pause,
// earlier and later windows in place, permalinks of ranges, keys. Text only ever arrives as HTML that
// the server escaped, or is set as textContent.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text) e.textContent = text; return e; };
  const fragment = (html) => { const t = document.createElement("template"); t.innerHTML = html; return t.content; };
  const MAX_LINES = 6000; // more are dropped from the front: the window before them can be loaded again

  const toast = (text) => {
    const t = make("div", "toast", text); t.setAttribute("role", "status");
    document.body.append(t); setTimeout(() => t.remove(), 1800);
  };

  // A login link: its code stands behind the #, so that only this page gets to see it. The person logs in, not the link.
  const token = $("token");
  const takeCode = () => {
    if (!/^#hci_[0-9a-f]+$/.test(location.hash)) return;
    token.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname + location.search);
    token.form.querySelector("button").focus();
  };
  // A link that is opened where this page stands already only changes the part behind the #.
  if (token) { takeCode(); addEventListener("hashchange", takeCode); }

  const log = $("log");
  if (!log) return polling();

  log.querySelector(".tools").hidden = false;
  document.querySelector(".keys").hidden = false;
  const live = log.dataset.stream !== undefined;
  let follow = live && !location.hash, behind = 0, last = Number(log.dataset.last), first = Number(log.dataset.first), source = null;

  // Steps and lines.
  const step = (index) => {
    const known = $("step-" + index);
    if (known) return known;
    const d = make("details", "step"), s = make("summary"), badge = make("span", "badge idle");
    badge.append(make("b", "", "·"), make("span", "word", "log"));
    d.id = "step-" + index; d.dataset.step = index; d.open = true;
    s.append(badge, make("span", "name", "Step " + (index + 1)), make("span", "took"));
    d.append(s, make("div", "lines"));
    const after = [...log.querySelectorAll("details.step")].find((o) => Number(o.dataset.step) > index);
    if (after) after.before(d); else log.append(d);
    return d;
  };

  const setBadge = (badge, b) => {
    badge.className = badge.className.replace(/\b(ok|bad|live|warn|err|off|idle)\b/, b.class);
    badge.querySelector("b").textContent = b.shape;
    const word = badge.querySelector(".word");
    if (word) word.textContent = b.word; else badge.lastChild.textContent = b.word;
  };

  const append = (data) => {
    const target = step(data.step), box = target.querySelector(".lines");
    box.querySelector(".none")?.remove();
    let fresh = 0;
    for (const line of [...fragment(data.html).children]) {
      const old = $(line.id);
      if (old) old.replaceWith(line); else { box.append(line); fresh++; }
      last = Math.max(last, Number(line.dataset.n));
    }
    if (follow && !target.open) target.open = true;
    first ||= 1; range();
    trim();
    if (follow) toEnd(); else if (fresh) { behind += fresh; pill(); }
  };

  const range = () => { if ($("range")) $("range").textContent = "lines " + first + "–" + last; };

  const trim = () => {
    const lines = log.getElementsByClassName("l");
    if (lines.length <= MAX_LINES) return;
    [...lines].slice(0, lines.length - MAX_LINES).forEach((l) => l.remove());
    first = Number(log.querySelector(".l").dataset.n);
    earlier();
  };

  const earlier = () => {
    let link = log.querySelector("[data-more=earlier]");
    if (first <= 1) { link?.parentElement.remove(); return; }
    if (!link) {
      const p = make("p", "more"); link = make("a"); link.dataset.more = "earlier"; p.append(link);
      log.querySelector(".bar").after(p); link.addEventListener("click", more);
    }
    const from = Math.max(1, first - 500);
    link.href = log.dataset.base + "from=" + from;
    link.textContent = "↑ Show earlier lines (" + from + "–" + (first - 1) + ")";
  };

  const more = async (event) => {
    event.preventDefault();
    const link = event.currentTarget, up = link.dataset.more === "earlier";
    const from = up ? Math.max(1, first - 500) : last + 1, n = up ? first - from : 500;
    if (link.dataset.busy) return;
    link.dataset.busy = "1";
    try {
      const answer = await fetch(log.dataset.base.replace("?", "/log?") + "from=" + from + "&n=" + n);
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const anchor = log.querySelector(".l"), top = anchor?.getBoundingClientRect().top;
      const sections = [...page.querySelectorAll("section")];
      for (const section of up ? sections.reverse() : sections) {
        const target = step(Number(section.dataset.step)), box = target.querySelector(".lines");
        box.querySelector(".none")?.remove(); if (up) box.querySelector(".hidden")?.remove();
        target.open = true;
        const lines = [...section.children].filter((l) => !$(l.id)).map((l) => document.adoptNode(l));
        if (up) box.prepend(...lines); else box.append(...lines);
      }
      const got = page.body.dataset;
      if (up) {
        // An answer is bounded by its size too, so it may end before the lines that are here.
        if (Number(got.last) < first - 1) { location.href = link.href; return; }
        first = Number(got.first) || 1; earlier();
        if (anchor) scrollBy(0, anchor.getBoundingClientRect().top - top);
      } else {
        last = Math.max(last, Number(got.last));
        link.href = log.dataset.base + "from=" + (last + 1);
        if (got.more !== "true") link.parentElement.remove();
      }
      range();
    } catch (e) { location.href = link.href; } finally { delete link.dataset.busy; }
  };
  log.querySelectorAll("[data-more]").forEach((l) => l.addEventListener("click", more));

  // Follow and pause.
  const toEnd = () => { const lines = log.getElementsByClassName("l"); lines[lines.length - 1]?.scrollIntoView({ block: "end" }); };
  const pill = () => {
    const p = $("pill"); if (!p) return;
    p.hidden = follow || behind === 0;
    p.textContent = "↓ " + behind + (behind === 1 ? " new line" : " new lines");
  };
  const setFollow = (on) => {
    if (!live) return;
    follow = on; if (on) { behind = 0; toEnd(); }
    log.querySelector("[data-do=follow]")?.setAttribute("aria-pressed", String(on)); pill();
  };
  $("pill")?.addEventListener("click", () => setFollow(true));
  // Reading upwards pauses: the page never moves under the reader.
  addEventListener("wheel", (e) => { if (e.deltaY < 0 && follow) setFollow(false); }, { passive: true });
  addEventListener("touchmove", () => { if (follow) setFollow(false); }, { passive: true });

  // Live.
  const connect = () => {
    source = new EventSource(log.dataset.stream);
    const on = (name, f) => source.addEventListener(name, (e) => f(e.data ? JSON.parse(e.data) : {}));
    on("lines", append);
    on("skip", (d) => {
      const p = make("p", "more"), a = make("a", "", "… " + (d.to - d.from + 1) + " lines came faster than they could be shown: open them");
      a.href = log.dataset.base + "from=" + d.from; p.append(a);
      const boxes = log.querySelectorAll(".lines"); boxes[boxes.length - 1]?.append(p);
    });
    on("step", (d) => {
      const s = step(d.index); setBadge(s.querySelector(".badge"), d);
      s.querySelector(".name").replaceChildren(make("span", "dim", String(d.index + 1)), " " + d.name); s.querySelector(".took").textContent = d.took || "";
      s.dataset.state = d.class;
      if (d.class === "live" && follow) s.open = true;
      if (d.class === "ok" && follow) s.open = false;
      if (d.message) { (s.querySelector(".message") || s.appendChild(make("p", "message"))).textContent = d.message; s.querySelector(".message").className = "message " + d.class; }
    });
    on("state", (d) => {
      setBadge($("state"), d); $("status").textContent = d.status;
      const n = $("note"); n.hidden = !d.note; n.textContent = d.note || ""; n.className = "notice " + d.class;
    });
    on("resync", () => { source.close(); setTimeout(() => location.reload(), 500 + Math.random() * 1500); });
    on("end", () => { source.close(); setFollow(false); log.querySelector("[data-do=follow]")?.remove(); document.querySelector(".buttons .danger")?.closest("form").remove(); });
  };
  if (live) connect();

  // Tools.
  const wrap = (on) => {
    log.classList.toggle("nowrap", !on);
    log.querySelector("[data-do=wrap]").setAttribute("aria-pressed", String(on));
    try { localStorage.setItem("wrap", on ? "1" : "0"); } catch (e) { /* private windows may forbid it */ }
  };
  const fold = () => { const all = [...log.querySelectorAll("details.step")], open = all.some((d) => d.open); all.forEach((d) => { d.open = !open; }); };
  try { if (localStorage.getItem("wrap") === "0") wrap(false); } catch (e) { /* as above */ }
  log.addEventListener("click", (e) => {
    const tool = e.target.closest("[data-do]")?.dataset.do;
    if (tool === "wrap") wrap(log.classList.contains("nowrap"));
    if (tool === "fold") fold();
    if (tool === "follow") setFollow(!follow);
    const number = e.target.closest(".l > a");
    if (number && !e.ctrlKey && !e.metaKey) { e.preventDefault(); mark(number.parentElement.id, e.shiftKey); }
  });

  // Permalinks: a click marks a line, with Shift a range, and copies the link.
  let anchor = null;
  const paint = (from, to) => {
    log.querySelectorAll(".hl").forEach((l) => l.classList.remove("hl"));
    let on = false;
    for (const l of log.getElementsByClassName("l")) { if (l.id === from) on = true; if (on) l.classList.add("hl"); if (l.id === to) break; }
  };
  const mark = (id, range) => {
    let place = id, from = id, to = id;
    if (range && anchor && anchor.split("-")[0] === id.split("-")[0]) {
      const at = (x) => Number(x.split("-L")[1]);
      [from, to] = at(anchor) < at(id) ? [anchor, id] : [id, anchor];
      place = from + "-" + to.split("-")[1];
    } else anchor = id;
    paint(from, to);
    setFollow(false);
    const url = location.origin + log.dataset.base + "lines=" + place + "#" + from;
    history.replaceState(null, "", url);
    navigator.clipboard?.writeText(url).then(() => toast("Link copied"), () => {});
  };
  // A place that is not in this window is asked of the server.
  const place = /^#(s\d+-L\d+)(?:-(L\d+))?$/.exec(location.hash);
  if (place && !$(place[1]) && !location.search.includes("lines=")) {
    location.replace(log.dataset.base + "lines=" + location.hash.slice(1) + "#" + place[1]);
  } else if (place) {
    const l = $(place[1]);
    if (l) { l.closest("details").open = true; paint(place[1], place[2] ? place[1].split("-")[0] + "-" + place[2] : place[1]); l.scrollIntoView({ block: "center" }); }
  } else if (live) toEnd();

  // Find: among the lines shown, from the one found last; the raw log has them all.
  const find = make("input"); let found = -1;
  Object.assign(find, { type: "search", placeholder: "find", title: "/" }); find.setAttribute("aria-label", "Find in the lines shown");
  log.querySelector(".tools").prepend(find);
  find.addEventListener("keydown", (e) => {
    if (e.key === "Escape") find.blur();
    if (e.key !== "Enter" || !find.value) return;
    e.preventDefault(); setFollow(false);
    const lines = [...log.getElementsByClassName("l")], n = lines.length, wanted = find.value.toLowerCase();
    for (let i = 1; i <= n; i++) {
      const at = (found + (e.shiftKey ? n - i : i) + n) % n;
      if (!lines[at].lastElementChild.textContent.toLowerCase().includes(wanted)) continue;
      found = at; lines[at].closest("details").open = true; paint(lines[at].id, lines[at].id); lines[at].scrollIntoView({ block: "center" });
      return;
    }
    toast("Not in the lines shown");
  });

  // Keys: next and previous failure, follow, wrap, find.
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, textarea")) return;
    if (e.key === "/") { e.preventDefault(); find.focus(); find.select(); }
    if (e.key === "f") setFollow(!follow);
    if (e.key === "w") wrap(log.classList.contains("nowrap"));
    if (e.key !== "j" && e.key !== "k") return;
    const bad = [...log.querySelectorAll("details.step[data-state=bad], details.step[data-state=err], details.step[data-state=warn]")];
    const here = bad.indexOf(document.activeElement.closest?.("details.step"));
    const next = bad[e.key === "j" ? Math.min(here + 1, bad.length - 1) : Math.max(here - 1, 0)];
    if (next) { setFollow(false); next.open = true; next.querySelector("summary").focus(); next.scrollIntoView({ block: "start" }); }
  });

  // Pages without a log renew their content while something runs.
  function polling() {
    const seconds = Number(document.body.dataset.refresh);
    if (!seconds) return;
    const timer = setInterval(async () => {
      if (document.hidden || document.activeElement?.closest("main")) return;
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (!answer.ok) return;
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const open = [...document.querySelectorAll("main details")].map((d) => d.open);
        $("main").replaceWith(document.adoptNode(page.getElementById("main")));
        document.querySelectorAll("main details").forEach((d, i) => { d.open = open[i] ?? d.open; });
        document.title = page.title;
        if (!page.body.dataset.refresh) clearInterval(timer);
      } catch (e) { /* away for a moment; the next round asks again */ }
    }, seconds * 1000);
  }
})();
