// Keeps a page up to date: the server says when, and the page loads its own address again.
// Where there is no stream of events, the page asks by itself, less and less often while that fails.
"use strict";

(() => {
  const POLL = 5000;
  const SLOWEST = 60_000;
  const root = document.documentElement;
  const base = root.dataset.base;
  const pulse = document.getElementById("pulse");
  const icon = document.querySelector("link[rel=icon]");
  const calmIcon = icon.getAttribute("href");

  let stream = null;
  let streaming = false;
  let away = false;
  let paused = false;
  let loading = false;
  let missed = false;
  let failures = 0;
  let discarded = 0;
  let timer = 0;
  let refreshed = Date.now();

  // The answer to a form, and a page that does not exist, cannot be loaded again.
  if (root.dataset.live === "none") {
    pulse.hidden = true;
    window.oban = { ...window.oban, refresh: () => {} };
    return;
  }

  // What the page shows of its own state.
  const status = () => {
    if (failures > 0 || away) return "disconnected";
    if (paused) return "paused";
    return streaming ? "live" : "polling";
  };
  const WORDS = { live: "Live", polling: "Polling", paused: "Paused", disconnected: "Disconnected" };
  const show = () => {
    const now = status();
    pulse.dataset.status = now;
    pulse.setAttribute("aria-pressed", String(paused));
    const label = pulse.querySelector(".label");
    if (label.textContent !== WORDS[now]) label.textContent = WORDS[now];
    const time = new Date(refreshed).toLocaleTimeString();
    pulse.title = `Last refreshed at ${time}. ${paused ? "Resume" : "Pause"} refreshing.`;
  };

  const showFailures = (failed) => {
    if (Number.isInteger(failed)) discarded = Math.max(0, failed);
    const title = document.title.replace(/^\(\d+\) /, "");
    const wanted = discarded ? `(${discarded}) ${title}` : title;
    if (document.title !== wanted) document.title = wanted;
    const href = discarded ? icon.dataset.failing : calmIcon;
    if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
  };
  const readFailures = () => {
    const found = document.querySelector("#live[data-failed]");
    showFailures(found ? Number(found.dataset.failed) : undefined);
  };

  // A refresh must not disturb what the reader is doing.
  const isBusy = () => {
    if (document.hidden || document.querySelector("dialog[open], .menu[open]")) return true;
    const selection = getSelection();
    if (selection && !selection.isCollapsed && document.getElementById("live")?.contains(selection.anchorNode)) return true;
    return Boolean(document.querySelector("#live .htmx-request"));
  };

  const refresh = async (force = false) => {
    if (loading) return;
    if (!force && (paused || isBusy())) {
      missed = true;
      return;
    }
    missed = false;
    loading = true;
    try {
      await htmx.ajax("GET", location.pathname + location.search, {
        source: "#live", target: "#live", select: "#live", swap: "morph:outerHTML", headers: { "X-Refresh": "1" },
      });
    } catch {
      // The event after the request has told that it failed.
    } finally {
      loading = false;
    }
  };
  const isRefresh = (event) => event.detail.requestConfig?.headers?.["X-Refresh"] === "1";

  document.addEventListener("htmx:afterRequest", (event) => {
    if (!isRefresh(event)) return;
    failures = event.detail.successful ? 0 : failures + 1;
    if (event.detail.successful) refreshed = Date.now();
    schedule();
    show();
  });
  // A refresh has set the title anew.
  document.addEventListener("htmx:afterSettle", readFailures);

  // Without a stream, or while refreshes fail, ask again after a while.
  const schedule = () => {
    clearTimeout(timer);
    if (streaming && failures === 0) return;
    timer = setTimeout(async () => {
      await refresh();
      schedule();
    }, Math.min(SLOWEST, POLL * 2 ** failures));
  };

  const connect = () => {
    if (root.dataset.live !== "stream" || stream || document.hidden) return;
    stream = new EventSource(`${base}events`);
    stream.addEventListener("open", () => {
      streaming = true;
      schedule();
      show();
    });
    stream.addEventListener("unavailable", () => {
      away = true;
      show();
    });
    stream.addEventListener("refresh", (event) => {
      away = false;
      try {
        showFailures(JSON.parse(event.data).failed);
      } catch {
        // An event without data only says that it is time.
      }
      refresh();
    });
    stream.addEventListener("error", () => {
      streaming = false;
      // The browser connects again by itself, except after an answer that is no stream.
      if (stream.readyState === EventSource.CLOSED) {
        stream = null;
        setTimeout(connect, SLOWEST);
      }
      schedule();
      show();
    });
  };

  // What a refresh keeps: boxes that were ticked, fields that were edited, what was unfolded, and [data-keep].
  const isEdited = (element) => {
    if (element.matches("input[type=checkbox], input[type=radio]")) return element.checked !== element.defaultChecked;
    if (element.matches("select")) return [...element.options].some((each) => each.selected !== each.defaultSelected);
    return element.matches("input, textarea") && element.value !== element.defaultValue;
  };
  Object.assign(Idiomorph.defaults.callbacks, {
    beforeNodeMorphed: (old) => {
      if (!(old instanceof Element)) return true;
      if (old.hasAttribute("data-keep")) return false;
      if (old === document.activeElement && old.matches("input, textarea, select")) return false;
      return !isEdited(old);
    },
    beforeAttributeUpdated: (name, element) => {
      if (name === "open" && element.matches("details")) return false;
      if (name === "title" && element.matches("time")) return false;
      return !(element.matches("tr") && name === "class" && element.classList.contains("current"));
    },
    beforeNodeRemoved: (node) => !(node instanceof Element && node.hasAttribute("data-keep")),
    // A time is shown as words: the text of the server would flicker.
    afterNodeMorphed: (old) => {
      if (old instanceof Element && old.matches("time")) old.title = "";
    },
  });

  pulse.addEventListener("click", () => {
    paused = !paused;
    show();
    if (!paused) refresh();
  });
  document.addEventListener("visibilitychange", () => {
    // An open stream holds a connection, of which a browser has few: a hidden page gives its own back.
    if (document.hidden) {
      stream?.close();
      stream = null;
      streaming = false;
      clearTimeout(timer);
    } else {
      connect();
      schedule();
      refresh();
    }
    show();
  });
  setInterval(() => missed && refresh(), 1000);
  addEventListener("pagehide", () => stream?.close());
  window.oban = { ...window.oban, refresh: () => refresh(true) };

  readFailures();
  connect();
  schedule();
  show();
})();
