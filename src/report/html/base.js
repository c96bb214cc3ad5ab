// What all parts of the page use: the data, numbers as people read them, elements, what is selected and filtered.

const data = JSON.parse(document.getElementById("data").textContent);

/** An element with attributes (functions are listeners) and children (strings are text, never markup). */
function el(tag, attrs, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attrs || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else if (key === "style" && typeof value === "object") Object.entries(value).forEach(([k, v]) => node.style.setProperty(k, v));
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** Text that is safe inside the markup of a tooltip. */
function esc(text) {
  return String(text).replace(/[&<>"']/g, (c) => "&#" + c.charCodeAt(0) + ";");
}

function digits(v) {
  return v >= 999.95 ? v.toFixed(0) : v >= 99.995 ? v.toFixed(1) : v >= 9.9995 ? v.toFixed(2) : v.toFixed(3);
}

function prefixed(v, step, prefixes) {
  let i = 0;
  while (v >= step - step / 20000 && i + 1 < prefixes.length) {
    v /= step;
    i += 1;
  }
  return digits(v) + prefixes[i];
}

const si = (n) => (n < 10000 ? String(Math.round(n)) : prefixed(n, 1000, ["", " k", " M", " G", " T", " P", " E"]));
const iec = (n) => (n < 1024 ? n + " B" : prefixed(n, 1024, [" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"]));
const exact = (n) => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ",");

function ms(v) {
  return v >= 999.5 ? v.toFixed(0) : v >= 99.95 ? v.toFixed(1) : v >= 9.995 ? v.toFixed(2) : v.toFixed(3);
}

function rate(v) {
  if (v > 0 && v < 0.000095) return v.toExponential(0);
  return v > 0 && v < 0.0095 ? v.toFixed(4) : v > 0 && v < 0.095 ? v.toFixed(3)
    : v >= 99.95 ? v.toFixed(0) : v >= 9.995 ? v.toFixed(1) : v.toFixed(2);
}

const percent = (v) => (v * 100).toFixed(1) + " %";

/** A cell as people read it. */
function shown(value, unit) {
  if (value === null || value === undefined) return "";
  if (typeof value === "object") {
    if (value.into !== undefined) return "fused";
    return value.least === undefined ? "unknown" : "\u2265 " + shown(value.least, unit);
  }
  switch (unit) {
    case "count": return value === 0 ? "\u2013" : si(value);
    case "delta": return value === 0 ? "\u2013" : (value < 0 ? "-" : "+") + si(Math.abs(value));
    case "bytes": return value === 0 ? "\u2013" : iec(value);
    case "ms": return ms(value);
    case "ratio": return rate(value);
    case "share": return value === 0 ? "\u2013" : (value * 100).toFixed(1);
    case "efficiency": return (value * 100).toFixed(1) + (value > 1 ? "!" : "");
    case "flag": return value ? "yes" : "no";
    default: return String(value);
  }
}

/** A cell to the last digit, for the details of a row. */
function whole(value, unit) {
  if (value !== null && typeof value === "object" && value.into !== undefined) return "in the step of " + value.into;
  if (typeof value !== "number") return shown(value, unit);
  switch (unit) {
    case "count": return exact(value);
    case "delta": return (value < 0 ? "-" : "+") + exact(Math.abs(value));
    case "bytes": return exact(value) + (value >= 1024 ? " (" + iec(value) + ")" : "");
    case "share": case "efficiency": return (value * 100).toFixed(2) + " %";
    case "ms": return value.toPrecision(5) + " ms";
    default: return shown(value, unit);
  }
}

const isNumber = (unit) => !["text", "name", "shape"].includes(unit);

/** A cell as a number to sort and to draw by; null where there is none. */
function number(value) {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  return value !== null && typeof value === "object" && typeof value.least === "number" ? value.least : null;
}

const position = new Map(data.columns.map((c, i) => [c.key, i]));
const has = (key) => position.has(key);
/** The cell of a row in a column; null where the column is not there. */
const get = (row, key) => (position.has(key) ? row[position.get(key)] : null);

/** What is selected, shared by table and charts. */
const state = { selected: null, matching: null, listeners: [] };
function changed(what) {
  state.listeners.forEach((f) => f(what));
}
function select(row, from) {
  state.selected = state.selected === row && from !== "keyboard" ? null : row;
  changed("selected");
}

/** What columns mean, for headings and details. */
const MEANING = {
  params: "Learned elements first used here", shared_params: "Learned elements charged to an earlier row",
  statistics: "Running means and variances of BatchNormalization", madds: "Multiply-adds: one multiply and its add",
  useful_madds: "Multiply-adds without those that meet padding", other_flops: "All further floating-point operations",
  flops: "2 x MAdds + other operations", bytes: "What must move at least: each operand read once, each result written once",
  intensity: "FLOPs per byte that must move", reference_ms: "Time on the readable loops, milliseconds",
  optimized_ms: "Time on the vector kernels, milliseconds; fused: inside the step of another row",
  runtime_ms: "Time on the other runtime, milliseconds; fused: inside the row of another node",
  gmadds_per_s: "10^9 multiply-adds per second on the main path", madds_share: "Share of the model's multiply-adds, percent",
  time_share: "Share of the model's time, percent", kernel: "Kernel of the optimized path",
  attainable_ms: "Least time this machine's ceilings allow, milliseconds", bound: "What sets that least time",
  efficiency: "Attainable / measured time, percent", live_bytes: "Activation bytes alive while it runs, by the graph's order",
  madds_ratio: "Multiply-adds relative to the first row", time_ratio: "Time relative to the first row",
  module: "The module it belongs to", basis: "What the counts rest on",
};

/** Colours of the theme in use. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const v = (name) => style.getPropertyValue(name).trim();
  return {
    text: v("--text"), muted: v("--muted"), line: v("--line"), card: v("--card"), paper: v("--paper"), accent: v("--accent"),
    warm: v("--warm"), good: v("--good"), soft: v("--soft"), onColour: v("--on-colour"), palette: v("--palette").split(" "),
  };
}
