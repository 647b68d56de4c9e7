// Three charts of the last minutes, drawn by uPlot.

import { rate, span, count } from "./dom.js";

const CHARTS = {
  throughput: { title: "Throughput", unit: "tasks/s", format: rate, series: [["settled", "rate", "--c1", true], ["failed", "failed", "--c4"]] },
  times: { title: "Run time", unit: "of the last minute", format: span, series: [["p50", "p50", "--c1"], ["p95", "p95", "--c2"], ["p99", "p99", "--c4"]] },
  backlog: { title: "Backlog", unit: "tasks", format: count, series: [["waiting", "waiting", "--c1", true], ["in flight", "in_flight", "--c3"], ["delayed", "delayed", "--c2"]] },
};
const HEIGHT = 150;
const drawn = new Map();

export const names = Object.keys(CHARTS);
export const about = (name) => CHARTS[name];

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(name, width) {
  const { series, format } = CHARTS[name];
  const [text, line] = [color("--muted"), color("--line")];
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width, height: HEIGHT, padding: [8, 4, 0, 0],
    cursor: { sync: { key: "all" }, points: { size: 6 }, drag: { x: false, y: false } },
    legend: { live: true },
    scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.12 : 1] } },
    axes: [{ ...axis, space: 80, size: 26, values: (_, at) => at.map((each) => new Date(each * 1000).toLocaleTimeString("sv").slice(0, at[1] - at[0] < 60 ? 8 : 5)) },
      { ...axis, size: 54, space: 32, values: (_, values) => values.map(format) }],
    series: [{ value: (_, at) => (at ? new Date(at * 1000).toLocaleTimeString("sv") : "now") },
      ...series.map(([label, , tone, fill]) => ({ label, stroke: color(tone), width: 1.5, fill: fill ? color(tone) + "1f" : undefined, spanGaps: true, points: { show: false },
        value: (plot, value, index, at) => format(at === null || at === undefined ? plot.data[index].at(-1) : value) }))],
  };
}

export function draw(history) {
  for (const name of names) {
    const place = document.getElementById(`chart-${name}`);
    if (!place) {
      drawn.get(name)?.destroy();
      drawn.delete(name);
      continue;
    }
    const at = history.names.indexOf("at");
    const columns = [at, ...CHARTS[name].series.map(([, column]) => history.names.indexOf(column))];
    const data = columns.map((column) => history.points.map((point) => point[column]));
    const plot = drawn.get(name);
    if (plot && plot.root.parentNode === place) plot.setData(data);
    else {
      plot?.destroy();
      drawn.set(name, new uPlot(options(name, place.clientWidth || 300), data, place));
      sized.observe(place);
    }
  }
}

export function redraw() {
  for (const plot of drawn.values()) plot.destroy();
  drawn.clear();
}

const sized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const plot = drawn.get(target.id.replace("chart-", ""));
    if (plot && plot.root.parentNode === target && contentRect.width > 0) plot.setSize({ width: Math.floor(contentRect.width), height: HEIGHT });
  }
});
