// The command palette: pages, the actions of the page, and jobs, queues and workers that the server finds.
"use strict";

(() => {
  const dialog = document.getElementById("palette");
  const input = document.getElementById("palette-input");
  const list = document.getElementById("palette-results");
  const base = document.documentElement.dataset.base;
  let found = [];
  let chosen = 0;
  let timer = 0;
  let request = null;

  const label = (element) => (element.getAttribute("aria-label") || element.textContent).replace(/\s+/g, " ").trim();

  // Entries of the page itself: links of the navigation, and buttons and links that look like buttons.
  const local = (query) => {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const entries = [];
    for (const link of document.querySelectorAll(".pages a, #instances a")) {
      entries.push({ label: label(link), hint: "Page", run: () => link.click() });
    }
    for (const button of document.querySelectorAll("#live .button, #live button")) {
      const text = label(button);
      if (button.disabled || !text || button.closest("tbody, dialog") || button.matches(".copy")) continue;
      if (entries.some((each) => each.label === text)) continue;
      entries.push({ label: text, hint: "Action", run: () => button.click() });
    }
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      entries.push({ label: `Theme: ${label(button)}`, hint: "Setting", run: () => button.click() });
    }
    for (const id of ["pulse", "open-help"]) {
      const button = document.getElementById(id);
      const text = id === "pulse" ? "Pause or resume refreshing" : label(button);
      entries.push({ label: text, hint: "Setting", run: () => button.click() });
    }
    return entries.filter((each) => words.every((word) => each.label.toLowerCase().includes(word)));
  };

  const show = (entries) => {
    found = entries.slice(0, 50);
    chosen = 0;
    list.replaceChildren(...found.map((entry, index) => {
      const item = document.createElement("li");
      item.id = `palette-${index}`;
      item.setAttribute("role", "option");
      const name = document.createElement("span");
      name.dir = "auto";
      name.textContent = entry.label;
      const hint = document.createElement("span");
      hint.textContent = entry.hint;
      item.append(name, hint);
      item.addEventListener("click", () => run(index));
      return item;
    }));
    mark();
  };

  const mark = () => {
    [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
    const item = list.children[chosen];
    if (item) {
      input.setAttribute("aria-activedescendant", item.id);
      item.scrollIntoView({ block: "nearest" });
    } else {
      input.removeAttribute("aria-activedescendant");
    }
  };

  const run = (index) => {
    const entry = found[index];
    if (!entry) return;
    dialog.close();
    if (entry.href) location.href = entry.href;
    else entry.run();
  };

  const search = () => {
    const query = input.value.trim();
    show(local(query));
    clearTimeout(timer);
    request?.abort();
    if (!query) return;
    timer = setTimeout(async () => {
      request = new AbortController();
      try {
        const response = await fetch(`${base}palette?q=${encodeURIComponent(query)}`, { signal: request.signal });
        if (!response.ok) return;
        const { results } = await response.json();
        const kept = chosen;
        show([...local(query), ...results]);
        chosen = Math.min(kept, Math.max(0, found.length - 1));
        mark();
      } catch {
        // The entries of the page stay; a newer search or a closed dialog has ended this one.
      }
    }, 120);
  };

  input.addEventListener("input", search);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length) {
      event.preventDefault();
      chosen = (chosen + step + found.length) % found.length;
      mark();
    } else if (event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      run(chosen);
    }
  });
  dialog.addEventListener("close", () => request?.abort());

  const open = () => {
    if (document.querySelector("dialog[open]")) return;
    input.value = "";
    dialog.showModal();
    search();
  };
  document.getElementById("open-palette").addEventListener("click", open);
  window.oban = { ...window.oban, openPalette: open };
})();
