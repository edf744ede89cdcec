// The page: its state, its controls, and what is drawn when either changes.

import { TITLES, duel, makeSide, showSide } from "./answers.js";
import { Refused, ask, foundAt, loaded, onActivity, pictureAt, upload } from "./api.js";
import { showCode } from "./code.js";
import { drawCurve, showCurve, startCurve } from "./curve.js";
import { drawFilm, listen, stageAt } from "./film.js";
import { drawLine, showLine } from "./line.js";
import { drawMemory, showMemory } from "./memory.js";
import { drawMaps, showPatch } from "./patch.js";
import { middle, viewOf } from "./view.js";

const element = (id) => document.getElementById(id);
const PATIENCE_MS = 2000;
const NAMES = Object.keys(TITLES);
const state = {
  about: null, info: null, model: "", picture: "", image: null, block: 0, frame: 0, patch: -1, hovered: -1,
  sides: {}, answers: {}, errors: {}, times: {},
  what(name) {
    const { method, align } = state.sides[name] || {};
    return method + (align ? ` with ${align}` : "");
  },
};
const figures = Object.fromEntries(NAMES.map((name) => [name, makeSide(name)]));
let turn = 0, timer = null;

function readSides() {
  const kind = document.querySelector("input[name=amount]:checked").value, amount = Number(element("amount").value);
  const side = (method, align) => (method === "own" ? { method } : { method, align: align || null, [kind]: amount });
  state.sides = {
    dense: { method: "dense" },
    pruned: side(element("method").value, element("align").value),
    rival: side(element("rival-method").value, element("rival-align").value),
  };
  element("amount-value").textContent = `${Math.round(100 * amount)} %`;
}

/** Ask for everything that the settings change, and show it as it comes. */
async function refresh() {
  readSides();
  if (!state.picture) return;
  const mine = (turn += 1), { model, picture, sides } = state;
  document.querySelector("main").setAttribute("aria-busy", "true");
  try {
    const image = loaded(pictureAt("seen", model, picture));
    const asked = NAMES.map((name) => ask("answer", { model, picture, side: sides[name] }));
    const found = await Promise.allSettled(asked);
    const seen = await image;
    if (mine !== turn) return;
    state.image = seen;
    state.times = {};
    NAMES.forEach((name, index) => {
      state.answers[name] = found[index].value;
      state.errors[name] = found[index].reason?.message;
    });
    fitRanges();
    show();
    await showFound(mine);
    await Promise.all([measureTimes(mine), look()]);
  } catch (error) {
    fail(error);
  } finally {
    if (mine === turn) document.querySelector("main").setAttribute("aria-busy", "false");
  }
}

/** What is known of the chosen patch and block. */
async function look() {
  if (state.info.draws) return;
  const views = state.about.offline ? [showPatch(state)] : [showPatch(state), showLine(state), showMemory(state)];
  await Promise.all(views);
}

/** What detectors and segmenters find, drawn on the picture of each side. */
async function showFound(mine) {
  const { model, picture, sides } = state;
  await Promise.all(NAMES.map(async (name) => {
    const image = figures[name].querySelector(".found");
    image.hidden = !state.info.draws || !state.answers[name];
    if (image.hidden) return;
    const { src } = await loaded(foundAt(model, picture, sides[name]));
    if (mine !== turn) return;
    image.src = src;
    image.alt = `${TITLES[name]}: ${state.answers[name].classes.map((one) => one.name).join(", ") || "nothing found"}`;
  }));
}

async function measureTimes(mine) {
  const names = NAMES.filter((name) => state.answers[name]);
  if (!names.length) return;
  const times = await ask("times", { model: state.model, picture: state.picture, sides: names.map((name) => state.sides[name]) });
  if (mine !== turn) return;
  state.times = Object.fromEntries(names.map((name, index) => [name, times[index]]));
  show();
}

function fitRanges() {
  const depth = state.info.depth;
  element("block").max = element("patch-block").max = depth;
  state.block = Math.min(state.block, depth);
  element("block").value = state.block;
  element("patch-block").value = Math.min(Number(element("patch-block").value) || 1, depth);
  const { dense } = state.answers, frames = dense ? dense.frames : 1;
  element("frame-row").hidden = frames === 1;
  element("frame").max = frames;
  state.frame = Math.min(state.frame, frames - 1);
  element("frame").value = state.frame + 1;
  const patches = dense ? dense.grid[0] * dense.grid[1] : 0;
  if (state.patch < 0 || state.patch >= patches) state.patch = dense ? middle(viewOf(state)) : -1;
}

function show() {
  element("block-value").textContent = `${state.block} of ${state.info.depth}`;
  element("frame-value").textContent = `${state.frame + 1} of ${element("frame").max}`;
  for (const name of NAMES) {
    const answer = state.answers[name], stage = answer && stageAt(answer.stages, state.block);
    const what = name === "dense" ? "nothing removed" : `${state.what(name)}${answer ? `, after blocks ${answer.stages.slice(1).map((one) => one.after).join(", ") || "none"}` : ""}`;
    showSide(figures[name], { what, answer, stage, ms: state.times[name], denseMs: state.times.dense, error: state.errors[name] });
    const canvas = figures[name].querySelector("canvas");
    if (stage && state.image) {
      drawFilm(canvas, state.image, viewOf(state, answer), stage.home, { marked: state.patch, hovered: state.hovered });
      canvas.setAttribute("aria-label", `${TITLES[name]}: ${stage.tokens} tokens after block ${state.block}. Arrow keys choose a patch.`);
    }
  }
  element("duel").textContent = duel(state.answers, { pruned: state.what("pruned"), rival: state.what("rival") }, state.info.draws);
  showCode(state);
}

/** Everything again: the theme or the size of the window changed. */
function redraw() {
  if (!state.image) return;
  show();
  drawMaps(state);
  drawLine(state);
  drawCurve();
  drawMemory(state);
}

function pick(patch) {
  state.patch = patch;
  show();
  look().catch(fail);
}

function fail(error) {
  const status = element("status");
  status.className = "failed";
  status.textContent = error instanceof Refused ? error.message : `The page failed: ${error.message}`;
  if (!(error instanceof Refused)) console.error(error);
}

function later() {
  readSides();
  clearTimeout(timer);
  timer = setTimeout(refresh, 120);
}

async function chooseModel() {
  state.model = element("model").value;
  state.info = await ask("model", { model: state.model });
  document.body.classList.toggle("draws", Boolean(state.info.draws));
  const own = state.info.own ? [["own", "as the model came"]] : [];
  for (const id of ["method", "rival-method"]) {
    const select = element(id), before = select.value;
    const options = [...own, ...Object.keys(state.about.methods).map((name) => [name, name])];
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    for (const option of select.options) option.title = state.about.methods[option.value] || state.info.own;
    select.value = before && select.querySelector(`[value="${before}"]`) ? before : own.length && id === "method" ? "own" : id === "method" ? "hold" : "top";
  }
  element("examples").replaceChildren(...state.info.examples.map(exampleButton));
  if (!state.picture || state.picture.startsWith("example:")) state.picture = `example:${Math.min(3, state.info.examples.length - 1)}`;
  pressExample();
  state.block = Math.round(state.info.depth / 2);
  [state.frame, state.patch] = [0, -1];
  element("patch-block").value = state.block + 1;
  showCurve(state);
  await refresh();
}

function exampleButton(name, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = name;
  loaded(pictureAt("thumbnail", state.model, `example:${index}`)).then((image) => {
    image.alt = name;
    button.append(image);
  }).catch(fail);
  button.addEventListener("click", () => choosePicture(`example:${index}`));
  return button;
}

function choosePicture(picture) {
  state.picture = picture;
  element("upload-error").hidden = true;
  pressExample();
  return refresh();
}

function pressExample() {
  [...element("examples").children].forEach((button, index) => button.setAttribute("aria-pressed", String(state.picture === `example:${index}`)));
}

async function takeFile(file) {
  const error = element("upload-error");
  try {
    if (file.size > state.about.largestUpload) throw new Refused(`A photo has at most ${state.about.largestUpload >> 20} MB here, this has ${Math.ceil(file.size / 2 ** 20)}.`);
    await choosePicture(await upload(file));
  } catch (reason) {
    error.textContent = reason.message;
    error.hidden = false;
  }
}

function listenToFiles() {
  const drop = element("drop"), input = element("file");
  input.addEventListener("change", () => { if (input.files.length) takeFile(input.files[0]); input.value = ""; });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) takeFile(event.dataTransfer.files[0]);
    });
  }
}

function listenToControls() {
  for (const id of ["method", "align", "rival-method", "rival-align", "amount"]) element(id).addEventListener("input", later);
  for (const radio of document.querySelectorAll("input[name=amount]")) radio.addEventListener("input", later);
  element("model").addEventListener("input", () => chooseModel().catch(fail));
  element("block").addEventListener("input", () => { state.block = Number(element("block").value); redraw(); });
  element("frame").addEventListener("input", () => { state.frame = Number(element("frame").value) - 1; redraw(); });
  element("patch-block").addEventListener("change", () => { fitRanges(); look().catch(fail); });
  element("patch-view").addEventListener("input", () => showPatch(state).catch(fail));
  element("line-side").addEventListener("input", () => showLine(state).catch(fail));
  for (const id of ["line-scan", "line-memory"]) element(id).addEventListener("input", () => drawLine(state));
  element("code-side").addEventListener("input", () => showCode(state));
  const hover = (patch) => { if (patch !== state.hovered) { state.hovered = patch; show(); } };
  for (const name of NAMES) {
    listen(figures[name].querySelector("canvas"), () => viewOf(state, state.answers[name] || { grid: [1, 1], frames: 1 }), () => state.patch, hover, pick);
  }
  window.addEventListener("resize", redraw);
}

function listenToTheme() {
  const system = window.matchMedia("(prefers-color-scheme: dark)"), choices = ["system", "light", "dark"];
  let choice = "system";
  const apply = () => {
    document.documentElement.dataset.theme = choice === "system" ? (system.matches ? "dark" : "light") : choice;
    element("theme").textContent = `Theme: ${choice}`;
    redraw();
  };
  element("theme").addEventListener("click", () => { choice = choices[(choices.indexOf(choice) + 1) % choices.length]; apply(); });
  system.addEventListener("change", apply);
  apply();
}

/** Without a server: only what was exported can be asked for. */
function goOffline(shares) {
  document.body.classList.add("offline");
  const amount = element("amount");
  [amount.min, amount.max] = [shares[0], shares.at(-1)];
  amount.step = shares.length > 1 ? shares[1] - shares[0] : 1;
  amount.value = shares.at(Math.floor(shares.length / 2));
}

let patience = null;

/** Whether something is computed, and that it waits where it takes long: other visitors' questions may come first. */
function showActivity({ pending, busy }) {
  const status = element("status");
  clearTimeout(patience);
  if (status.className === "failed" && !pending) return;
  status.className = busy ? "busy" : "";
  status.textContent = busy ? "The server is busy; waiting for a turn" : pending ? "Computing" : "Ready";
  if (pending && !busy) patience = setTimeout(() => { status.textContent = "Computing; others may come first"; }, PATIENCE_MS);
}

async function start() {
  listenToTheme();
  onActivity(showActivity);
  state.about = await ask("about");
  element("model").replaceChildren(...state.about.models.map((name) => new Option(name, name)));
  for (const id of ["align", "rival-align"]) {
    element(id).replaceChildren(new Option("method's own", ""), ...state.about.alignments.map((name) => new Option(name, name)));
  }
  if (state.about.offline) goOffline(state.about.offline.shares);
  element("sides").replaceChildren(...NAMES.map((name) => figures[name]));
  listenToFiles();
  listenToControls();
  startCurve(state);
  await chooseModel();
}

start().catch(fail);
