// The interactive figure of chapter 6: one step of an LSTM with sliders.
// tests/test_site.py compares its numbers with those of minicap.nn.lstm:lstm_step.
"use strict";

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

function lstmStep({ z_i, z_j, z_f, z_o, c, dh, dc }) {
  const i = sigmoid(z_i), j = Math.tanh(z_j), f = sigmoid(z_f + 1), o = sigmoid(z_o); // 1
  const c_next = f * c + i * j; // 2
  const tanh_c = Math.tanh(c_next); // 3
  const h_next = o * tanh_c; // 4
  const dc_next = dc + dh * o * (1 - tanh_c ** 2); // from 4 and 3
  return {
    forward: { i, j, f, o, "c′": c_next, "h′": h_next },
    backward: {
      dz_i: dc_next * j * i * (1 - i),
      dz_j: dc_next * i * (1 - j ** 2),
      dz_f: dc_next * c * f * (1 - f),
      dz_o: dh * tanh_c * o * (1 - o),
      dc: dc_next * f,
    },
  };
}

const INPUTS = [ // name, label, range, start
  ["z_i", "z<sub>i</sub>", 6, 0],
  ["z_j", "z<sub>j</sub>", 3, 0.55],
  ["z_f", "z<sub>f</sub>", 6, 0.39],
  ["z_o", "z<sub>o</sub>", 6, 0],
  ["c", "c", 2, 1],
  ["dh", "dh′", 2, 1],
  ["dc", "dc′<sub>next</sub>", 2, 0.5],
];

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function bar(name) {
  const fill = element("span", { className: "fill" });
  const value = element("output", {});
  const label = element("span", { innerHTML: name.replace(/_(\w)/, "<sub>$1</sub>") });
  const row = element("div", { className: "row" }, label,
    element("span", { className: "bar" }, fill), value);
  const show = (x) => {
    const half = Math.min(Math.abs(x) / 2, 1) * 50; // percent; the bar ends at -2 and 2
    fill.style.left = `${x < 0 ? 50 - half : 50}%`;
    fill.style.width = `${half}%`;
    fill.classList.toggle("negative", x < 0);
    value.textContent = x.toFixed(3).replace("-", "−");
  };
  return [row, show];
}

function build(figure) {
  const sliders = {}, shows = {};
  const columns = { Inputs: [], "Forward pass": [], "Backward pass": [] };
  for (const [name, label, range, start] of INPUTS) {
    const slider = element("input", { type: "range", min: -range, max: range, step: 0.01 });
    slider.value = start;
    slider.dataset.name = name;
    const number = element("output", {});
    sliders[name] = [slider, number];
    columns.Inputs.push(element("label", { className: "row" },
      element("span", { innerHTML: label }), slider, number));
  }
  const update = () => {
    const inputs = {};
    for (const [name, [slider, number]] of Object.entries(sliders)) {
      inputs[name] = Number(slider.value);
      number.textContent = inputs[name].toFixed(2).replace("-", "−");
    }
    const values = lstmStep(inputs);
    for (const [title, part] of [["Forward pass", "forward"], ["Backward pass", "backward"]]) {
      for (const [name, value] of Object.entries(values[part])) {
        if (!shows[part + name]) {
          const [row, show] = bar(name);
          columns[title].push(row);
          shows[part + name] = show;
        }
        shows[part + name](value);
      }
    }
    figure.dataset.values = JSON.stringify({ inputs, ...values });
  };
  update();
  figure.replaceChildren(...Object.entries(columns).map(([title, rows]) =>
    element("div", {}, element("p", { className: "title", textContent: title }), ...rows)));
  figure.addEventListener("input", update);
}

for (const figure of document.querySelectorAll(".lstm-step")) build(figure);
