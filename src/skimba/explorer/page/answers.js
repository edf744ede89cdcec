// One side: its picture, first answers, cost and measured time.

/** Percent with as many digits as make sense. */
export const percent = (share) => `${(100 * share).toFixed(share > 0.0995 ? 1 : 2)} %`;

/** Three digits, without a power of ten. */
const short = (value) => String(Number(value.toPrecision(3)));

export const TITLES = { dense: "Dense", pruned: "Pruned", rival: "Rival" };

/** A figure for a side, empty. */
export function makeSide(name) {
  const figure = document.createElement("figure");
  figure.className = name;
  figure.id = `side-${name}`;
  figure.innerHTML = `<figcaption><b>${TITLES[name]}</b><small class="what"></small></figcaption>
    <canvas class="picture" tabindex="0" role="img"></canvas>
    <img class="found" alt="" hidden>
    <p class="costs"><span><b class="gflops"></b> GFLOPs</span><span><b class="ms"></b> ms</span><span class="tokens"></span></p>
    <ol class="answers"></ol><p class="error" role="alert" hidden></p>`;
  return figure;
}

/** Show what is known of a side. `answer` may be missing while it is computed; `error` is a sentence in its place. */
export function showSide(figure, { what, answer, ms, stage, error, denseMs }) {
  const part = (name) => figure.querySelector(`.${name}`);
  part("what").textContent = what;
  part("error").hidden = !error;
  part("error").textContent = error || "";
  part("gflops").textContent = answer ? short(answer.gflops.exact) : "…";
  part("ms").textContent = ms ? short(ms) : "…";
  part("ms").title = "median of warmed runs of one image, all sides in turn, on this machine";
  part("gflops").title = answer ? `exact; ${answer.gflops.published.toPrecision(3)} by the papers' convention` : "";
  part("tokens").textContent = stage ? `${stage.tokens} tokens` : "";
  if (ms && denseMs) part("ms").title += `; ${(denseMs / ms).toFixed(2)} times as fast as dense`;
  part("answers").replaceChildren(...(answer ? answer.classes.map(row) : []));
}

function row({ number, name, probability }) {
  const item = document.createElement("li"), label = document.createElement("span"), value = document.createElement("span");
  const bar = document.createElement("i");
  bar.style.width = `${100 * probability}%`;
  label.textContent = label.title = name;
  value.textContent = percent(probability);
  item.dataset.number = number;
  item.dataset.probability = probability;
  item.append(label, value, bar);
  return item;
}

/** Who keeps the dense model's answer, in a sentence; of a detector or segmenter (`draws`) what is saved. */
export function duel(answers, titles, draws = false) {
  const { dense } = answers;
  if (!dense) return "";
  if (draws) {
    return ["pruned", "rival"].filter((name) => answers[name]).map((name) =>
      `${titles[name]}: ${percent(1 - answers[name].gflops.exact / dense.gflops.exact)} fewer FLOPs of the whole model.`).join(" ");
  }
  const first = dense.classes[0];
  return ["pruned", "rival"].filter((name) => answers[name]).map((name) => {
    const mine = answers[name].classes[0], saved = 1 - answers[name].gflops.exact / dense.gflops.exact;
    const verdict = mine.number === first.number
      ? `keeps “${first.name}” (${percent(first.probability)} → ${percent(mine.probability)})`
      : `turns “${first.name}” into “${mine.name}” (${percent(mine.probability)})`;
    return `${titles[name]} ${verdict} for ${percent(saved)} fewer FLOPs.`;
  }).join(" ");
}
