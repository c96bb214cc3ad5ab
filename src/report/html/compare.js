// Models or variants side by side: ratios as bars, points of multiply-adds, time and accuracy.

const named = (row) => String(get(row, "name") ?? row[0]);

/** The 95 % intervals of the bars of time. */
function whiskers(list, t, most) {
  const at = list.findIndex(([key]) => key === "time_ratio");
  if (at < 0 || !has("time_ratio_low")) return [];
  const spans = rows.map((r, i) => [i, number(get(r, "time_ratio_low")), number(get(r, "time_ratio_high"))]).filter((s) => s[1] !== null && s[2] !== null && s[2] <= most);
  return [{
    name: "95 %", type: "custom", z: 5, silent: true, data: spans, encode: { x: [1, 2], y: 0 },
    renderItem: (params, api) => {
      const bar = api.barLayout({ barMaxWidth: 12, barGap: "12%", count: list.length })[at];
      const [x1, y] = api.coord([api.value(1), api.value(0)]), x2 = api.coord([api.value(2), api.value(0)])[0];
      const middle = y + bar.offsetCenter, half = Math.min(4, bar.width / 2);
      const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style: { stroke: t.text, lineWidth: 1.3 } });
      return { type: "group", children: [line(x1, middle, x2, middle), line(x1, middle - half, x1, middle + half), line(x2, middle - half, x2, middle + half)] };
    },
  }];
}

/** 1, 2 or 5 times a power of ten below and above some values: the ends of a logarithmic axis. */
function ends(values) {
  const [low, high] = [Math.min(...values) / 1.1, Math.max(...values) * 1.25];
  const power = (v) => 10 ** Math.floor(Math.log10(v));
  const below = [5, 2, 1].find((n) => n * power(low) <= low) || 1;
  const above = [1, 2, 5, 10].find((n) => n * power(high) >= high) || 10;
  return { min: below * power(low), max: above * power(high) };
}

/** Where bars are cut so that a few that are very long do not hide what the others say; Infinity: nowhere. */
function cutAt(values) {
  const sorted = [...values].sort((a, b) => a - b), usual = sorted[Math.floor(0.75 * (sorted.length - 1))] || 1;
  return sorted[sorted.length - 1] > 6 * Math.max(usual, 1) ? Math.ceil(2 * Math.max(usual, 1)) : Infinity;
}

/** xMAdds beside xtime: where they part is the story. */
function ratiosChart() {
  const list = [["madds_ratio", "MAdds"], ["predicted_ratio", "roofline"], ["time_ratio", "time"], ["reference_ratio", "reference time"]]
    .filter(([key]) => has(key) && rows.some((r) => number(get(r, key)) !== null)).slice(0, 3);
  if (!list.length || rows.length < 2 || rows.length > 60) return null;
  const most = cutAt(list.flatMap(([key]) => rows.map((r) => number(get(r, key))).filter((v) => v !== null)));
  return chartCard({
    id: "ratios", title: "Relative to " + named(rows[0]), wide: rows.length > 12, height: rows.length > 9 ? 70 + rows.length * (8 + 10 * list.length) : null,
    note: (has("time_ratio_low") ? "Whiskers: 95 % interval of the paired ratio. Left of 1 is less." : "Left of 1 is less.") + (most < Infinity ? " Bars with \u00bb are longer than drawn." : ""),
    words: () => rows.slice(1, 8).map((r) => named(r) + ": " + list.map(([k, n]) => n + " " + shown(get(r, k), "ratio")).join(", ")).join("; "),
    onClick: (e) => e.dataIndex !== undefined && select(e.dataIndex, "chart"),
    option: (t) => {
      const colours = { madds_ratio: t.accent, predicted_ratio: t.muted, time_ratio: t.warm, reference_ratio: t.warm };
      return {
        grid: { left: 6, right: most < Infinity ? 56 : 26, top: 30, bottom: 4, containLabel: true },
        legend: { top: 0, right: 0, data: list.map((l) => l[1]), textStyle: { color: t.text }, itemWidth: 14, itemHeight: 9 },
        tooltip: { ...base(t).tooltip, trigger: "axis", axisPointer: { type: "shadow" }, formatter: (p) => {
          const r = rows[p[0].dataIndex];
          return tip(named(r), [...list.map(([k, n]) => ["x " + n, shown(get(r, k), "ratio")]), ["95 %", shown(get(r, "interval"), "text")], ["break-even", shown(get(r, "break_even"), "text")]]);
        } },
        xAxis: axis(t, { type: "value", max: most < Infinity ? most : undefined }),
        yAxis: axis(t, { type: "category", inverse: true, data: rows.map((r) => short(named(r), narrow() ? 16 : 26)), axisLabel: { color: t.text }, splitLine: { show: false } }),
        series: [...list.map(([key, name], k) => ({
          name, type: "bar", barMaxWidth: 12, barGap: "12%", itemStyle: { color: colours[key], borderRadius: [0, 3, 3, 0] },
          data: rows.map((r) => number(get(r, key))).map((v) => (v > most ? { value: most, label: { show: true, position: "right", distance: 3, formatter: rate(v) + " \u00bb", color: t.text, fontSize: 11 } } : v)),
          markLine: k ? undefined : { symbol: "none", silent: true, animation: false, label: { show: false }, lineStyle: { color: t.text, type: "dashed" }, data: [{ xAxis: 1 }] },
        })), ...whiskers(list, t, most)],
      };
    },
  });
}

/** Where names of points stand: beside, above or below, wherever nothing is yet; where there is no room they give way. */
function placing(box, many) {
  let placed = [];
  const meets = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
  return (p) => {
    if (p.dataIndex === 0) placed = [];
    const { width: w, height: h } = p.labelRect, gap = p.rect.width / 2 + 4;
    const x = p.rect.x + p.rect.width / 2, y = p.rect.y + p.rect.height / 2;
    placed.push({ x: p.rect.x, y: p.rect.y, w: p.rect.width, h: p.rect.height });
    const width = document.getElementById(box).clientWidth;
    const spots = [[x + gap, y - h / 2], [x - gap - w, y - h / 2], [x - w / 2, y - gap - h], [x - w / 2, y + gap], [x + gap, y - h], [x + gap, y], [x - gap - w, y - h], [x - gap - w, y]]
      .slice(0, many ? 1 : 8).map(([x, y]) => ({ x, y, w, h })).filter((s) => s.x >= 0 && s.x + s.w <= width);
    const spot = spots.find((s) => !placed.some((o) => meets(s, o))) || { x: x + gap, y: y - h / 2, w, h };
    placed.push(spot);
    return { x: spot.x, y: spot.y, align: "left", verticalAlign: "top", hideOverlap: true };
  };
}

/** Points of two columns; those of the Pareto set are joined. */
function pointsChart({ id, title, note, x, y, log, pareto, unitX, unitY }) {
  const points = rows.map((r, i) => ({ i, name: named(r), x: number(get(r, x)), y: number(get(r, y)) }))
    .filter((p) => p.x !== null && p.y !== null && (!log || (p.x > 0 && p.y > 0)));
  if (points.length < 2) return null;
  const best = pareto ? points.filter((p) => pareto(p, points)).sort((a, b) => a.x - b.x) : [];
  const scale = (key) => (log && log.includes(key) ? { type: "log", ...ends(points.map((p) => p[key])) } : { type: "value", scale: true });
  const fx = (v) => shown(v, unitX), fy = (v) => shown(v, unitY);
  const [axisX, axisY] = [(v) => round(fx(v)), (v) => round(fy(v))];
  return chartCard({
    id, title, note,
    words: () => points.length + " points" + (best.length ? "; the Pareto set: " + best.map((p) => p.name).join(", ") : ""),
    onClick: (e) => e.data && e.data.i !== undefined && select(e.data.i, "chart"),
    option: (t) => {
      const onFront = new Set(best.map((p) => p.i));
      const series = {
        name: "models", type: "scatter", z: 3, symbolSize: (v, p) => (p.data.i === state.selected ? 19 : points.length > 40 ? 9 : 13),
        data: points.filter((p) => isMatching(p.i)).map((p) => ({
          value: [p.x, p.y], name: p.name, i: p.i,
          itemStyle: { color: p.i === 0 && !pareto ? t.muted : onFront.has(p.i) ? t.warm : t.accent, opacity: 0.85, borderColor: p.i === state.selected ? t.text : t.card, borderWidth: p.i === state.selected ? 3 : 1 },
        })),
        label: { show: true, formatter: (p) => short(p.name, 22), position: "right", color: t.text, fontSize: 11.5, textBorderWidth: 0 },
        labelLayout: placing("chart-" + id, points.length > 40),
        emphasis: { focus: "none" },
      };
      const front = { name: "Pareto set", type: "line", showSymbol: false, silent: true, z: 2, data: best.map((p) => [p.x, p.y]), lineStyle: { color: t.warm, width: 1.6 } };
      const pad = (key) => (log && log.includes(key) ? {} : { boundaryGap: ["8%", "12%"] });
      return {
        grid: { left: 8, right: narrow() ? 40 : 90, top: 30, bottom: 24, containLabel: true },
        tooltip: { ...base(t).tooltip, trigger: "item", formatter: (p) => tip(p.name, [[heading(x), fx(p.value[0])], [heading(y), fy(p.value[1])], ["Params", shown(get(rows[p.data.i], "params"), "count")], ["Bound", shown(get(rows[p.data.i], "bound"), "text")]]) },
        xAxis: axis(t, { ...scale("x"), ...pad("x"), name: heading(x), nameLocation: "middle", nameGap: 26, axisLabel: { color: t.muted, formatter: axisX, hideOverlap: true } }),
        yAxis: axis(t, { ...scale("y"), ...pad("y"), name: heading(y), axisLabel: { color: t.muted, formatter: axisY } }),
        series: best.length > 1 ? [front, series] : [series],
      };
    },
  });
}

const heading = (key) => data.columns[position.get(key)].title;

/** What changed most, row by row. */
function changesChart() {
  const list = data.columns.filter((c) => c.key.endsWith("_delta") && rows.some((r) => number(get(r, c.key)))).map((c) => [c.key, c.title]);
  if (!list.length) return null;
  const choices = { label: "Change of", now: (list.find((l) => l[0] === "madds_delta") || list[0])[0], list };
  const bars = () => rows.map((r, i) => ({ i, name: named(r), v: number(get(r, choices.now)) || 0 })).filter((b) => b.v !== 0 && isMatching(b.i))
    .sort((a, b) => Math.abs(b.v) - Math.abs(a.v)).slice(0, 24);
  const unit = () => data.columns[position.get(choices.now)].unit;
  return chartCard({
    id: "changes", title: "What changed most", choices, wide: true, note: "Right: more than before; left: less.",
    words: () => bars().slice(0, 6).map((b) => b.name + " " + shown(b.v, unit())).join("; "),
    onClick: (e) => e.data && e.data.i !== undefined && select(e.data.i, "chart"),
    option: (t) => {
      const drawn = bars();
      return {
        grid: { left: 6, right: 26, top: 8, bottom: 4, containLabel: true },
        tooltip: { ...base(t).tooltip, trigger: "item", formatter: (p) => tip(p.name, [["change", whole(p.data.value, unit())]]) },
        xAxis: axis(t, { type: "value", axisLabel: { color: t.muted, formatter: (v) => (v < 0 ? "-" : "") + round(unit() === "ms" ? ms(Math.abs(v)) : si(Math.abs(v))) } }),
        yAxis: axis(t, { type: "category", inverse: true, data: drawn.map((b) => short(b.name, narrow() ? 18 : 40)), axisLabel: { color: t.text }, splitLine: { show: false } }),
        series: [{ type: "bar", barMaxWidth: 14, data: drawn.map((b) => ({ value: b.v, i: b.i, name: b.name, itemStyle: { color: b.v > 0 ? t.warm : t.good, borderRadius: 3 } })) }],
      };
    },
  });
}

/** All charts that the columns of a grid allow. */
function comparisonCharts() {
  const time = ["optimized_ms", "reference_ms"].find((k) => has(k) && rows.some((r) => number(get(r, k)) !== null));
  const some = (key) => has(key) && rows.filter((r) => number(get(r, key)) !== null).length > 1;
  const out = [changesChart(), ratiosChart()];
  if (time && some("top1_pct")) {
    out.push(pointsChart({
      id: "pareto", title: "Accuracy against latency", x: time, y: "top1_pct", unitX: "ms", unitY: "ratio", log: "x",
      note: "Up and left is better; nothing is both faster and more accurate than the joined ones.",
      pareto: (p, all) => !all.some((q) => q.x <= p.x && q.y >= p.y && (q.x < p.x || q.y > p.y)),
    }));
  }
  if (time && some("madds")) {
    out.push(pointsChart({
      id: "points", title: "Latency against MAdds", x: "madds", y: time, unitX: "count", unitY: "ms", log: "xy",
      note: "If multiply-adds told time, all would lie on one rising line.",
      pareto: data.name === "variants" ? (p, all) => !all.some((q) => q.x <= p.x && q.y <= p.y && (q.x < p.x || q.y < p.y)) : null,
    }));
    if (some("predicted_ms")) {
      out.push(pointsChart({ id: "predicted", title: "Latency against what the roofline allows", x: "predicted_ms", y: time, unitX: "ms", unitY: "ms", log: "xy",
        note: "The further above the diagonal, the more is left on the table." }));
    }
  } else if (some("params") && some("madds")) {
    out.push(pointsChart({ id: "points", title: "MAdds against Params", x: "params", y: "madds", unitX: "count", unitY: "count", log: "xy", note: "Nothing was timed." }));
  }
  return out.filter(Boolean);
}
