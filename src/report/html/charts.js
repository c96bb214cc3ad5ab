// The charts of one model. Each is made when it comes into sight, follows theme and size, and marks the selected row.

const charts = [];
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A card with a chart. `option(colours)` gives what ECharts draws; `words()` says it to those who cannot see it. */
function chartCard({ id, title, note, words, option, onClick, choices, low, wide, height }) {
  const box = el("div", { class: "chart" + (low ? " low" : ""), role: "img", id: "chart-" + id, style: height ? { height: height + "px" } : {} });
  const noteBox = el("p", { class: "chart-note" });
  const segments = choices && choices.list.length > 1 && el("div", { class: "segments", role: "group", "aria-label": choices.label },
    choices.list.map(([key, text]) => el("button", { type: "button", "aria-pressed": String(key === choices.now), click: (e) => {
      choices.now = key;
      segments.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === e.target)));
      entry.draw();
    } }, text)));
  const figure = el("figure", { class: "card" + (wide ? " wide" : ""), "aria-labelledby": "title-" + id },
    el("div", { class: "chart-head" }, el("h2", { id: "title-" + id }, title), segments), noteBox, box);
  const entry = {
    id, box, chart: null,
    draw() {
      const text = typeof note === "function" ? note() : note;
      noteBox.textContent = text || "";
      box.setAttribute("aria-label", title + ". " + words());
      if (!entry.chart) return;
      const colours = theme();
      entry.chart.setOption({ animation: !still, animationDuration: 350, ...base(colours), ...option(colours) }, { notMerge: true });
    },
    start() {
      if (entry.chart) return;
      entry.chart = echarts.init(box);
      if (onClick) entry.chart.on("click", onClick);
      // An observer speaks up at once: the chart has that size already.
      new ResizeObserver(() => {
        if (box.clientWidth !== entry.chart.getWidth() || box.clientHeight !== entry.chart.getHeight()) entry.chart.resize({ animation: { duration: 0 } });
      }).observe(box);
      entry.draw();
    },
  };
  entry.draw();
  charts.push(entry);
  new IntersectionObserver((seen, observer) => {
    if (seen.some((s) => s.isIntersecting)) {
      observer.disconnect();
      waiting.push(entry);
      if (waiting.length === 1) setTimeout(startNext);
    }
  }, { rootMargin: "150px" }).observe(box);
  return figure;
}

/** Charts in sight that are yet to be made: one at a time, so that clicks and keys are heard in between. */
const waiting = [];
function startNext() {
  waiting[0].start();
  waiting.shift();
  if (waiting.length) setTimeout(startNext);
}

const redraw = (...ids) => charts.filter((c) => !ids.length || ids.includes(c.id)).forEach((c) => c.draw());

function base(t) {
  return {
    textStyle: { fontFamily: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", color: t.text },
    color: t.palette,
    tooltip: {
      backgroundColor: t.card, borderColor: t.line, textStyle: { color: t.text, fontSize: 13 }, confine: true,
      extraCssText: "box-shadow:0 6px 24px rgb(0 0 0/18%);border-radius:8px;max-width:420px;white-space:normal;overflow-wrap:anywhere",
    },
  };
}
const axis = (t, { axisLabel, ...more }) => ({
  axisLine: { lineStyle: { color: t.line } }, axisTick: { show: false }, splitLine: { lineStyle: { color: t.line, opacity: 0.7 } },
  splitNumber: narrow() ? 3 : 5, nameTextStyle: { color: t.muted }, ...more,
  axisLabel: { color: t.muted, hideOverlap: true, ...axisLabel },
});
/** `1.000 MiB` as `1 MiB`: for axes. */
const round = (text) => text.replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "");
const narrow = () => innerWidth < 640;
/** Lines of a tooltip: a heading and [label, value] pairs; empty values are left out. */
const tip = (head, pairs) => "<b>" + esc(head) + "</b><br>" + pairs.filter(([, v]) => v !== "" && v !== null && v !== undefined)
  .map(([k, v]) => esc(k) + ": <b>" + esc(v) + "</b>").join("<br>");
const short = (text, n) => (text.length <= n ? text : text.slice(0, Math.ceil(n / 2) - 1) + "\u2026" + text.slice(-Math.floor(n / 2)));

const rows = data.rows;
const measured = data.kind === "report" && data.rows.some((r) => typeof get(r, "time_share") === "number");
const isMatching = (i) => !state.matching || state.matching[i];
const classWords = new Map(data.classes || []);
const classColour = (t, words) => t.palette[Math.max([...classWords.values()].indexOf(words), 0) % t.palette.length];

/** MAdds against time, by kind of work, module or layer. */
function sharesChart(table) {
  const second = measured ? "time_share" : "bytes";
  const bytes = rows.reduce((sum, r) => sum + (number(get(r, "bytes")) || 0), 0) || 1;
  const other = (row) => (measured ? number(get(row, second)) || 0 : (number(get(row, "bytes")) || 0) / bytes);
  const choices = { label: "Bars by", now: "kind", list: [["kind", "Kind of work"], ["module", "Module"], ["layer", "Layer"]] };
  const MOST = 14;
  const bars = () => {
    let list;
    if (choices.now === "layer") {
      list = rows.map((r, i) => ({ name: data.labels[i], madds: number(get(r, "madds_share")) || 0, other: other(r), at: i })).filter((b) => isMatching(b.at));
    } else if (choices.now === "module") {
      const top = Math.min(...data.tree.filter((l) => l[1] < 0 && data.tree.filter((m) => m[0] === l[0]).length > 2).map((l) => l[0]), 99);
      const level = top === 99 ? 0 : top;
      list = data.tree.filter((l) => l[0] === level || (l[0] < level && l[1] >= 0)).map((l) => {
        const cells = l[1] < 0 ? l[3] : rows[l[1]];
        return { name: l[1] < 0 ? get(cells, "name") : data.labels[l[1]], madds: number(get(cells, "madds_share")) || 0, other: other(cells), search: get(cells, "name") };
      });
    } else {
      const by = new Map();
      rows.forEach((r, i) => {
        const key = get(r, "class");
        if (!isMatching(i) || !key) return;
        const bar = by.get(key) || { name: classWords.get(key) || key, madds: 0, other: 0, kind: key };
        bar.madds += number(get(r, "madds_share")) || 0;
        bar.other += other(r);
        by.set(key, bar);
      });
      list = [...by.values()];
    }
    list = list.filter((b) => b.madds > 0 || b.other > 0).sort((a, b) => Math.max(b.madds, b.other) - Math.max(a.madds, a.other));
    const rest = list.slice(MOST);
    list = list.slice(0, MOST);
    if (rest.length) {
      const sum = (key) => rest.reduce((s, b) => s + b[key], 0);
      list.push({ name: rest.length + " more", madds: sum("madds"), other: sum("other") });
    }
    return list;
  };
  const secondName = measured ? "time" : "bytes";
  let drawn = [];
  return chartCard({
    id: "shares", title: "Share of MAdds against share of " + secondName, choices,
    note: measured ? "Where the orange bar is longer than the blue one, time is spent on something else than multiplying. A bar filters the table."
      : "What multiplies and what moves are not the same. A bar filters the table.",
    words: () => bars().slice(0, 6).map((b) => b.name + ": " + percent(b.madds) + " of MAdds, " + percent(b.other) + " of " + secondName).join("; "),
    onClick: (e) => {
      const bar = drawn[e.dataIndex];
      if (!bar) return;
      if (bar.at !== undefined) select(bar.at, "chart");
      else if (bar.kind) table.setFilter("kind", table.filter.kind === bar.kind ? "" : bar.kind);
      else if (bar.search) table.setFilter("text", table.filter.text === bar.search.toLowerCase() ? "" : bar.search);
    },
    option: (t) => {
      drawn = bars();
      const series = (name, key, colour) => ({
        name, type: "bar", barMaxWidth: 13, barGap: "15%", data: drawn.map((b) => 100 * b[key]),
        itemStyle: { color: colour, borderRadius: [0, 3, 3, 0] },
      });
      return {
        grid: { left: 6, right: 22, top: 30, bottom: 4, containLabel: true },
        legend: { top: 0, right: 0, textStyle: { color: t.text }, itemWidth: 14, itemHeight: 9 },
        tooltip: { ...base(t).tooltip, trigger: "axis", axisPointer: { type: "shadow" }, formatter: (p) => {
          const b = drawn[p[0].dataIndex];
          return tip(b.name, [["MAdds", percent(b.madds)], [secondName, percent(b.other)]]);
        } },
        xAxis: axis(t, { type: "value", axisLabel: { color: t.muted, formatter: "{value} %" } }),
        yAxis: axis(t, { type: "category", inverse: true, data: drawn.map((b) => short(b.name, narrow() ? 18 : 30)), axisLabel: { color: t.text }, splitLine: { show: false } }),
        series: [series("MAdds", "madds", t.accent), series(measured ? "Time" : "Bytes", "other", t.warm)],
      };
    },
  });
}

/** Steps as the page uses them, with the rows they cover. */
const rowOf = new Map(data.kind === "report" ? rows.map((r, i) => [get(r, "name"), i]) : []);
const steps = (data.steps || []).map(([label, kernel, covers, time, kind, madds, flops, bytes, live, bound, attainable]) => ({
  label, kernel, time, kind, madds, flops, bytes, live, bound, attainable, rows: covers.map((c) => rowOf.get(c)).filter((i) => i !== undefined),
}));

/** Steps (or, where nothing was measured, rows) over their intensity, under the machine's ceilings. */
function rooflineChart() {
  const points = measured
    ? steps.filter((s) => s.flops > 0 && s.bytes > 0 && s.time > 0).map((s) => ({
      name: s.label, kind: s.kind, at: s.rows[0], rows: s.rows, x: s.flops / s.bytes, y: s.flops / s.time / 1e6, weight: s.time,
      facts: [["kernel", s.kernel], ["time", ms(s.time) + " ms"], ["rate", s.madds > 0 ? rate(s.madds / s.time / 1e6) + " GMAdd/s" : ""],
        ["FLOP/B", rate(s.flops / s.bytes)], ["bytes", iec(s.bytes)], ["bound", s.bound],
        ["of the ceiling", s.attainable && s.bound !== "overhead" ? percent(s.attainable / s.time) : ""]],
    }))
    : rows.map((r, i) => ({
      name: data.labels[i], kind: classWords.get(get(r, "class")), at: i, rows: [i], x: number(get(r, "intensity")), y: number(get(r, "flops")),
      weight: number(get(r, "bytes")) || 0,
      facts: [["FLOPs", shown(get(r, "flops"), "count")], ["bytes", shown(get(r, "bytes"), "bytes")], ["FLOP/B", shown(get(r, "intensity"), "ratio")]],
    })).filter((p) => p.x > 0 && p.y > 0);
  if (!points.length) return null;
  const largest = Math.max(...points.map((p) => p.weight), 1e-12);
  const roof = data.report.roofline;
  const low = 10 ** Math.floor(Math.log10(Math.min(...points.map((p) => p.x))));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...points.map((p) => p.x), roof ? 40 : 1)));
  const ceilings = (t) => (measured && roof ? roof.memory : []).map((level, k) => {
    const peak = (2 * roof.peak_madds_per_s) / 1e9, slope = level.read_bytes_per_s / 1e9;
    const ridge = peak / slope;
    return {
      name: level.level, type: "line", showSymbol: false, z: 1, silent: false, triggerLineEvent: true,
      lineStyle: { color: t.muted, width: k === 0 ? 2 : 1.3, type: k === 0 ? "solid" : "dashed" },
      data: [[low, Math.min(peak, slope * low)], [Math.min(Math.max(ridge, low), high), Math.min(peak, slope * Math.min(ridge, high))], [high, Math.min(peak, slope * high)]],
      tooltip: { formatter: () => tip(level.level, [["read", rate(slope) + " GB/s"], ["peak", rate(peak) + " GFLOP/s"], ["break even", rate(ridge) + " FLOP/B"]]) },
      endLabel: k === 0 ? { show: true, formatter: () => "peak " + rate(peak), color: t.muted, offset: [-4, -9], align: "right" } : { show: false },
    };
  });
  const unit = measured ? "GFLOP/s" : "FLOPs";
  return chartCard({
    id: "roofline", title: measured ? "Roofline: speed of every step under this machine's ceilings" : "Work against intensity",
    note: () => (measured
      ? (roof ? "Area is time. Lines: " + roof.memory.map((m) => m.level + " " + rate(m.read_bytes_per_s / 1e9) + " GB/s").join(", ") + "; flat: arithmetic."
        : "Area is time. `madd-prof machine` measures ceilings to draw them here.")
      : "Area is bytes. What stands left moves more than it computes; measured reports put it under the machine's ceilings."),
    words: () => points.length + " points; the heaviest: " + [...points].sort((a, b) => b.weight - a.weight).slice(0, 4)
      .map((p) => p.name + " at " + rate(p.x) + " FLOP/B, " + (measured ? rate(p.y) : si(p.y)) + " " + unit).join("; "),
    onClick: (e) => e.data && e.data.at !== undefined && select(e.data.at, "chart"),
    option: (t) => {
      const kinds = [...new Set(points.map((p) => p.kind))];
      kinds.sort((a, b) => [...classWords.values()].indexOf(a) - [...classWords.values()].indexOf(b));
      const series = kinds.map((kind) => ({
        name: kind || "other", type: "scatter", z: 3,
        itemStyle: { color: classColour(t, kind), opacity: 0.72, borderColor: t.card, borderWidth: 0.7 },
        symbolSize: (v, p) => 6 + 26 * Math.sqrt(p.data.weight / largest),
        large: false, progressive: 0,
        data: points.filter((p) => p.kind === kind && (!state.matching || p.rows.some((r) => isMatching(r)))).map((p) => ({ value: [p.x, p.y], ...p })),
      }));
      const chosen = points.filter((p) => state.selected !== null && p.rows.includes(state.selected));
      const ring = {
        name: "selected", type: "scatter", z: 5, silent: true, symbol: "circle",
        symbolSize: (v, p) => 16 + 26 * Math.sqrt(p.data.weight / largest),
        itemStyle: { color: "transparent", borderColor: t.text, borderWidth: 2.5 }, data: chosen.map((p) => ({ value: [p.x, p.y], weight: p.weight })),
      };
      return {
        grid: { left: 8, right: 18, top: 58, bottom: 24, containLabel: true },
        legend: { top: 0, left: 0, right: 0, type: "scroll", pageIconSize: 11, data: kinds.map((k) => k || "other"), textStyle: { color: t.text, fontSize: 12 }, itemWidth: 11, itemHeight: 11, itemGap: 9, pageTextStyle: { color: t.muted }, pageIconColor: t.accent },
        tooltip: { ...base(t).tooltip, trigger: "item", formatter: (p) => (p.data && p.data.facts ? tip(p.data.name, [["", p.data.kind], ...p.data.facts].map(([k, v]) => (k ? [k, v] : ["kind", v]))) : "") },
        xAxis: axis(t, { type: "log", min: low, max: high, name: "FLOP per byte", nameLocation: "middle", nameGap: 26, axisLabel: { color: t.muted, formatter: (v) => (v >= 1 ? round(si(v)) : String(v)) } }),
        yAxis: axis(t, { type: "log", name: unit, axisLabel: { color: t.muted, formatter: (v) => (v >= 1 ? round(si(v)) : String(v)) } }),
        series: [...ceilings(t), ...series, ring],
      };
    },
  });
}

/** What the modules hold, as areas. */
function treemapChart() {
  const metrics = [["params", "Params"], ["madds", "MAdds"], ...(measured ? [["time", "Time"]] : []), ["bytes", "Bytes"]];
  const value = (row, key) => number(get(row, key === "time" ? data.main + "_ms" : key)) || 0;
  const list = metrics.filter(([key]) => rows.some((r) => value(r, key) > 0));
  if (!list.length) return null;
  const choices = { label: "Area is", now: list[0][0], list };
  // A module has the colour of what holds most of it.
  const kindOf = (row) => classWords.get(get(row, "class"));
  const text = (v, key) => (key === "time" ? ms(v) + " ms" : key === "bytes" ? iec(v) : si(v));
  const build = (key) => {
    const root = { children: [] }, stack = [root];
    data.tree.forEach(([level, at, label]) => {
      const node = at < 0 ? { name: label, children: [] } : { name: label, value: value(rows[at], key), at, kind: kindOf(rows[at]) };
      stack[level].children.push(node);
      stack[level + 1] = node;
    });
    const sum = (n) => {
      if (n.children) {
        n.children = n.children.filter((c) => sum(c) > 0);
        n.value = n.children.reduce((s, c) => s + c.value, 0);
        n.kind = n.children.reduce((best, c) => (c.value > best.value ? c : best), { value: -1 }).kind;
      }
      return n.value;
    };
    sum(root);
    return root;
  };
  return chartCard({
    id: "treemap", title: "Where it is", choices,
    note: "Every rectangle is a module or a layer, in the colour of its kind of work; a click goes in, the line below goes back out.",
    words: () => {
      const top = build(choices.now).children.sort((a, b) => b.value - a.value).slice(0, 5);
      return "Area is " + choices.now + ". The largest: " + top.map((n) => n.name + " " + text(n.value, choices.now)).join("; ");
    },
    onClick: (e) => e.data && e.data.at !== undefined && select(e.data.at, "chart"),
    option: (t) => {
      const root = build(choices.now), key = choices.now;
      const paint = (n) => {
        n.itemStyle = { color: classColour(t, n.kind) };
        (n.children || []).forEach(paint);
      };
      root.children.forEach(paint);
      return {
        tooltip: { ...base(t).tooltip, formatter: (p) => tip(p.treePathInfo.slice(1).map((x) => x.name).join(" \u203a ") || "all",
          [[list.find((m) => m[0] === key)[1], text(p.value, key)], ["share", percent(p.value / (root.value || 1))]]) },
        series: [{
          type: "treemap", data: root.children, drillDownIcon: "", leafDepth: rows.length > 400 ? 2 : 3, roam: false, nodeClick: "zoomToNode", name: "all",
          left: 0, right: 0, top: 6, bottom: 34, visibleMin: 60, animationDurationUpdate: still ? 0 : 350,
          breadcrumb: { bottom: 2, left: 0, height: 24, itemStyle: { color: t.paper, borderColor: t.line, textStyle: { color: t.text } } },
          label: { color: t.onColour, fontSize: 12, lineHeight: 15, overflow: "truncate", formatter: (p) => p.name + "\n" + text(p.value, key) },
          upperLabel: { show: true, height: 21, color: t.text, backgroundColor: t.soft, padding: [0, 5], fontSize: 12, overflow: "truncate", formatter: (p) => p.name + "  " + text(p.value, key) },
          itemStyle: { borderColor: t.card, borderWidth: 1, gapWidth: 1 },
          levels: [
            { itemStyle: { borderWidth: 0, gapWidth: 3 }, upperLabel: { show: false } },
            { itemStyle: { borderColor: t.soft, borderWidth: 3, gapWidth: 2 } },
            { itemStyle: { borderColor: t.soft, borderWidth: 2, gapWidth: 1 } },
          ],
        }],
      };
    },
  });
}

/** Activation memory while the model runs. */
function memoryChart() {
  const planned = steps.some((s) => s.live !== null);
  const list = planned
    ? steps.map((s) => ({ name: s.label, plan: s.live, live: s.rows.length ? number(get(rows[s.rows[0]], "live_bytes")) : null, rows: s.rows }))
    : rows.map((r, i) => ({ name: data.labels[i], plan: null, live: number(get(r, "live_bytes")), rows: [i] })).filter((p) => p.live !== null);
  if (list.length < 2 || !list.some((p) => p.live || p.plan)) return null;
  const path = Object.values(data.report.latency || {}).find((l) => l.arena_bytes);
  const peak = list.reduce((best, p) => ((p.plan ?? p.live ?? 0) > (best.plan ?? best.live ?? 0) ? p : best), list[0]);
  return chartCard({
    id: "memory", title: "Activation memory over the run", low: true,
    note: "The most at " + short(peak.name, 60) + ": " + iec(peak.plan ?? peak.live) + (path ? "; the arena holds " + iec(path.arena_bytes) : "") + ".",
    words: () => list.length + (planned ? " steps" : " layers") + "; the peak is " + iec(peak.plan ?? peak.live) + " at " + peak.name,
    onClick: (e) => list[e.dataIndex] && list[e.dataIndex].rows.length && select(list[e.dataIndex].rows[0], "chart"),
    option: (t) => {
      const at = list.findIndex((p) => state.selected !== null && p.rows.includes(state.selected));
      const marks = [];
      if (path && planned) marks.push({ yAxis: path.arena_bytes, name: "arena", label: { formatter: "arena", color: t.muted, position: "insideEndTop" }, lineStyle: { color: t.muted } });
      if (at >= 0) marks.push({ xAxis: at, label: { show: false }, lineStyle: { color: t.text, type: "solid", width: 2 } });
      // Steps of powers of two: bytes read better that way.
      const top = Math.max(...list.map((p) => Math.max(p.plan ?? 0, p.live ?? 0)), path ? path.arena_bytes : 0, 1);
      const stride = 2 ** Math.ceil(Math.log2(top / 6));
      const line = (name, key, colour, fill) => ({
        name, type: "line", step: "middle", showSymbol: false, connectNulls: true, data: list.map((p) => p[key]), sampling: "max",
        lineStyle: { width: 1.6, color: colour }, itemStyle: { color: colour }, areaStyle: fill ? { color: colour, opacity: 0.16 } : undefined,
        triggerLineEvent: true,
      });
      const series = [line("live, in the graph's order", "live", planned ? t.muted : t.accent, !planned)];
      if (planned) series.unshift(line("in the arena, as planned", "plan", t.accent, true));
      series[0].markLine = { symbol: "none", data: marks, animation: false };
      return {
        grid: { left: 8, right: 16, top: 32, bottom: list.length > 60 ? 44 : 8, containLabel: true },
        legend: { top: 0, left: 0, right: 0, type: "scroll", textStyle: { color: t.text }, itemWidth: 16 },
        tooltip: { ...base(t).tooltip, trigger: "axis", formatter: (p) => {
          const item = list[p[0].dataIndex];
          return tip(item.name, [["in the arena", item.plan === null ? "" : iec(item.plan)], ["live by the graph's order", item.live === null ? "" : iec(item.live)]]);
        } },
        dataZoom: list.length > 60 ? [{ type: "inside" }, { type: "slider", height: 18, bottom: 6, borderColor: t.line, textStyle: { color: t.muted }, labelFormatter: () => "" }] : [],
        xAxis: axis(t, { type: "category", data: list.map((_, i) => i + 1), boundaryGap: false, splitLine: { show: false } }),
        yAxis: axis(t, { type: "value", interval: stride, max: Math.ceil(top / stride) * stride, axisLabel: { color: t.muted, formatter: (v) => round(iec(Math.round(v))) } }),
        series,
      };
    },
  });
}

/** All runs of all paths. */
function runsChart() {
  const paths = Object.entries(data.report.latency || {}).filter(([, l]) => l.samples_ms && l.samples_ms.length > 2);
  if (!paths.length) return null;
  return chartCard({
    id: "runs", title: "Every run", low: true,
    note: "Whole runs in the order they were made, warm-up left out. Flat is steady.",
    words: () => paths.map(([name, l]) => name + ": median " + ms(l.median_ms) + " ms over " + l.runs + " runs").join("; "),
    option: (t) => ({
      grid: { left: 8, right: 16, top: 32, bottom: 22, containLabel: true },
      legend: { top: 0, right: 0, textStyle: { color: t.text } },
      tooltip: { ...base(t).tooltip, trigger: "item", formatter: (p) => tip(p.seriesName, [["run", p.data[0]], ["time", ms(p.data[1]) + " ms"]]) },
      xAxis: axis(t, { type: "value", name: "run", nameLocation: "middle", nameGap: 22, minInterval: 1, splitLine: { show: false } }),
      yAxis: axis(t, { type: paths.length > 1 ? "log" : "value", scale: true, name: "ms", axisLabel: { color: t.muted, formatter: (v) => rate(v) } }),
      series: paths.map(([name, l]) => {
        const colour = { optimized: t.accent, reference: t.warm, runtime: t.good }[name];
        return {
          name, type: "scatter", symbolSize: 5, itemStyle: { color: colour, opacity: 0.7 }, large: l.samples_ms.length > 4000,
          data: l.samples_ms.map((v, i) => [i + 1, v]),
          markLine: { symbol: "none", silent: true, animation: false, lineStyle: { color: colour }, data: [{ yAxis: l.median_ms }], label: { formatter: () => ms(l.median_ms), color: t.text, position: "insideEndTop" } },
        };
      }),
    }),
  });
}
