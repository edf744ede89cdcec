// Questions to the server. Every question holds all that its answer depends on.

/** An error whose message is a sentence for the visitor. */
export class Refused extends Error {}

const TRIES = 20;
let pending = 0, listener = () => {};

/** `listener({pending, busy})` is called whenever a question begins, waits for others or ends. */
export function onActivity(given) { listener = given; }

/** What the server answers, asked again for as long as it is busy. */
async function fetched(path, options) {
  pending += 1;
  listener({ pending, busy: false });
  try {
    for (let attempt = 1; ; attempt += 1) {
      const response = await fetch(path, options).catch(() => {
        throw new Refused("The server does not answer. Is skimba explore still running?");
      });
      if (response.status !== 503) return response;
      if (attempt === TRIES) throw new Refused((await response.json()).busy);
      listener({ pending, busy: true });
      await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After"))));
    }
  } finally {
    pending -= 1;
    listener({ pending, busy: false });
  }
}

/** The plain data of an answer. */
async function read(response) {
  const found = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (found.error) throw new Refused(found.error);
  return found;
}

const send = async (path, body, type) => read(await fetched(path, { method: "POST", body, headers: { "Content-Type": type } }));

/** The answer to a question by name. */
export const ask = (name, question = {}) => send(`/api/${name}`, JSON.stringify(question), "application/json");

/** The name of an uploaded picture. */
export const upload = async (file) => (await send("/api/upload", file, "application/octet-stream")).picture;

/** Where a picture is: `kind` is "seen" (as the model sees it) or "thumbnail". */
export const pictureAt = (kind, model, picture) => `/api/${kind}?${new URLSearchParams({ model, picture })}`;

/** The picture with what a side's detector or segmenter finds. */
export const foundAt = (model, picture, side) => `/api/drawn?${new URLSearchParams({ model, picture, side: JSON.stringify(side) })}`;

/** An <img> that has been loaded. */
export async function loaded(address) {
  const response = await fetched(address);
  if (!response.ok) await read(response);
  const image = new Image(), reader = new FileReader();
  reader.readAsDataURL(await response.blob());
  await new Promise((done) => { reader.onload = done; });
  image.src = reader.result;
  await image.decode().catch(() => { throw new Refused("The picture cannot be shown."); });
  return image;
}
