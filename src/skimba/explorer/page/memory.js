// How long the scans remember, and what the chosen patch's token depends on.

import { TITLES, percent } from "./answers.js";
import { ask } from "./api.js";
import { axes, begin, colour, heat, line, note } from "./drawing.js";
import { viewOf } from "./view.js";

const element = (id) => document.getElementById(id);
const DASH = { dense: [], pruned: [8, 3], rival: [2, 3] };
let turn = 0, shown = {};

/** Ask for every side and show. */
export async function showMemory(state) {
  const mine = (turn += 1), names = Object.keys(TITLES).filter((name) => state.answers[name]);
  const block = Number(element("patch-block").value), { model, picture, patch } = state;
  const found = await Promise.allSettled(names.map((name) => ask("memory", { model, picture, side: state.sides[name], block, patch })));
  if (mine !== turn) return;
  shown = Object.fromEntries(names.map((name, index) => [name, found[index].value]).filter(([, value]) => value));
  const words = Object.entries(shown).map(([name, { median, pace }]) => `${TITLES[name]}: half of the states remember less than ${median.toPrecision(2)} positions; its clock runs at ${pace.toFixed(2)} of the dense pace.`);
  element("memory-text").textContent = `Block ${block}. ${words.join(" ")}`;
  element("field-maps").replaceChildren(...Object.keys(shown).map((name) => column(name)));
  drawMemory(state);
}

/** Draw what is known. */
export function drawMemory(state) {
  const canvas = element("memory-canvas"), sides = Object.entries(shown);
  if (!sides.length) return note(canvas, "No answer yet.");
  const { edges } = sides[0][1], { context, width, height } = begin(canvas), count = edges.length - 1;
  const most = Math.max(...sides.flatMap(([, { lengths }]) => lengths)), top = Math.ceil(most * 10) / 10;
  const x = { from: 0, to: count, ticks: edges.map((_, index) => index).filter((index) => index % 2 === 0), title: "decay length in positions", show: (index) => edges[index] };
  const y = { from: 0, to: top, ticks: [0, top / 2, top], title: "share of channels and states", show: (value) => `${Math.round(100 * value)} %` };
  const { px, py } = axes(context, width, height, x, y);
  sides.forEach(([name, { lengths }], index) => {
    context.strokeStyle = colour(name);
    context.lineWidth = name === "dense" ? 3 : 2.2;
    line(context, lengths.flatMap((share, bin) => [[px(bin), py(share)], [px(bin + 1), py(share)]]), DASH[name]);
    line(context, [[width - 110, 30 + 18 * index], [width - 80, 30 + 18 * index]], DASH[name]);
    context.fillStyle = colour("ink");
    context.fillText(TITLES[name], width - 72, 34 + 18 * index);
  });
  canvas.setAttribute("aria-label", `Decay lengths. ${element("memory-text").textContent}`);
  for (const map of element("field-maps").querySelectorAll("canvas")) heat(map, state.image, viewOf(state), map.values, state.patch);
}

function column(name) {
  const { field, area } = shown[name], box = document.createElement("div"), heading = document.createElement("h3"), words = document.createElement("p");
  box.className = name;
  heading.textContent = TITLES[name];
  words.textContent = field ? `${percent(area)} of the pixels hold 80 % of the receptive field.` : "No token stands for the patch.";
  box.append(heading, words);
  if (field) {
    const canvas = document.createElement("canvas");
    canvas.values = field;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${TITLES[name]}: the receptive field of the chosen patch`);
    box.append(canvas);
  }
  return box;
}
