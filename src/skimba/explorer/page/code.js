// The Python lines and the command that do the same.

const element = (id) => document.getElementById(id);
const KINDS = { python: "Python", command: "Command line", file: "pruning.json, which the command reads" };

/** Show the code of the side that is chosen. */
export function showCode(state) {
  const code = state.answers[element("code-side").value]?.code;
  element("code-blocks").replaceChildren(...(code ? Object.keys(KINDS).filter((kind) => code[kind]).map((kind) => block(kind, code[kind])) : []));
}

function block(kind, text) {
  const box = document.createElement("div"), head = document.createElement("div"), title = document.createElement("b");
  const copy = document.createElement("button"), content = document.createElement("pre");
  box.className = "copyable";
  title.textContent = KINDS[kind];
  copy.type = "button";
  copy.textContent = "Copy";
  copy.addEventListener("click", async () => {
    copy.textContent = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Select and copy by hand");
  });
  content.tabIndex = 0;
  content.id = `code-${kind}`;
  content.textContent = text;
  head.append(title, copy);
  box.append(head, content);
  return box;
}
