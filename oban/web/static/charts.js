// Draws the charts of the overview from the numbers in their attributes, again when these change.
"use strict";

(() => {
  const HEIGHT = 180;
  const drawn = new Map();

  // A canvas needs a colour without functions of CSS, as the browser computes it for an element.
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const shortened = (value) =>
    value == null ? "–" : value.toLocaleString(undefined, { maximumSignificantDigits: 3, notation: value >= 10_000 ? "compact" : "standard" });

  const axis = (extra) => ({
    stroke: () => colour("muted"),
    grid: { stroke: () => colour("line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
    ...extra,
  });

  const options = (chart, width) => ({
    width,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    legend: { live: true },
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [
      axis({ space: 70, values: (_, times) => labels(chart, times) }),
      axis({ size: 48, values: (_, ticks) => ticks.map(shortened) }),
    ],
    series: [
      { label: "From", value: (_, at) => (at == null ? "–" : new Date(at * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" })) },
      ...chart.series.map((each, number) => ({
        label: each.name,
        stroke: () => colour(each.colour),
        // Not by colour alone.
        dash: [[], [6, 3], [2, 2]][number],
        width: 1.5,
        points: { show: false },
        value: (_, value) => shortened(value),
      })),
    ],
  });

  const labels = (chart, times) => {
    const days = chart.times.at(-1) - chart.times[0] > 2 * 86_400;
    const format = days ? { month: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" };
    let last = "";
    return times.map((at) => {
      const label = new Date(at * 1000).toLocaleString(undefined, format);
      const shown = label === last ? "" : label;
      last = label;
      return shown;
    });
  };

  const draw = (plot) => {
    const source = plot.dataset.chart;
    const known = drawn.get(plot.id);
    // A refresh keeps the canvas.
    const canvas = plot.querySelector(".canvas");
    const isThere = known && canvas.contains(known.chart.root);
    if (isThere && known.source === source) return;
    const chart = JSON.parse(source);
    const data = [chart.times, ...chart.series.map((each) => each.values)];
    if (isThere && known.step === chart.times[1] - chart.times[0]) {
      known.source = source;
      known.chart.setData(data);
      return;
    }
    known?.chart.destroy();
    canvas.replaceChildren();
    const made = new uPlot(options(chart, canvas.clientWidth), data, canvas);
    drawn.set(plot.id, { canvas, source, chart: made, step: chart.times[1] - chart.times[0] });
    sizes.observe(canvas);
  };

  const drawAll = () => document.querySelectorAll(".plot[data-chart]").forEach(draw);

  const sizes = new ResizeObserver(() => {
    for (const { canvas, chart } of drawn.values()) {
      const width = canvas.clientWidth;
      if (width > 0 && chart.width !== width) chart.setSize({ width, height: HEIGHT });
    }
  });
  const redraw = () => drawn.forEach(({ chart }) => chart.redraw(false, true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  document.addEventListener("htmx:afterSettle", drawAll);
  drawAll();
})();
