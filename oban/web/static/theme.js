// Sets the theme before the first paint, and tells styles that scripts run. It is loaded in the head, not deferred.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  try {
    const theme = localStorage.getItem("oban.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // Storage is blocked: the theme of the system stays.
  }
})();
