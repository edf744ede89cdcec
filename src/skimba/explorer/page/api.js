// Questions to the server. Every question holds all that its answer depends on.

/** An error whose message is a sentence for the visitor. */
export class Refused extends Error {}

const RETRY_MS = 700, TRIES = 20;
let pending = 0, listener = () => {};

/** `listener({pending, busy})` is called whenever a question begins, waits for others or ends. */
export function onActivity(given) { listener = given; }

async function send(path, body, type) {
  pending += 1;
  listener({ pending, busy: false });
  try {
    for (let attempt = 1; ; attempt += 1) {
      const response = await fetch(path, { method: "POST", body, headers: { "Content-Type": type } }).catch(() => {
        throw new Refused("The server does not answer. Is skimba explore still running?");
      });
      const found = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
      if (found.error) throw new Refused(found.error);
      if (!found.busy) return found;
      if (attempt === TRIES) throw new Refused(found.busy);
      listener({ pending, busy: true });
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  } finally {
    pending -= 1;
    listener({ pending, busy: false });
  }
}

/** The answer to a question by name. */
export const ask = (name, question = {}) => send(`/api/${name}`, JSON.stringify(question), "application/json");

/** The name of an uploaded picture. */
export const upload = async (file) => (await send("/api/upload", file, "application/octet-stream")).picture;

/** Where a picture is: `kind` is "seen" (as the model sees it) or "thumbnail". */
export const pictureAt = (kind, model, picture) => `/api/${kind}?${new URLSearchParams({ model, picture })}`;

/** The picture with what a side's detector or segmenter finds. */
export const foundAt = (model, picture, side) => `/api/drawn?${new URLSearchParams({ model, picture, side: JSON.stringify(side) })}`;

/** An <img> that has been loaded. */
export function loaded(address) {
  return new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => fail(new Refused("The picture cannot be shown."));
    image.src = address;
  });
}
