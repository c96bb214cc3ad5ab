// The page: headline, cards, findings, charts, table; theme and what is written to a file.

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
function useTheme() {
  root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
  redraw();
}
dark.addEventListener("change", useTheme);

function figure(title, value, unit, more, key) {
  return el("div", { class: "figure" + (key ? " key" : "") }, el("dt", {}, title),
    el("dd", {}, el("div", { class: "big" }, value, unit && el("small", {}, unit)), more && el("div", { class: "more" }, more)));
}

/** `3.505 M` as the number and its prefix. */
function parts(text) {
  const [number, unit] = text.split(" ");
  return [number, unit || ""];
}

function cards() {
  const r = data.report, t = r.totals, out = [];
  const least = t.unknown_nodes > 0 ? "\u2265 " : "";
  const { optimized, reference, runtime } = r.latency;
  const best = optimized || runtime || reference;
  const which = optimized ? "optimized" : runtime ? runtime.isa : "reference";
  if (best) {
    const ci = best.median_ci95_ms;
    out.push(figure("Latency, " + which, ms(best.median_ms), "ms",
      (ci ? "95 %: " + ms(ci[0]) + " to " + ms(ci[1]) + "; " : "") + (best.threads ? best.threads + (best.threads === 1 ? " thread, " : " threads, ") + best.isa : r.imported ? "as its profile says" : ""), true));
    const madds = t.madds / best.median_ms / 1e6;
    if (t.madds > 0) out.push(figure("Speed", rate(madds), "GMAdd/s", r.speedup ? rate(r.speedup) + " \u00d7 the reference path (" + ms(reference ? reference.median_ms : 0) + " ms)" : null));
  }
  if (optimized && runtime) out.push(figure(runtime.isa, ms(runtime.median_ms), "ms", rate(optimized.median_ms / runtime.median_ms) + " \u00d7 that for ours"));
  if (r.imported) out.push(figure("Mapped to source nodes", percent(r.imported.mapped_ms / (r.imported.measured_ms || 1)), "", "of " + ms(r.imported.measured_ms) + " ms in " + r.imported.rows.length + " rows"));
  if (r.roofline) {
    const x = r.roofline.measured_over_floor;
    out.push(figure("Floor of this machine", ms(r.roofline.floor_ms), "ms", x ? "measured is " + rate(x) + " \u00d7 that" : r.roofline.unknown_steps + " steps of unknown cost not in it"));
  }
  out.push(figure("MAdds", least + parts(si(t.madds))[0], parts(si(t.madds))[1], exact(t.madds), !best));
  out.push(figure("Params", ...parts(si(t.params)), exact(t.params) + ", " + iec(t.param_bytes)));
  out.push(figure("FLOPs", least + parts(si(t.flops))[0], parts(si(t.flops))[1], "2 \u00d7 MAdds + " + si(t.other_flops)));
  const bytes = t.weight_bytes + t.read_bytes + t.write_bytes;
  out.push(figure("Bytes moved", ...parts(iec(bytes)), "weights " + iec(t.weight_bytes) + (bytes > 0 ? "; " + rate(t.flops / bytes) + " FLOP/B" : "")));
  if (t.peak_activation_bytes !== null) out.push(figure("Peak activations", ...parts(iec(t.peak_activation_bytes)), optimized && optimized.arena_bytes ? "arena " + iec(optimized.arena_bytes) : "by the graph's order"));
  const c = t.coverage;
  out.push(figure("Nodes", exact(t.nodes), "", t.unknown_nodes === 0 ? "all costs known" : t.unknown_nodes + " of unknown cost; known: " + percent(c.node_share)));
  return el("dl", { class: "cards", style: { "--n": Math.ceil(out.length / Math.ceil(out.length / 6)) } }, out);
}

function list(title, items, kind) {
  if (!items || !items.length) return null;
  return el("section", { class: "card " + kind, "aria-label": title }, el("h2", {}, title), el("ul", {}, items.map((s) => el("li", {}, s))));
}

function factsTable(title, rows, wide) {
  if (!rows || !rows.length) return null;
  return el("section", { class: "card" + (wide ? " wide" : "") }, el("h2", {}, title),
    el("div", { class: "scroll" }, el("table", { class: "facts" }, el("tbody", {}, rows.map((r) =>
      el("tr", {}, el("th", { scope: "row" }, r[0].trim()), r.slice(1).map((c, i) => el("td", { class: i === 0 && r.length > 2 ? "n" : null }, c))))))));
}

/** What another runtime spent on no source node. */
function importedTable(imported) {
  if (!imported) return null;
  const rest = imported.rows.filter((row) => !row.nodes.length).sort((a, b) => b.ms - a.ms).slice(0, 12);
  return factsTable(imported.runtime + ": of its own, not in the model", rest.length ? rest.map((row) => [row.name, ms(row.ms) + " ms", row.op]) : [["nothing", "", "every row covers source nodes"]]);
}

/** No card stands alone in its line. */
function even(grid) {
  const half = [...grid.children].filter((c) => !c.classList.contains("wide"));
  if (half.length % 2 === 1) half[half.length - 1].classList.add("wide");
}

function header(title, chips) {
  const toggle = el("button", { type: "button", id: "theme", click: () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    useTheme();
  } }, "Light / dark");
  const save = el("button", { type: "button", click: () => {
    const text = JSON.stringify(data.kind === "report" ? data.report : data, null, 2);
    const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: title.replace(/[^\w.-]+/g, "_") + ".json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } }, "Save JSON");
  return el("header", { class: "top" }, el("div", { class: "what" }, el("p", { class: "eyebrow" }, "madd-prof"), el("h1", {}, title),
    el("ul", { class: "chips" }, chips.filter(Boolean).map((c) => el("li", {}, c)))), el("div", { class: "actions" }, toggle, save));
}

function footer(version) {
  return el("footer", {}, "madd-prof " + version + ". Charts: Apache ECharts, Apache License 2.0. This file is complete: it loads nothing.");
}

function report() {
  const r = data.report, m = r.model;
  const [name, ...chips] = data.heading.split(" \u00b7 ");
  if (m.producer.name) chips.push(m.producer.name + " " + m.producer.version);
  const out = [header(name, chips), el("main", { id: "main" }, list("Keep in mind", r.warnings, "warnings"), cards(), list("Why the two differ", r.findings, "findings"))];
  const main = out[1];
  const grid = el("div", { class: "grid" });
  let table = null;
  if (rows.length) {
    table = new Table({
      columns: data.columns, rows, labels: data.labels, lines: data.tree, kinds: data.classes, total: data.total, name: "Layers", noun: "layer",
      onMatching: () => redraw("shares", "roofline"),
    });
    grid.append(...[sharesChart(table), rooflineChart(), treemapChart(), memoryChart()].filter(Boolean));
  }
  grid.append(...[runsChart()].filter(Boolean));
  grid.append(...[factsTable("Totals, exact", data.facts), factsTable("Latency", data.latencies), importedTable(r.imported)].filter(Boolean));
  even(grid);
  main.append(grid);
  if (table) main.append(table.element);
  state.listeners.push((what) => {
    if (what !== "selected") return;
    redraw("roofline", "memory");
  });
  out.push(footer(r.tool.version));
  return out;
}

function comparison() {
  const [name, ...chips] = data.heading.split(" \u00b7 ");
  if (data.summary.length <= 2) chips.push(...data.summary.map(([k, v]) => k.trim() + ": " + v));
  const main = el("main", { id: "main" }, list("Keep in mind", data.extra.warnings, "warnings"), list("What stands out", data.notes, "findings"));
  const grid = el("div", { class: "grid" });
  if (rows.length) {
    const charts = comparisonCharts();
    grid.append(...charts);
  }
  // A line or two are no table.
  const facts = data.summary.length > 2 && factsTable("In short", data.summary);
  if (facts) grid.append(facts);
  even(grid);
  main.append(grid);
  if (rows.length) {
    const table = new Table({ columns: data.columns, rows, labels: rows.map(named), name: "All figures", noun: "row", onMatching: () => redraw() });
    main.append(table.element);
    state.listeners.push((what) => what === "selected" && redraw("points", "pareto", "predicted"));
  }
  return [header(name, chips), main, footer(data.version)];
}

useTheme();
document.getElementById("page").append(...(data.kind === "report" ? report() : comparison()));
/** Ready is when what is in sight is drawn: two frames find the charts in sight, the frame after the last of them was made draws it. */
function awaitCharts() {
  if (waiting.length) setTimeout(awaitCharts);
  else requestAnimationFrame(() => { root.dataset.ready = String(Math.round(performance.now())); });
}
requestAnimationFrame(() => requestAnimationFrame(awaitCharts));
