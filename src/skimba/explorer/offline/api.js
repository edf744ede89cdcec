// Questions answered in the browser itself, by onnxruntime-web: the static page has this in place of the server's api.js.

import * as ort from "./ort/ort.wasm.min.mjs";

/** An error whose message is a sentence for the visitor. */
export class Refused extends Error {}

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

const ROUNDS = 5, TOP = 5, LARGEST = 32 << 20;
const manifest = fetch("explorer.json").then((response) => response.json());
const photos = new Map(), sessions = new Map();
let known = null, pending = 0, listener = () => {}, last = Promise.resolve();

export function onActivity(given) { listener = given; }

async function active(compute) {
  pending += 1;
  listener({ pending, busy: false });
  const mine = last.then(compute, compute); // one at a time
  last = mine.catch(() => {});
  try {
    return await mine;
  } finally {
    pending -= 1;
    listener({ pending, busy: false });
  }
}

export const ask = (name, question = {}) => active(async () => {
  known ||= await manifest;
  if (!(name in QUESTIONS)) throw new Refused("The static page does not answer this; skimba explore does.");
  return QUESTIONS[name](question);
});

export const upload = (file) => active(async () => {
  const bitmap = await createImageBitmap(file).catch(() => { throw new Refused("The picture cannot be read as an image."); });
  const name = `photo:${photos.size}`;
  photos.set(name, bitmap);
  return name;
});

export function pictureAt(kind, model, picture) {
  if (!photos.has(picture)) return `pictures/${model}-${picture.split(":")[1]}.png`;
  return seen(modelOf(model), photos.get(picture)).toDataURL();
}

/** Only classifiers are exported, and they find nothing that is drawn. */
export const foundAt = () => "";

export function loaded(address) {
  return new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => fail(new Refused("The picture cannot be shown."));
    image.src = address;
  });
}

const modelOf = (name) => known.models.find((model) => model.name === name);

/** The middle of a photo at the model's size, on white, grey where the model has one channel. */
function seen({ size: [height, width], channels, crop }, photo) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true }), scale = Math.min(photo.width / width, photo.height / height) * crop;
  const [w, h] = [width * scale, height * scale];
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, (photo.width - w) / 2, (photo.height - h) / 2, w, h, 0, 0, width, height);
  if (channels === 1) {
    const pixels = context.getImageData(0, 0, width, height), { data } = pixels;
    for (let at = 0; at < data.length; at += 4) data.fill((data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 32768) >> 16, at, at + 3);
    context.putImageData(pixels, 0, 0);
  }
  return canvas;
}

/** What the model takes, as a tensor (1 c height width). */
async function tensor(model, picture) {
  const image = await loaded(pictureAt("seen", model.name, picture)), [height, width] = model.size;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height), area = height * width, values = new Float32Array(model.channels * area);
  for (let c = 0; c < model.channels; c += 1) {
    for (let at = 0; at < area; at += 1) values[c * area + at] = (data[4 * at + c] / 255 - model.mean[c]) / model.std[c];
  }
  return new ort.Tensor("float32", values, [1, model.channels, height, width]);
}

function sideOf(model, { method, align, share, flops }) {
  const found = model.sides.find((side) => side.method === method && (method === "dense" || Math.abs(side.share - share) < 1e-9));
  if (!found || align || flops) throw new Refused("The static page has no file for this; skimba explore takes any setting.");
  return found;
}

function session(side) {
  if (!sessions.has(side.file)) sessions.set(side.file, ort.InferenceSession.create(side.file));
  return sessions.get(side.file);
}

async function answer({ model: name, picture, side: asked }) {
  const model = modelOf(name), side = sideOf(model, asked), running = await session(side);
  const outputs = await running.run({ images: await tensor(model, picture) });
  const [logits, ...places] = running.outputNames.map((output) => Array.from(outputs[output].data, Number));
  const most = Math.max(...logits), odds = logits.map((logit) => Math.exp(logit - most)), sum = odds.reduce((a, b) => a + b);
  const best = odds.map((odd, number) => ({ number, name: model.classes[number] || `class ${number}`, probability: odd / sum }));
  best.sort((a, b) => b.probability - a.probability);
  const each = side.owned ? 2 : 1;
  const stages = side.after.map((after, stage) => ({ after, ...home(model, places[each * stage], side.owned && places[each * stage + 1]) }));
  const all = { after: 0, tokens: model.cells.length, home: model.cells.map((_, patch) => patch) };
  return { classes: best.slice(0, TOP), grid: model.grid, frames: 1, depth: model.depth, classToken: model.classToken, stages: [all, ...stages], gflops: side.gflops, code: side.code };
}

/** The patch that stands for each, from the positions of the tokens and, with owners, the token of every position. */
function home(model, positions, owner) {
  const patchOf = new Map(model.cells.map((position, patch) => [position, patch])), there = new Set(positions);
  const found = model.cells.map((position) => (owner ? patchOf.get(positions[owner[position]]) : there.has(position) ? patchOf.get(position) : -1));
  return { tokens: positions.filter((position) => patchOf.has(position)).length, home: found };
}

async function times({ model: name, picture, sides }) {
  const model = modelOf(name), images = await tensor(model, picture), taken = sides.map(() => []);
  const running = await Promise.all(sides.map((side) => session(sideOf(model, side))));
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const [place, one] of running.entries()) {
      const start = performance.now();
      await one.run({ images });
      if (round) taken[place].push(performance.now() - start);
    }
  }
  return taken.map((values) => values.sort((a, b) => a - b)[ROUNDS >> 1]);
}

const QUESTIONS = {
  about: () => ({ version: known.version, models: known.models.map((model) => model.name), methods: known.methods, alignments: [], largestUpload: LARGEST, offline: { shares: known.shares } }),
  model: ({ model: name }) => {
    const { depth, size, channels, examples } = modelOf(name);
    return { depth, size, channels, examples, measurable: false, own: null };
  },
  answer,
  times,
};
