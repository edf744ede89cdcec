// What all canvases share: their size in device pixels, colours of the theme, axes.

/** The value of a colour of the theme. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A context in CSS pixels of a canvas as large as it is shown, cleared. */
export function begin(canvas) {
  const { width, height } = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.setTransform(canvas.width / Math.max(width, 1), 0, 0, canvas.height / Math.max(height, 1), 0, 0);
  context.font = "13px system-ui, sans-serif";
  return { context, width, height };
}

/**
 * The same for a picture whose frames stand below one another, of which one is shown: what is drawn at the places of the whole
 * picture (`height` is its height) appears where it belongs. `view`: {grid, frames, frame}, `grid` of the whole picture.
 */
export function beginFrame(canvas, { grid: [rows, columns], frames, frame }) {
  canvas.style.aspectRatio = `${columns} / ${rows / frames}`;
  const { context, width, height } = begin(canvas);
  context.translate(0, -frame * height);
  return { context, width, height: frames * height };
}

/** A line of text in place of a drawing. */
export function note(canvas, text) {
  const { context, height } = begin(canvas);
  context.fillStyle = colour("soft");
  context.fillText(text, 8, height / 2);
}

/**
 * Axes of a chart; gives the functions from values to pixels.
 * `x` and `y`: {from, to, ticks, title, show}.
 */
export function axes(context, width, height, x, y) {
  const left = 52, right = 12, top = 22, bottom = 38;
  const px = (value) => left + ((value - x.from) / (x.to - x.from || 1)) * (width - left - right);
  const py = (value) => height - bottom - ((value - y.from) / (y.to - y.from || 1)) * (height - top - bottom);
  context.strokeStyle = colour("edge");
  context.fillStyle = colour("soft");
  context.lineWidth = 1;
  context.textAlign = "right";
  for (const tick of y.ticks) {
    line(context, [[left, py(tick)], [width - right, py(tick)]]);
    context.fillText(y.show(tick), left - 6, py(tick) + 4);
  }
  context.textAlign = "center";
  for (const tick of x.ticks) context.fillText(x.show(tick), px(tick), height - bottom + 16);
  context.fillText(x.title, (left + width - right) / 2, height - 4);
  context.textAlign = "left";
  context.fillText(y.title, 4, 12);
  return { px, py, left, right, top, bottom };
}

/** A polyline. */
export function line(context, points, dash = []) {
  context.setLineDash(dash);
  context.beginPath();
  points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
  context.setLineDash([]);
}

/** Labels at the right ends of lines, moved apart where they would overlap: [{text, y, colour}]. */
export function endLabels(context, x, labels, low, high) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  let last = low - 15;
  for (const label of sorted) last = label.y = Math.max(label.y, last + 15);
  let limit = high;
  for (const label of sorted.reverse()) { label.y = Math.min(label.y, limit); limit = label.y - 15; }
  context.textAlign = "left";
  for (const label of sorted) { context.fillStyle = label.colour; context.fillText(label.text, x, label.y + 4); }
}

/** Round numbers between two values. */
export function ticks(from, to, count) {
  const rough = (to - from) / count, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) || power;
  const found = [];
  for (let value = Math.ceil(from / step) * step; value <= to + step / 1e6; value += step) found.push(value);
  return found;
}

/** A map of a grid as a heat map over the faded picture; `values` in raster order, shaded by their share of the largest. */
export function heat(canvas, picture, view, values, marked = -1) {
  const [rows, columns] = view.grid, { context, width, height } = beginFrame(canvas, view);
  const most = Math.max(...values, 1e-12), w = width / columns, h = height / rows;
  context.imageSmoothingEnabled = false;
  context.filter = "grayscale(1)";
  context.drawImage(picture, 0, 0, width, height);
  context.filter = "none";
  context.fillStyle = colour("card");
  context.globalAlpha = 0.7;
  context.fillRect(0, 0, width, height);
  context.fillStyle = colour("heat");
  values.forEach((value, patch) => {
    context.globalAlpha = Math.max(0, value / most) ** 0.5 * 0.92;
    context.fillRect((patch % columns) * w, Math.floor(patch / columns) * h, w + 0.3, h + 0.3);
  });
  context.globalAlpha = 1;
  if (marked >= 0) {
    context.strokeStyle = colour("border");
    context.lineWidth = 2.5;
    context.strokeRect((marked % columns) * w, Math.floor(marked / columns) * h, w, h);
  }
}
