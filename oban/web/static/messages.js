// Toasts, confirmations, copy buttons, menus, the choice of a theme, and the bar that shows requests.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);

  // Toasts: the list of them is a live region, so that screen readers say them.
  const toast = (message, failed = false) => {
    const element = document.createElement("div");
    element.className = failed ? "toast failed" : "toast";
    const text = document.createElement("p");
    text.textContent = message.slice(0, 1000);
    const close = document.createElement("button");
    close.type = "button";
    close.className = "button quiet";
    close.textContent = "×";
    close.setAttribute("aria-label", "Close the message");
    close.addEventListener("click", () => element.remove());
    element.append(text, close);
    byId("toasts").append(element);
    while (byId("toasts").children.length > 4) byId("toasts").firstChild.remove();
    // A failure stays until it is closed.
    if (!failed) setTimeout(() => element.matches(":hover, :focus-within") || element.remove(), 8000);
  };

  // Confirmations. Without scripts, a form is simply sent.
  let confirmed = null;
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.confirm === undefined || confirmed === form) {
      confirmed = null;
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const dialog = byId("confirm");
    byId("confirm-text").textContent = form.dataset.confirm;
    const label = event.submitter?.textContent.trim() || "Confirm";
    byId("confirm-title").textContent = `${label}?`;
    byId("confirm-yes").textContent = label;
    byId("confirm-yes").classList.toggle("danger", Boolean(event.submitter?.classList.contains("danger")));
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "yes") return;
      confirmed = form;
      form.requestSubmit(event.submitter);
    }, { once: true });
    dialog.showModal();
  }, true);

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) {
      try {
        await navigator.clipboard.writeText(byId(button.dataset.copy).textContent);
        toast("Copied.");
      } catch {
        toast("The browser does not let this page copy.", true);
      }
    }
    // A click elsewhere closes menus, and a click on the backdrop a dialog.
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
    if (event.target.matches("dialog[open]")) event.target.close();
  });

  // The theme. theme.js has set it before the first paint.
  const root = document.documentElement;
  const markTheme = () => {
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === (root.dataset.theme || "system")));
    }
  };
  for (const button of document.querySelectorAll("[data-theme-choice]")) {
    button.addEventListener("click", () => {
      const theme = button.dataset.themeChoice;
      if (theme === "system") delete root.dataset.theme;
      else root.dataset.theme = theme;
      try {
        localStorage.setItem("oban.theme", theme);
      } catch {
        // Storage is blocked: the choice lasts as long as the page.
      }
      markTheme();
    });
  }
  markTheme();

  // Requests of htmx other than those that keep the page up to date.
  const isBackground = (event) => event.detail.requestConfig?.headers?.["X-Refresh"] === "1";
  let running = 0;
  const count = (change) => {
    running = Math.max(0, running + change);
    byId("loading-bar").classList.toggle("busy", running > 0);
  };
  document.addEventListener("htmx:beforeRequest", (event) => isBackground(event) || count(1));
  document.addEventListener("htmx:afterRequest", (event) => isBackground(event) || count(-1));
  document.addEventListener("htmx:responseError", (event) => {
    if (isBackground(event)) return;
    const page = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    const message = page.getElementById("error-message")?.textContent;
    toast(message || `The request failed with the status ${event.detail.xhr.status}.`, true);
  });
  document.addEventListener("htmx:sendError", (event) => {
    isBackground(event) || toast("The dashboard cannot be reached.", true);
  });
  document.addEventListener("htmx:timeout", (event) => {
    isBackground(event) || toast("The dashboard took too long to answer.", true);
  });
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.verb !== "get") {
      event.detail.headers["X-CSRF-Token"] = document.querySelector("meta[name=csrf-token]").content;
    }
  });
})();
