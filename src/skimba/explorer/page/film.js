// The picture with what is kept, merged and dropped after a block.

import { beginFrame, colour } from "./drawing.js";

const FADED = 0.15; // share of its own colour that a dropped patch keeps

/** The stage that holds after a block. */
export const stageAt = (stages, block) => stages.filter((stage) => stage.after <= block).at(-1);

/** Patches by the patch that stands for them. */
export function groups(home) {
  const found = new Map();
  home.forEach((owner, patch) => {
    if (owner >= 0) found.set(owner, [...(found.get(owner) || []), patch]);
  });
  return found;
}

/** The means of a picture's patches: [r, g, b] in raster order. */
export function patchColours(picture, [rows, columns]) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  return Array.from({ length: rows * columns }, (_, patch) => {
    const row = Math.floor(patch / columns), column = patch % columns, sum = [0, 0, 0];
    const [top, bottom] = [row, row + 1].map((r) => Math.round((r * height) / rows));
    const [left, right] = [column, column + 1].map((c) => Math.round((c * width) / columns));
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) for (let c = 0; c < 3; c += 1) sum[c] += data[4 * (y * width + x) + c];
    }
    const area = Math.max(1, (bottom - top) * (right - left));
    return sum.map((value) => value / area);
  });
}

/** Draw one side, a frame of it. `marked` is the chosen patch, `hovered` the one under the pointer; -1: none. */
export function drawFilm(canvas, picture, view, home, { marked = -1, hovered = -1 } = {}) {
  const { grid, frames } = view, [rows, columns] = grid, { context, width, height } = beginFrame(canvas, view);
  const w = width / columns, h = height / rows, members = groups(home), colours = patchColours(picture, grid);
  const regions = (number, style, thick) => outline(context, [rows / frames, columns], w, h, home.length, number, style, thick);
  const at = (patch) => [(patch % columns) * w, Math.floor(patch / columns) * h];
  context.imageSmoothingEnabled = picture.naturalWidth > width;
  context.drawImage(picture, 0, 0, width, height);
  home.forEach((owner, patch) => {
    const [x, y] = at(patch);
    if (owner < 0) {
      context.globalAlpha = 1 - FADED;
      context.fillStyle = colour("gone");
      context.fillRect(x, y, w + 0.3, h + 0.3);
      context.globalAlpha = 1;
    } else if (members.get(owner).length > 1) {
      const group = members.get(owner);
      const mean = [0, 1, 2].map((c) => group.reduce((sum, one) => sum + colours[one][c], 0) / group.length);
      context.fillStyle = `rgb(${mean.map(Math.round).join(" ")})`;
      context.fillRect(x, y, w + 0.3, h + 0.3);
    }
  });
  regions((patch) => (home[patch] >= 0 && members.get(home[patch]).length > 1 ? home[patch] : -1), colour("border"), 1);
  for (const [patch, thick] of [[hovered, 2.5], [marked, 4]]) {
    if (patch < 0) continue;
    const owner = home[patch];
    const chosen = (one) => ((owner < 0 ? one === patch : home[one] === owner) ? 0 : -1);
    regions(chosen, colour("ink"), thick);
    regions(chosen, colour("card"), thick / 2);
    if (owner >= 0) {
      const [x, y] = at(owner);
      context.fillStyle = colour("border");
      context.beginPath();
      context.arc(x + w / 2, y + h / 2, Math.max(3, Math.min(w, h) / 5), 0, 7);
      context.fill();
    }
  }
}

/** Lines around the regions of equal numbers; -1: no region. Frames of [rows, columns] patches stand below one another. */
function outline(context, [rows, columns], w, h, count, number, style, thickness) {
  context.strokeStyle = style;
  context.lineWidth = thickness;
  context.beginPath();
  for (let patch = 0; patch < count; patch += 1) {
    const mine = number(patch), row = Math.floor(patch / columns), column = patch % columns;
    if (mine < 0) continue;
    const sides = [[-1, 0, 0, 0, 1, 0], [1, 0, 0, 1, 1, 1], [0, -1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 1]];
    for (const [down, right, x0, y0, x1, y1] of sides) {
      const r = row + down, c = column + right;
      const inside = r >= 0 && Math.floor(r / rows) === Math.floor(row / rows);
      if (inside && c >= 0 && c < columns && number(r * columns + c) === mine) continue;
      context.moveTo((column + x0) * w, (row + y0) * h);
      context.lineTo((column + x1) * w, (row + y1) * h);
    }
  }
  context.stroke();
}

/** Call `on…` with the patch of the shown frame under the pointer, clicked or chosen with the arrow keys. */
export function listen(canvas, viewOf, current, onHover, onPick) {
  const clamped = (row, column) => {
    const { grid: [all, columns], frames, frame } = viewOf(), rows = all / frames;
    return (frame * rows + Math.min(Math.max(row, 0), rows - 1)) * columns + Math.min(Math.max(column, 0), columns - 1);
  };
  const patchOf = (event) => {
    const { grid: [rows, columns], frames } = viewOf(), box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * (rows / frames));
    return clamped(row, Math.floor(((event.clientX - box.left) / box.width) * columns));
  };
  canvas.addEventListener("pointermove", (event) => onHover(patchOf(event)));
  canvas.addEventListener("pointerleave", () => onHover(-1));
  canvas.addEventListener("click", (event) => onPick(patchOf(event)));
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const { grid: [rows, columns], frames } = viewOf(), patch = Math.max(current(), 0), [down, right] = moves[event.key];
    onPick(clamped((Math.floor(patch / columns) % (rows / frames)) + down, (patch % columns) + right));
  });
}
