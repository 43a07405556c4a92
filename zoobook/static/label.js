// Labels by hand: what is seen and which keys do what. Python decides what is shown and saves every answer (label.py);
// nothing counts as answered here before Python says that it is on disk.
const PATIENCE = 5000; // milliseconds without a word from Python, after which to warn

function make(tag, options = {}, ...inside) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...inside);
  return node;
}

function render({ model, el }) {
  let zoom = 1, contrast = 1, waiting = null, drawn = null, addresses = [], count = 0;

  function ask(message) {
    if (waiting) return; // the galaxy that the key was meant for is not on the screen any more
    const number = ++count;
    problem.textContent = "";
    waiting = setTimeout(() => {
      waiting = null;
      problem.textContent = "Python does not answer, so the last key is not saved; all before it are. " +
        "If the kernel is busy, wait; if it was stopped, run the cell again.";
    }, PATIENCE);
    try { model.send({ ...message, number }); } catch { /* no kernel: the warning comes */ }
  }
  const here = () => model.get("view").cells[model.get("view").current];
  const tell = (message) => ask({ ...message, id: here()?.id });
  const adjust = (newZoom, newContrast) => {
    zoom = Math.min(8, Math.max(1, newZoom));
    contrast = Math.min(8, Math.max(0.5, newContrast)); // black stays black, so that faint arms come out
    root.style.setProperty("--zoom", zoom);
    root.style.setProperty("--contrast", contrast);
    status.textContent = `zoom ${zoom.toFixed(1)}, contrast ${contrast.toFixed(1)}`;
  };

  const first = model.get("view");
  const step = (by) => () => tell({ do: "move", by });
  const commands = [
    ["ArrowLeft", "back", step(-1), "←"],
    ["ArrowRight", "next", step(1), "→"],
    ["u", "not sure", () => tell({ do: "not sure" })],
    ["z", "undo", () => tell({ do: "undo" })],
    ["+", "zoom in", () => adjust(zoom * 1.25, contrast)],
    ["-", "zoom out", () => adjust(zoom / 1.25, contrast)],
    ["c", "more contrast", () => adjust(zoom, contrast * 1.2)],
    ["x", "less contrast", () => adjust(zoom, contrast / 1.2)],
  ];
  const answers = first.answers.map(({ key, name }, choice) => [key, name, () => tell({ do: "answer", choice })]);
  const row = () => Math.max(1, Math.round(cells.clientWidth / (cells.firstChild?.offsetWidth || 1)));
  const keys = new Map([...commands, ...answers].map(([key, , run]) => [key, run]));
  keys.set("Backspace", keys.get("z")).set("=", keys.get("+"));
  keys.set("ArrowUp", () => step(-row())()).set("ArrowDown", () => step(row())());

  const button = ([key, name, run, sign]) =>
    make("button", { type: "button", "aria-keyshortcuts": key, onclick: run }, name, make("kbd", { "aria-hidden": true }, sign ?? key));
  const bar = make("progress", { "aria-label": "galaxies answered" });
  const place = make("span");
  const cells = make("div", { class: "cells" });
  const status = make("p", { role: "status" });
  const problem = make("p", { role: "alert" });
  const root = make("div", {
    class: "zoobook-label", tabindex: 0, role: "application", "data-lm-suppress-shortcuts": true,
    "aria-label": `Label galaxies: ${first.column}`,
  },
    make("div", { class: "head" }, make("b", {}, first.column), bar, place),
    cells,
    make("div", { role: "group", "aria-label": "Answers" }, ...answers.map(button), ...commands.slice(2, 4).map(button)),
    make("div", { role: "group", "aria-label": "View" }, ...commands.slice(0, 2).map(button), ...commands.slice(4).map(button)),
    status, problem);
  root.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys.has(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat || "+-=cx".includes(event.key)) keys.get(event.key)();
  };

  function show() {
    const view = model.get("view"), pictures = model.get("pictures"); // both came in one message
    if (pictures !== drawn) {
      addresses.forEach(URL.revokeObjectURL);
      addresses = pictures.map((bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/png" })));
      drawn = pictures;
    }
    clearTimeout(waiting);
    waiting = null;
    cells.classList.toggle("grid", view.cells.length > 1);
    cells.replaceChildren(...view.cells.map(({ id, label }, i) =>
      make("figure", { ...(i === view.current && { "aria-current": true }), onclick: () => tell({ do: "move", by: i - view.current }) },
        make("div", { class: "frame" }, make("img", { src: addresses[i], alt: `galaxy ${id}`, draggable: false })),
        make("figcaption", {}, id, label ? make("b", {}, label) : ""))));
    bar.max = view.total;
    bar.value = view.done;
    place.textContent = `${view.done} of ${view.total} answered`;
    status.textContent = view.message;
    problem.textContent = view.problem;
  }
  model.on("change:view", show);
  show();
  el.append(root);
  return () => {
    model.off("change:view", show);
    addresses.forEach(URL.revokeObjectURL);
  };
}

export default { render };
