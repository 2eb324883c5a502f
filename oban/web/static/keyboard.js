// Keyboard shortcuts. Those of a single key can be turned off, for people whose software types for them.
"use strict";

(() => {
  const PAGES = { o: "", j: "jobs", q: "queues", n: "nodes", p: "periodic" };
  const base = document.documentElement.dataset.base;
  const help = document.getElementById("help");
  const option = document.getElementById("single-keys");
  let waitsForPage = 0;

  const isOn = () => {
    try {
      return localStorage.getItem("oban.single-keys") !== "off";
    } catch {
      return true;
    }
  };
  option.checked = isOn();
  option.addEventListener("change", () => {
    try {
      localStorage.setItem("oban.single-keys", option.checked ? "on" : "off");
    } catch {
      // Storage is blocked: the choice cannot be kept.
    }
  });
  document.getElementById("open-help").addEventListener("click", () => help.showModal());

  // The rows of the table that the reader is in, else of the first one with rows that can be opened or selected.
  const rows = () => {
    const tables = [...document.querySelectorAll("#live table")];
    const current = document.querySelector("#live tr.current")?.closest("table");
    const table = current ?? tables.find((each) => each.querySelector("tbody tr a, tbody tr input"));
    return table ? [...table.querySelectorAll("tbody tr")] : [];
  };
  const current = () => document.querySelector("#live tr.current");
  const move = (step) => {
    const all = rows();
    if (all.length === 0) return;
    const row = all[Math.max(0, Math.min(all.length - 1, all.indexOf(current()) + step))] ?? all[0];
    current()?.classList.remove("current");
    row.classList.add("current");
    row.scrollIntoView({ block: "nearest" });
    // The focus moves as well, so that a screen reader says the row.
    (row.querySelector("a[href]") ?? row.querySelector("input, button"))?.focus({ preventScroll: true });
  };
  const search = () => document.querySelector("#live input[type=search]:not([disabled]), main input[type=search]");

  const KEYS = {
    "?": () => help.showModal(),
    "/": () => {
      const field = search();
      field?.focus();
      field?.select();
      return Boolean(field);
    },
    j: () => move(1),
    k: () => move(-1),
    x: () => current()?.querySelector("input[type=checkbox]")?.click(),
    r: () => window.oban.refresh(),
    g: () => {
      waitsForPage = Date.now();
    },
    Enter: () => {
      const row = current();
      // A control that has the focus does what it does by itself.
      if (!row || document.activeElement?.matches("a, button, input, summary")) return false;
      row.querySelector("a[href]")?.click();
    },
  };

  const close = () => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
    current()?.classList.remove("current");
  };

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      window.oban.openPalette();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (event.target.matches("input[type=search]")) event.target.blur();
      close();
      return;
    }
    const typing = event.target.matches("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
    if (typing || !isOn()) return;
    if (Date.now() - waitsForPage < 1500 && event.key in PAGES) {
      event.preventDefault();
      location.href = base + PAGES[event.key];
      return;
    }
    waitsForPage = 0;
    const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
    if (act && act() !== false) event.preventDefault();
  });
})();
