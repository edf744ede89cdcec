// The scan as a line: what is left of the state further along, under each alignment.

import { ask } from "./api.js";
import { axes, begin, colour, endLabels, line, note, ticks } from "./drawing.js";
import { stageAt } from "./film.js";

const element = (id) => document.getElementById(id);
const RULES = { dense: [], none: [2, 3], decay: [9, 4], hold: [5, 2] }; // and their dashes
const STRIP = 96; // pixels below the chart
const LEAST = 30, FORGOTTEN = 0.03; // steps shown at least; the share of the dense state at which the line may end
let turn = 0, scans = [], asked = null;

/** Ask for the scans of the block and show one. */
export async function showLine(state) {
  const mine = (turn += 1), name = element("line-side").value, canvas = element("line-canvas");
  if (!state.answers[name]) return note(canvas, "No answer on this side.");
  const block = Number(element("patch-block").value);
  try {
    const found = await ask("line", { model: state.model, picture: state.picture, side: state.sides[name], block });
    if (mine !== turn) return;
    scans = found.scans;
    asked = { home: stageAt(state.answers[name].stages, block - 1).home, name, block, rule: found.rule };
  } catch (error) {
    if (mine === turn) note(canvas, error.message);
    return;
  }
  const select = element("line-scan"), before = select.value;
  select.replaceChildren(...scans.map((scan, index) => new Option(scan.walk.replaceAll("_", " "), index)));
  if (before && Number(before) < scans.length) select.value = before;
  drawLine(state);
}

/** What is left, as points [step of the walk, share], from step `start` on, where `exponents[k]` pass up to visit `k`. */
export function remaining(at, exponents, start) {
  let passed = 0;
  return at.slice(start).map((step, index) => {
    if (index) passed += exponents[start + index];
    return [step, Math.exp(-passed)];
  });
}

/** Draw the scan that is chosen. */
export function drawLine(state) {
  const scan = scans[Number(element("line-scan").value) || 0], canvas = element("line-canvas");
  if (!scan || !asked) return;
  const memory = scan.memories[element("line-memory").value], patch = Math.max(state.patch, 0);
  const owner = asked.home[patch], sought = owner < 0 ? patch : owner;
  const step = Math.max(0, scan.visits.indexOf(sought));
  const start = Math.max(0, scan.at.findIndex((one) => one >= step)), first = scan.at[start];
  const { context, width, height } = begin(canvas);
  const whole = scan.visits.map((_, index) => index);
  const series = { dense: remaining(whole, memory.dense, first) };
  const forgotten = series.dense.find(([step, share]) => step >= first + LEAST && share < FORGOTTEN);
  const last = forgotten ? forgotten[0] : scan.visits.length - 1;
  for (const rule of ["none", "decay", "hold"]) if (memory[rule]) series[rule] = remaining(scan.at, memory[rule], start);
  const x = { from: first, to: last, ticks: ticks(first, last, 6), title: "position along the scan", show: (value) => value };
  const y = { from: 0, to: 1, ticks: [0, 0.25, 0.5, 0.75, 1], title: "share of the state that is left", show: (value) => `${100 * value} %` };
  const { px, py } = axes(context, width - 52, height - STRIP, x, y);
  drawTimes(context, memory, scan, first, last, px, height - 8);
  const labels = [];
  for (const [rule, points] of Object.entries(series)) {
    const shown = points.filter(([at]) => at <= last).map(([at, share]) => [px(at), py(share)]);
    if (!shown.length) continue;
    context.strokeStyle = colour(rule);
    context.lineWidth = rule === "dense" ? 3 : 2.2;
    line(context, shown, RULES[rule]);
    labels.push({ text: rule, y: shown.at(-1)[1], colour: colour(rule) });
  }
  endLabels(context, px(last) + 8, labels, 22, height - STRIP - 40);
  describe(scan, series, first, last, memory, owner);
}

/** How much time passes up to each position: dense in grey; in front of it, at the tokens that are left, the side's own. */
function drawTimes(context, memory, scan, first, last, px, base) {
  const rule = memory[asked.rule] ? asked.rule : "none", left = new Map(scan.at.map((step, index) => [step, memory[rule][index]]));
  const w = Math.max(2, (px(last) - px(first)) / (last - first) - 1), steps = Array.from({ length: last - first }, (_, index) => first + 1 + index);
  const most = Math.max(...steps.map((step) => Math.max(memory.dense[step], left.get(step) || 0)), 1e-12), tall = (value) => (value / most) * (STRIP - 40);
  for (const step of steps) {
    context.fillStyle = colour("soft");
    context.globalAlpha = 0.4;
    context.fillRect(px(step) - w / 2, base - tall(memory.dense[step]), w, tall(memory.dense[step]));
    context.globalAlpha = 1;
    if (left.has(step)) {
      context.fillStyle = colour(rule);
      context.fillRect(px(step) - w / 4, base - tall(left.get(step)), w / 2, tall(left.get(step)));
    } else {
      context.fillStyle = colour("gone");
      context.fillRect(px(step) - w / 2, base + 2, w, 4);
    }
  }
  context.fillStyle = colour("soft");
  context.textAlign = "left";
  context.fillText(`time up to each token: grey dense, colour ${rule}`, 4, base - STRIP + 36);
}

function describe(scan, series, first, last, memory, owner) {
  const reach = Object.entries(series).map(([rule, points]) => {
    const half = points.find(([, share]) => share < 0.5);
    return `${rule} ${half ? `${half[0] - first} positions` : `beyond ${last - first}`}`;
  });
  const gone = owner < 0 ? "The chosen patch is dropped; the line starts at the next token. " : "";
  element("line-text").textContent = `${gone}Channel ${memory.channel}, state ${memory.state} of block ${asked.block}. Half is forgotten after: ${reach.join(", ")}.`
    + (series.hold ? "" : " Hold needs owners, which this method does not leave.");
  element("line-canvas").setAttribute("aria-label", `Share of the state left along scan ${scan.walk}. Half is forgotten after: ${reach.join(", ")}.`);
}
