// Keeps a page up to date: the server says when, and the page loads its own address again.
"use strict";

(() => {
  const base = document.documentElement.dataset.base;

  const refresh = () => {
    if (document.hidden || document.querySelector("dialog[open]")) return;
    htmx.ajax("GET", location.href, { target: "#live", select: "#live", swap: "morph:outerHTML" });
  };

  const stream = new EventSource(`${base}events`);
  stream.addEventListener("refresh", refresh);
})();
