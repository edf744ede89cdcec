// Accuracy against the share kept, measured in the background.

import { ask } from "./api.js";
import { axes, begin, colour, endLabels, line, note } from "./drawing.js";

const element = (id) => document.getElementById(id);
const POLL_MS = 400, DASH = { pruned: [], rival: [7, 4] };
let running = null, shown = null;

/** Set up the buttons. */
export function startCurve(state) {
  element("curve-start").addEventListener("click", () => measure(state));
  element("curve-cancel").addEventListener("click", () => running && ask("cancel-curve", { curve: running }));
}

/** What is known of the model's pictures. */
export function showCurve(state) {
  const { measurable } = state.info;
  element("curve-start").disabled = !measurable;
  element("curve-note").textContent = measurable
    ? "On the labelled pictures in the package, each share at the method's own stages. The page can be used meanwhile."
    : "The package has no labelled pictures for this model's classes: skimba eval measures it on yours.";
  drawCurve();
}

async function measure(state) {
  const names = ["pruned", "rival"], sides = names.map((name) => state.sides[name]);
  const titles = Object.fromEntries(names.map((name) => [name, state.what(name)]));
  const images = Math.min(1000, Math.max(1, Number(element("curve-images").value) || 200));
  busy(true);
  try {
    const { curve } = await ask("start-curve", { model: state.model, sides, images });
    running = curve;
    for (let found; ; await new Promise((done) => setTimeout(done, POLL_MS))) {
      found = await ask("curve", { curve });
      element("curve-progress").value = found.done / found.total;
      shown = { names, titles, ...found };
      drawCurve();
      if (found.state !== "running") break;
    }
    element("curve-text").textContent = summary();
  } catch (error) {
    element("curve-text").textContent = error.message;
  } finally {
    running = null;
    busy(false);
  }
}

function busy(is) {
  element("curve-start").hidden = is;
  element("curve-cancel").hidden = element("curve-progress").hidden = !is;
  if (is) element("curve-text").textContent = "Measuring";
}

function summary() {
  if (shown.state === "failed") return `Failed: ${shown.reason}`;
  const ended = shown.state === "cancelled" ? "Cancelled. " : "";
  const parts = shown.names.map((name, side) => {
    const rows = shown.rows.filter((row) => row.side === side);
    return rows.map((row) => `${shown.titles[name]} ${row.share}: ${(100 * row.accuracy).toFixed(1)} %`).join(", ");
  });
  return `${ended}${shown.images} images. ${parts.filter(Boolean).join("; ")}`;
}

/** Draw what has been measured so far. */
export function drawCurve() {
  const canvas = element("curve-canvas");
  if (!shown) return note(canvas, "Nothing measured yet.");
  const { context, width, height } = begin(canvas), lowest = Math.min(1, ...shown.rows.map((row) => row.accuracy));
  const from = Math.max(0, Math.floor(lowest * 10 - 0.2) / 10);
  const x = { from: 1, to: 0.5, ticks: [1, 0.9, 0.8, 0.7, 0.6, 0.5], title: "share kept at each stage", show: (value) => value.toFixed(1) };
  const steps = Array.from({ length: Math.round((1 - from) * 10) + 1 }, (_, index) => from + index / 10);
  const every = steps.filter((_, index) => steps.length < 7 || index % 2 === 0);
  const y = { from, to: 1, ticks: every, title: "accuracy", show: (value) => `${Math.round(100 * value)} %` };
  const { px, py } = axes(context, width - 80, height, x, y), labels = [];
  shown.names.forEach((name, side) => {
    const points = shown.rows.filter((row) => row.side === side).map((row) => [px(row.share), py(row.accuracy)]);
    if (!points.length) return;
    context.strokeStyle = context.fillStyle = colour(name);
    context.lineWidth = 2.4;
    line(context, points, DASH[name]);
    for (const [left, top] of points) context.fillRect(left - 3, top - 3, 6, 6);
    labels.push({ text: shown.titles[name], y: points.at(-1)[1], colour: colour(name) });
  });
  endLabels(context, px(0.5) + 8, labels, 22, height - 40);
  canvas.setAttribute("aria-label", `Accuracy against share kept. ${summary()}`);
}
