// The list of jobs: selection, and suggestions for the search field.
"use strict";

(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const boxes = () => all("#selection input[name=id]");

  const showCount = () => {
    const shown = document.getElementById("selected-count");
    if (!shown) return;
    const every = document.getElementById("all-matching").checked;
    const count = boxes().filter((box) => box.checked).length;
    shown.textContent = every ? "All jobs that match are selected." : count ? `${count} selected.` : "Select jobs to change them.";
    for (const button of all("#selection button[name=action]")) button.disabled = !every && !count;
    const whole = document.getElementById("whole-page");
    whole.checked = count > 0 && count === boxes().length;
    whole.indeterminate = count > 0 && !whole.checked;
  };

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
    if (event.target.id === "whole-page") {
      for (const box of boxes()) box.checked = event.target.checked;
    }
    if (event.target.closest("#selection")) showCount();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-stop-search]")) {
      const status = event.target.closest("p");
      htmx.trigger(status, "htmx:abort");
      const stopped = status.cloneNode(true);
      for (const name of [...stopped.getAttributeNames()]) if (name.startsWith("hx-")) stopped.removeAttribute(name);
      stopped.querySelector("[data-stop-search]").remove();
      status.replaceWith(stopped);
    }
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    // Rows that a further search has added would not be on the page that a refresh loads.
    if (event.detail.target.id === "more-rows") document.getElementById("rows").setAttribute("data-keep", "");
    showCount();
  });

  // The combobox, after the pattern of the ARIA Authoring Practices: the focus stays in the field.
  const field = document.getElementById("q");
  const list = document.getElementById("suggestions");
  let active = -1;
  let asked = 0;

  const close = () => {
    list.hidden = true;
    active = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  };
  const activate = (index) => {
    const options = [...list.children];
    active = (index + options.length) % options.length;
    options.forEach((each, number) => each.setAttribute("aria-selected", String(number === active)));
    field.setAttribute("aria-activedescendant", options[active].id);
    options[active].scrollIntoView({ block: "nearest" });
  };
  const accept = (option) => {
    field.value = option.dataset.text;
    field.focus();
    if (option.dataset.text.endsWith(":") || option.dataset.text.endsWith(".")) ask();
    else close();
  };
  const ask = async () => {
    const number = ++asked;
    const text = field.value.slice(0, field.selectionStart ?? field.value.length);
    if (text.length > 500) return close();
    const answer = await fetch(`${field.dataset.suggest}?q=${encodeURIComponent(text)}`).catch(() => null);
    if (number !== asked || !answer?.ok) return;
    const found = await answer.json();
    list.replaceChildren(
      ...found.suggestions.map((each, index) => {
        const option = document.createElement("li");
        option.id = `suggestion-${index}`;
        option.role = "option";
        option.setAttribute("aria-selected", "false");
        option.dataset.text = each.text;
        const label = document.createElement("bdi");
        label.textContent = each.label;
        const note = document.createElement("span");
        note.className = "small muted";
        note.textContent = each.note;
        option.append(label, " ", note);
        return option;
      }),
    );
    active = -1;
    list.hidden = found.suggestions.length === 0 || document.activeElement !== field;
    field.setAttribute("aria-expanded", String(!list.hidden));
    field.removeAttribute("aria-activedescendant");
  };

  let timer = 0;
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 120);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    } else if (event.key === "ArrowDown" && list.hidden) {
      ask();
    } else if (!list.hidden && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      activate(event.key === "ArrowDown" ? active + 1 : active - (active < 0 ? 0 : 1));
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      accept(list.children[active]);
    }
  });
  field.addEventListener("blur", () => setTimeout(close, 150));
  list.addEventListener("mousedown", (event) => {
    event.preventDefault();
    const option = event.target.closest("[role=option]");
    if (option) accept(option);
  });
  showCount();
})();
