// One patch: who stands for it, what it reads, how strongly the class token reads it.

import { TITLES, percent } from "./answers.js";
import { ask } from "./api.js";
import { heat } from "./drawing.js";
import { groups, stageAt } from "./film.js";
import { viewOf } from "./view.js";

const element = (id) => document.getElementById(id);

/** Where a patch is, in words. */
function place(patch, { grid: [all, columns], frames }) {
  const row = Math.floor(patch / columns), rows = all / frames, frame = frames > 1 ? `frame ${Math.floor(row / rows) + 1}, ` : "";
  return `${frame}row ${(row % rows) + 1}, column ${(patch % columns) + 1}`;
}
let turn = 0;

/** Where a patch's token is on one side after a block, in words. */
export function whereabouts(answer, patch, block) {
  const { home } = stageAt(answer.stages, block), owner = home[patch];
  if (owner < 0) {
    const gone = answer.stages.find((stage) => stage.home[patch] < 0);
    return `dropped after block ${gone.after}`;
  }
  const size = groups(home).get(owner).length;
  if (size === 1) return "stands for itself";
  const merged = owner === patch ? "stands for" : `merged into ${place(owner, answer)}, which stands for`;
  return `${merged} ${size} patches`;
}

/** Ask and show. */
export async function showPatch(state) {
  const mine = (turn += 1), { patch, answers } = state, target = element("patch-maps");
  if (patch < 0 || !answers.dense) {
    element("patch-text").textContent = "";
    target.replaceChildren();
    return;
  }
  const names = Object.keys(TITLES).filter((name) => answers[name]);
  const words = names.map((name) => `${TITLES[name]}: ${whereabouts(answers[name], patch, state.block)}.`);
  element("patch-text").textContent = `Patch at ${place(patch, answers.dense)}, after block ${state.block}. ${words.join(" ")}`;
  if (state.about.offline) return;
  const block = Number(element("patch-block").value), view = element("patch-view").value;
  const found = await Promise.allSettled(
    names.map((name) => ask("patch", { model: state.model, picture: state.picture, side: state.sides[name], block, patch })),
  );
  if (mine !== turn) return;
  target.replaceChildren(...names.map((name, index) => maps(state, name, found[index], view)));
  drawMaps(state);
}

/** Draw the maps that are shown, again where the theme or the size changed. */
export function drawMaps(state) {
  for (const canvas of element("patch-maps").querySelectorAll("canvas")) {
    heat(canvas, state.image, viewOf(state), canvas.values, state.patch);
  }
}

/** A column for a side: its scans below one another. */
function maps(state, name, found, view) {
  const column = document.createElement("div"), heading = document.createElement("h3"), words = document.createElement("p");
  column.className = name;
  heading.textContent = TITLES[name];
  column.append(heading, words);
  if (found.status === "rejected") {
    words.textContent = found.reason.message;
    return column;
  }
  const { reach, walks } = found.value, scans = found.value[view];
  const share = reach && reach.reduce((sum, scan) => sum + scan[state.patch], 0);
  words.textContent = reach ? `The class token reads ${percent(share)} of its input here.` : "No class token: the head reads the mean of all tokens.";
  if (reach) words.dataset.reach = share;
  if (found.value.reads.every((scan) => scan.every((value) => value === 0))) {
    words.textContent = `No token stands for the patch in block ${element("patch-block").value}.`;
    if (view === "reads") return column;
  }
  column.append(...(scans || []).map((values, scan) => figure(values, walks[scan], name)));
  return column;
}

function figure(values, walk, name) {
  const box = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
  const share = values.reduce((sum, value) => sum + value, 0);
  canvas.values = values;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${TITLES[name]}, scan ${walk}: where it reads`);
  canvas.dataset.share = share;
  caption.textContent = `${walk.replaceAll("_", " ")}: ${percent(share)}`;
  box.append(canvas, caption);
  return box;
}
