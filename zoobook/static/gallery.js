"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { ids, columns, size, across, places } = data, names = Object.keys(columns);
const at = (id) => document.getElementById(id);
const PART = 200; // stamps that are added to the list at a time
const COLOURS = ["#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743"]; // of Matplotlib's viridis
let chosen = [], shown = 0, spot = null, view = { scale: 1, x: 500, y: 500 };

function make(tag, properties = {}, ...inside) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...inside);
  return node;
}

// Stamps: places in the sprites, which style rules hold
document.head.append(make("style", { textContent: `:root { --size: ${size}px }` + data.sprites.map((sprite, n) =>
  `.sprite${n} { background-image: url(data:image/jpeg;base64,${sprite}) }`).join("\n") }));
function dress(node, galaxy) {
  const n = galaxy % (across * across);
  node.className = `stamp sprite${Math.floor(galaxy / (across * across))}`;
  node.style.backgroundPosition = `${-(n % across) * size}px ${-Math.floor(n / across) * size}px`;
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", `image of ${ids[galaxy]}`);
  return node;
}
const value = (name, galaxy) => columns[name][galaxy] ?? "–";
const isNumber = (name) => columns[name].every((v) => v === null || typeof v === "number");

// Sorting and filtering
const filters = names.map((name) => {
  if (!isNumber(name)) {
    const kinds = [...new Set(columns[name])].filter((v) => v !== null).sort();
    const select = make("select", {}, new Option("any", "\0"), ...kinds.map((kind) => new Option(kind)));
    at("filters").append(make("label", {}, `${name} `, select));
    return (galaxy) => select.value === "\0" || columns[name][galaxy] === select.value;
  }
  const [low, high] = ["from", "to"].map((word) => {
    const input = make("input", { type: "number", step: "any" });
    input.setAttribute("aria-label", `${name} ${word}`);
    return input;
  });
  at("filters").append(make("fieldset", {}, make("legend", { textContent: name }), low, " to ", high));
  return (galaxy) => {
    const v = columns[name][galaxy];
    return (low.value === "" && high.value === "") || (v !== null && (low.value === "" || v >= +low.value) && (high.value === "" || v <= +high.value));
  };
});
function choose() {
  const part = at("name").value.trim().toLowerCase(), by = columns[at("sort").value], sign = at("descending").checked ? -1 : 1;
  chosen = ids.map((_, galaxy) => galaxy)
    .filter((galaxy) => ids[galaxy].toLowerCase().includes(part) && filters.every((passes) => passes(galaxy)));
  if (by) chosen.sort((a, b) => (by[a] === null) - (by[b] === null) || sign * (by[a] > by[b] ? 1 : by[a] < by[b] ? -1 : 0));
  at("stamps").replaceChildren();
  shown = 0;
  more();
  draw();
}

// The list
function more() {
  const by = at("sort").value, lines = [...new Set([...(by ? [by] : []), ...names])].slice(0, 3);
  at("stamps").append(...chosen.slice(shown, shown + PART).map((galaxy) =>
    make("li", {}, make("button", { type: "button", onclick: () => enlarge(galaxy) }, dress(make("div"), galaxy), ids[galaxy],
      ...lines.map((name) => make("small", { textContent: `${name} ${value(name, galaxy)}` }))))));
  shown = Math.min(shown + PART, chosen.length);
  at("more").hidden = shown >= chosen.length;
}
function enlarge(galaxy) {
  at("large-name").textContent = ids[galaxy];
  dress(at("large").querySelector(".stamp"), galaxy);
  at("large").querySelector("tbody").replaceChildren(...names.map((name) => {
    const head = make("th", { textContent: name, scope: "row" });
    return make("tr", {}, head, make("td", { textContent: value(name, galaxy) }));
  }));
  at("large").showModal();
}

// The map
const canvas = at("sky"), pen = canvas.getContext("2d");
function place(galaxy) { // in pixels of the page
  const side = Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94 * view.scale / 1000, [x, y] = places.xy[galaxy];
  return [canvas.clientWidth / 2 + (x - view.x) * side, canvas.clientHeight / 2 - (y - view.y) * side];
}
function draw() {
  const [some, all] = [chosen, ids].map((list) => list.length.toLocaleString("en"));
  at("count").textContent = `${some} of ${all} galaxies`;
  if (at("map").hidden) return;
  const ratio = window.devicePixelRatio || 1;
  const tint = [at("sort").value, ...names].find((name) => name && isNumber(name)), by = columns[tint] ?? [0];
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  pen.scale(ratio, ratio);
  pen.strokeStyle = getComputedStyle(canvas).color;
  pen.lineWidth = 0.4;
  const ranked = by.filter((v) => v !== null).sort((a, b) => a - b);
  const low = ranked[Math.floor(0.02 * (ranked.length - 1))], high = ranked[Math.ceil(0.98 * (ranked.length - 1))];
  for (const galaxy of [...chosen].reverse()) { // the first of the order on top
    const share = Math.min(1, Math.max(0, ((by[galaxy] ?? low) - low) / (high - low || 1)));
    pen.fillStyle = COLOURS[Math.round(share * (COLOURS.length - 1))];
    pen.beginPath();
    pen.arc(...place(galaxy), 3.5, 0, 7);
    pen.fill();
    pen.stroke(); // dark dots show on a dark page
  }
  if (tint) at("count").textContent += `; colour: ${tint} from ${low} (dark) to ${high} (light)`;
  at("hint").hidden = spot === null || !chosen.includes(spot);
  if (at("hint").hidden) return;
  const [x, y] = place(spot), by3 = names.slice(0, 3).map((name) => `${name} ${value(name, spot)}`).join(", ");
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(x, y, 8, 0, 7);
  pen.stroke();
  dress(at("hint").firstChild, spot);
  at("hint").lastChild.textContent = ids[spot];
  at("spot").textContent = `${ids[spot]}: ${by3}`;
  at("hint").style.left = `${Math.min(x + 14, canvas.clientWidth - at("hint").offsetWidth)}px`;
  at("hint").style.top = `${Math.min(Math.max(0, y - size / 2), canvas.clientHeight - at("hint").offsetHeight)}px`;
}
function nearest(x, y, accepts = () => true) {
  let best = null, least = Infinity;
  for (const galaxy of chosen) {
    const [px, py] = place(galaxy), distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least && accepts(px - x, py - y, galaxy)) [best, least] = [galaxy, distance];
  }
  return [best, least];
}
function go(galaxy) {
  if (galaxy !== null && galaxy !== spot) { spot = galaxy; draw(); }
}
canvas.onpointermove = (event) => {
  const [galaxy, distance] = nearest(event.offsetX, event.offsetY);
  if (distance < 400) go(galaxy);
};
canvas.onclick = () => spot !== null && enlarge(spot);
canvas.onfocus = () => spot === null && go(chosen[0] ?? null);
canvas.onkeydown = (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (way && spot !== null) {
    const ahead = (dx, dy, galaxy) => galaxy !== spot && dx * way[0] + dy * way[1] > Math.abs(dx * way[1] + dy * way[0]);
    go(nearest(...place(spot), ahead)[0]);
  } else if (event.key === "Enter" && spot !== null) enlarge(spot);
  else if ("+=-".includes(event.key)) {
    view.scale = Math.min(30, Math.max(1, view.scale * (event.key === "-" ? 1 / 1.4 : 1.4)));
    [view.x, view.y] = view.scale === 1 || spot === null ? [500, 500] : places.xy[spot];
    draw();
  } else return;
  event.preventDefault();
};
function show(map) {
  at("map").hidden = !map;
  at("stamps").hidden = map;
  at("more").hidden = map || shown >= chosen.length;
  at("as-map").setAttribute("aria-pressed", map);
  at("as-list").setAttribute("aria-pressed", !map);
  draw();
}

at("sort").append(new Option("order given", ""), ...names.map((name) => new Option(name)));
at("controls").oninput = choose;
at("controls").onsubmit = (event) => event.preventDefault();
at("more").onclick = more;
at("as-map").onclick = () => show(true);
at("as-list").onclick = () => show(false);
window.onresize = draw;
new IntersectionObserver((seen) => seen[0].isIntersecting && shown < chosen.length && more(), { rootMargin: "600px" }).observe(at("more"));
choose();
if (places) {
  at("views").hidden = false;
  show(true);
}
