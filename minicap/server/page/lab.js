// The lab's page: sends photos and settings to the API, and shows what comes back.

const $ = (selector) => document.querySelector(selector);
const END = "#END#", MAX_BYTES = 16_000_000;
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const percent = (logProbability) => {
  const p = 100 * Math.exp(logProbability);
  return p >= 99.95 ? "100 %" : p >= 10 ? `${p.toFixed(0)} %` : p >= 0.1 ? `${p.toFixed(1)} %` : "< 0.1 %";
};
const named = (token) => (token === END ? "end" : token);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Make an HTML or SVG element.
function element(name, attributes = {}, ...children) {
  const svg = /^(svg|g|path|rect|text|line|circle|polyline|title)$/.test(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// What the page knows: the model, the photo (its id, or its bytes until the server knows them), the
// words that the user has chosen, the last answer, and the selected word.
const state = { about: null, id: null, bytes: null, prefix: [], seed: 0, answer: null, selected: -1 };

// Settings

const form = $("#settings");
function settings() {
  const values = new FormData(form), sampling = values.get("mode") === "sampling";
  const names = sampling ? ["temperature", "top_k", "top_p"] : ["beam_size", "length_penalty"];
  const options = Object.fromEntries([...names, "no_repeat_ngram_size"].map((n) => [n, values.get(n)]));
  if (sampling) Object.assign(options, { beam_size: 1, seed: state.seed, count: 3 });
  else Object.assign(options, { count: options.beam_size, tree: true });
  return options;
}
function showSettings() {
  const sampling = new FormData(form).get("mode") === "sampling";
  form.classList.toggle("is-sampling", sampling);
  form.classList.toggle("is-beam", !sampling);
  for (const input of form.querySelectorAll("input[type=range]")) {
    const { name, value } = input;
    const word = { beam_size: { 1: "greedy" }, top_k: { 0: "all" }, top_p: { 1: "all" }, no_repeat_ngram_size: { 0: "off" } };
    input.parentElement.querySelector("output").value = word[name]?.[value] ?? value;
  }
}

// Requests: the last one wins.

let running = null;
async function ask() {
  if (!state.id && !state.bytes) return;
  running?.abort();
  const mine = (running = new AbortController());
  document.body.classList.add("busy");
  const query = { ...settings(), cells: $("#cells").value.replaceAll(" ", "") || "auto" };
  if (state.prefix.length) query.prefix = state.prefix.join(state.about.space);
  try {
    let response = state.id && (await post({ ...query, photo: state.id }, undefined, mine));
    if (!state.id || (response.status === 404 && state.bytes)) response = await post(query, state.bytes, mine);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    state.id = answer.photo;
    state.answer = answer;
    state.selected = -1;
    $("#error").textContent = "";
    await show(mine);
  } catch (error) {
    if (mine.signal.aborted) return;
    $("#error").textContent = error instanceof TypeError ? "The server does not answer. Is it running?" : error.message;
  } finally {
    if (mine === running) document.body.classList.remove("busy");
  }
}
function post(query, body, { signal }) {
  const headers = body ? { "Content-Type": "application/octet-stream" } : {};
  return fetch(`api/caption?${new URLSearchParams(query)}`, { method: "POST", body, headers, signal });
}
let timer = 0;
const askSoon = () => { clearTimeout(timer); timer = setTimeout(ask, 80); };

// The photo

function usePhoto(source, { id = null, bytes = null }) {
  if (bytes?.size > MAX_BYTES) {
    $("#error").textContent = `This photo has ${(bytes.size / 1e6).toFixed(0)} MB. The limit is 16 MB: make it smaller.`;
    return;
  }
  Object.assign(state, { id, bytes, prefix: [], selected: -1 });
  const image = $("#shown");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  showMap(-1);
  image.src = source;
  image.hidden = false;
  $("#invitation").hidden = true;
  for (const button of $("#samples").children) button.setAttribute("aria-pressed", button.dataset.id === id);
  ask();
}
function useFile(file) {
  if (file) usePhoto(URL.createObjectURL(file), { bytes: file });
}
$("#shown").addEventListener("error", () => {
  $("#shown").hidden = true;
  $("#invitation").hidden = false;
  $("#invitation").textContent = "This browser cannot show the photo's format. The server may read it all the same.";
});
for (const id of ["#file", "#capture"]) {
  $(id).addEventListener("change", (event) => { useFile(event.target.files[0]); event.target.value = ""; });
}
document.body.addEventListener("dragover", (event) => { event.preventDefault(); $("#stage").classList.add("over"); });
document.body.addEventListener("dragleave", () => $("#stage").classList.remove("over"));
document.body.addEventListener("drop", (event) => {
  event.preventDefault();
  $("#stage").classList.remove("over");
  useFile(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => useFile(event.clipboardData.files[0]));

// The camera: of the phone, or a live picture where the browser allows one.

const viewfinder = $("#viewfinder"), video = $("#viewfinder video");
$("#camera").addEventListener("click", async () => {
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices) return $("#capture").click();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 1280 } });
    viewfinder.showModal();
  } catch {
    $("#error").textContent = "There is no camera that this page may use.";
  }
});
$("#shoot").addEventListener("click", () => {
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => useFile(blob), "image/jpeg", 0.95);
  viewfinder.close();
});
$("#cancel").addEventListener("click", () => viewfinder.close());
viewfinder.addEventListener("close", () => {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
});

// Where the model looked before a word, over the photo; a place below 0 shows the photo alone.

const COLOURS = [[10, 30, 95], [128, 124, 118], [255, 232, 70]]; // as in attention_maps.py
const SMOOTH = 16; // pixels of the map for each position

function showMap(place) {
  const maps = state.answer?.photo === state.id ? state.answer?.attention : undefined;
  const shown = Boolean(maps?.[place]) && !$("#shown").hidden;
  $("#legend").hidden = !maps;
  $("#map").hidden = !shown;
  $("#frame").classList.toggle("mapped", shown);
  if (!shown) return;
  const side = Math.sqrt(maps[place].length), highest = Math.max(...maps.flat());
  const small = element("canvas", { width: side, height: side }), pixels = new ImageData(side, side);
  maps[place].forEach((weight, n) => {
    const at = (weight / highest) * (COLOURS.length - 1), low = Math.min(Math.floor(at), COLOURS.length - 2);
    const mixed = COLOURS[low].map((value, k) => value + (at - low) * (COLOURS[low + 1][k] - value));
    pixels.data.set([...mixed, 255], 4 * n);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  const canvas = Object.assign($("#map"), { width: SMOOTH * side, height: SMOOTH * side });
  canvas.classList.toggle("cropped", state.about.cropped);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// The caption

async function show(mine) {
  const { captions, tree, cells } = state.answer, [best, ...others] = captions;
  const box = $("#words");
  delete box.dataset.done;
  box.replaceChildren();
  $("#spoken").textContent = best.caption;
  $("#doubt").textContent = best.doubt ? `Doubtful: ${best.doubt}.` : "";
  $("#score").textContent = `score ${best.score.toFixed(2)}, log-probability ${sum(best).toFixed(2)}`;
  $("#restart").hidden = !state.prefix.length;
  $("#alternatives").hidden = true;
  $("#others").hidden = !others.length;
  $("#others ol").replaceChildren(
    ...others.map((c) => element("li", {}, `${c.caption} `, element("span", { class: "quiet" }, c.score.toFixed(2)))),
  );
  showTree(tree, mine);
  showCells(cells, best.tokens);
  showMap(-1);
  for (const [place, token] of best.tokens.entries()) {
    if (mine !== running) return;
    box.append(word(token, best.log_probabilities[place], place));
    if (!calm) showMap(place);
    if (!calm) await pause(state.answer.attention ? 300 : 90);
  }
  showMap(state.selected);
  box.dataset.done = "true";
}
const sum = (caption) => caption.log_probabilities.reduce((a, b) => a + b, 0);

function word(token, logProbability, place) {
  const chance = percent(logProbability);
  return element(
    "button",
    {
      type: "button",
      class: `${place < state.prefix.length ? "mine" : ""} ${token === END ? "end" : ""}`,
      "aria-pressed": "false",
      "aria-label": `${named(token)}, ${chance}, show other words`,
      onclick: () => select(place),
    },
    named(token),
    element("meter", { min: 0, max: 1, value: Math.exp(logProbability), "aria-hidden": "true" }),
    element("small", {}, chance),
  );
}

function select(place) {
  const tokens = state.answer.captions[0].tokens;
  state.selected = state.selected === place ? -1 : place;
  [...$("#words").children].forEach((button, n) => button.setAttribute("aria-pressed", n === state.selected));
  $("#alternatives").hidden = state.selected < 0;
  showMap(state.selected);
  if (state.selected < 0) return;
  const before = tokens.slice(0, place).join(state.about.space) || "the photo alone";
  $("#alternatives-title").textContent = `The likeliest words after “${before}”`;
  $("#alternatives ol").replaceChildren(...state.answer.candidates[place].map((candidate) => {
    const chance = percent(candidate.log_probability);
    const button = element(
      "button",
      { type: "button", onclick: () => take(place, candidate), "aria-label": `take ${named(candidate.token)}, ${chance}` },
      candidate.token === END ? "end the caption" : candidate.token,
      element("span", {}, chance),
    );
    button.style.setProperty("--share", `${100 * Math.exp(candidate.log_probability)}%`);
    return element("li", {}, button);
  }));
}

// The caption continues from another word.
async function take(place, { token, log_probability: logProbability }) {
  const kept = state.answer.captions[0].tokens.slice(0, place);
  if (token === END) await endAfter(kept, logProbability);
  else {
    state.prefix = [...kept, token];
    await ask();
  }
  $("#words").children[place]?.focus();
}
function endAfter(kept, logProbability) {
  const [best] = state.answer.captions, place = kept.length;
  state.prefix = kept; // nothing is left to generate
  best.tokens = [...kept, END];
  best.log_probabilities = [...best.log_probabilities.slice(0, place), logProbability];
  best.caption = kept.join(state.about.space);
  best.score = sum(best) / best.tokens.length ** (settings().length_penalty ?? 0.7);
  best.doubt = "";
  Object.assign(state.answer, { captions: [best], tree: undefined, cells: undefined });
  return show(running);
}
$("#restart").addEventListener("click", () => { state.prefix = []; ask(); });

// The beam search as a tree: a column for each step

const COLUMN = 108, ROW = 30, BOX = [92, 22];
let steps = 0;
function showTree(nodes, mine) {
  $("#beam").hidden = !nodes;
  if (!nodes) return;
  steps = Math.max(...nodes.map((node) => node.first));
  const last = Math.max(...nodes.map((node) => node.last)), rows = new Map();
  const best = new Set(), tokens = state.answer.captions[0].tokens;
  for (let parent = null, k = 0; k < tokens.length; k++) {
    const next = nodes.findIndex((node) => node.parent === parent && node.token === tokens[k]);
    if (next < 0) break;
    best.add((parent = next));
  }
  const order = nodes.map((node, number) => [node, number]).sort(([a], [b]) => b.score - a.score);
  const y = [];
  for (const [node, number] of order) {
    y[number] = rows.get(node.first) ?? 0;
    rows.set(node.first, y[number] + 1);
  }
  const middle = (number) => ROW * (y[number] + 0.5);
  const edges = [], boxes = [];
  nodes.forEach((node, number) => {
    const x = COLUMN * node.first, marks = { "data-first": node.first, "data-last": node.last };
    const kind = best.has(number) ? "best" : "";
    if (node.parent !== null) {
      const [x0, y0, y1] = [x - COLUMN + BOX[0], middle(node.parent), middle(number)];
      edges.push(element("path", { ...marks, class: `edge ${kind}`, d: `M${x0} ${y0}C${x0 + 8} ${y0} ${x - 8} ${y1} ${x} ${y1}` }));
    }
    const text = node.token === END ? "∎ end" : node.token.length > 11 ? `${node.token.slice(0, 10)}…` : node.token;
    boxes.push(element(
      "g", { ...marks, class: `node ${kind}` },
      element("rect", { x, y: middle(number) - BOX[1] / 2, width: BOX[0], height: BOX[1], rx: 6 }),
      element("text", { x: x + 6, y: middle(number) + 5 }, text),
      element("title", {}, `${named(node.token)}: ${percent(node.log_probability)}, score ${node.score.toFixed(2)}`),
    ));
  });
  const [width, height] = [COLUMN * (steps + 1), ROW * Math.max(...rows.values())];
  const drawn = element("svg", { width, height, viewBox: `-2 0 ${width} ${height}` }, ...edges, ...boxes);
  $("#tree").replaceChildren(drawn);
  $("#tree").setAttribute("aria-label", `The beam search in ${steps + 1} steps, with ${nodes.length} hypotheses. The best: ${state.answer.captions[0].caption}`);
  $("#step").max = last;
  play(mine);
}
function showStep(step) {
  $("#step").value = step;
  $("#step").parentElement.querySelector("output").value = `${step + 1} of ${+$("#step").max + 1}`;
  for (const drawn of $("#tree").querySelectorAll("[data-first]")) {
    drawn.classList.toggle("later", +drawn.dataset.first > step);
    drawn.classList.toggle("dropped", +drawn.dataset.last < step);
  }
}
async function play(mine) {
  for (let step = calm ? +$("#step").max : 0; step <= +$("#step").max; step++) {
    if (mine !== running) return;
    showStep(step);
    if (!calm) await pause(250);
  }
}
$("#step").addEventListener("input", (event) => showStep(+event.target.value));
$("#play").addEventListener("click", () => play(running));

// The LSTM's cells

function showCells(cells, tokens) {
  $("#memory").hidden = !cells;
  $("#charts").replaceChildren(...(cells ?? []).map((cell) => chart(cell, tokens)));
}
function chart(cell, tokens) {
  const left = 52, step = 62, high = 84, bar = 16, width = left + step * (tokens.length + 1);
  const low = Math.min(0, ...cell.state), top = Math.max(0, ...cell.state), range = top - low || 1;
  const x = (k) => left + step * (k + 0.5), y = (value) => 8 + (high - 16) * (top - value) / range;
  const parts = [
    element("line", { class: "axis", x1: left, x2: width, y1: y(0), y2: y(0) }),
    element("text", { class: "label", x: 0, y: y(0) + 4 }, "state 0"),
    element("polyline", { class: "state", points: cell.state.map((value, k) => `${x(k)},${y(value)}`).join(" ") }),
    ...cell.state.map((value, k) => element("circle", { class: "dot", cx: x(k), cy: y(value), r: 3.5 }, element("title", {}, value.toFixed(2)))),
  ];
  ["input", "forget", "output"].forEach((gate, row) => {
    const at = high + row * (bar + 3);
    parts.push(element("text", { class: "label", x: 0, y: at + 12 }, gate));
    cell[gate].forEach((value, k) => {
      const place = { x: x(k + 1) - step / 2 + 2, y: at, width: step - 4, height: bar };
      parts.push(element("rect", { ...place, class: "gate", "fill-opacity": value }, element("title", {}, `${gate} gate ${value.toFixed(2)}`)));
      parts.push(element("rect", { ...place, class: "frame" }));
    });
  });
  const bottom = high + 3 * (bar + 3) + 14;
  // Each step reads the token before the one that it chooses.
  ["photo", "start", ...tokens.slice(0, -1)].forEach((token, k) => {
    const text = token.length > 8 ? `${token.slice(0, 7)}…` : token;
    parts.push(element("text", { class: k < 2 ? "label" : "", x: x(k), y: bottom, "text-anchor": "middle" }, text));
  });
  const drawn = element("svg", { width, height: bottom + 6, role: "img", "aria-label": cell.sentence }, ...parts);
  return element("figure", {}, element("figcaption", {}, cell.sentence), element("div", { class: "scroll", tabindex: 0 }, drawn));
}
$("#choose-cells").addEventListener("submit", (event) => { event.preventDefault(); ask(); });

// Start

form.addEventListener("input", () => { showSettings(); askSoon(); });
form.addEventListener("submit", (event) => event.preventDefault());
$("#again").addEventListener("click", () => { state.seed += 1; ask(); });
$("#defaults").addEventListener("click", () => { form.reset(); showSettings(); askSoon(); });
showSettings();
try {
  const about = (state.about = await (await fetch("api/about")).json());
  $("#model").textContent = `${about.encoder} (${about.features.toLocaleString("en")} numbers per photo), an LSTM of ${about.cells} cells, ${about.words.toLocaleString("en")} words. ${about.warning}`;
  $("#cells-hint").textContent = `numbers below ${about.cells}, like 3,17; empty: six clear ones`;
  $("#samples").append(...about.samples.map(({ id, name }, n) => {
    const source = `samples/${n}.jpg`;
    return element(
      "button",
      { type: "button", "data-id": id, "aria-pressed": "false", onclick: () => usePhoto(source, { id }) },
      element("img", { src: source, alt: `sample ${n + 1}: ${name}`, loading: "lazy" }),
    );
  }));
} catch {
  $("#error").textContent = "The server does not answer. Is it running?";
}
