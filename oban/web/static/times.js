// Times relative to now, with the absolute time in the reader's zone on hover and focus; numbers in the reader's format.
"use strict";

(() => {
  const STEPS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });
  const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const numbers = new Intl.NumberFormat();

  const words = (moment) => {
    let amount = (moment - Date.now()) / 1000;
    if (Math.abs(amount) < 1.5) return "now";
    const minutes = Math.trunc(Math.abs(amount) / 60);
    if (minutes >= 60 && minutes < 1440) {
      // An hour is long: "1 h" would stand for anything up to 119 minutes.
      const length = `${Math.trunc(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
      return amount > 0 ? `in ${length}` : `${length} ago`;
    }
    for (const [unit, next] of STEPS) {
      if (Math.abs(amount) < next) return relative.format(Math.trunc(amount), unit);
      amount /= next;
    }
  };

  const setText = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  const showTimes = () => {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const moment = Date.parse(element.dateTime);
      if (Number.isNaN(moment) || element.dataset.absolute !== undefined) continue;
      setText(element, words(moment));
      if (element.title === "") element.title = absolute.format(moment);
    }
  };

  const showNumbers = () => {
    for (const element of document.querySelectorAll("data[value]")) {
      if (/^-?\d+$/.test(element.value)) setText(element, numbers.format(BigInt(element.value)));
    }
  };

  const show = () => {
    showTimes();
    showNumbers();
  };

  document.addEventListener("htmx:afterSettle", show);
  setInterval(() => document.hidden || showTimes(), 5000);
  show();
})();
