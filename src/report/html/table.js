// The table: only the rows in sight are in the page, so that thousands cost nothing. Sorting, filtering, modules, keyboard.

const ROW = 30;
/** Characters at the end of a name that stay in sight. */
const TAIL = 12;
/** Widths of columns by what they hold, in pixels. */
const WIDTH = { name: 160, text: 120, shape: 126, count: 88, delta: 88, bytes: 94, ms: 80, ratio: 90, share: 80, efficiency: 74, flag: 64 };

class Table {
  /** `lines`: the tree of modules, if there is one, as [level, row or -1, label, cells of a module]. */
  constructor({ columns, rows, labels, lines, kinds, total, name, noun, onMatching }) {
    Object.assign(this, { columns, rows, labels, lines, kinds, total, noun, onMatching });
    this.nameAt = Math.max(columns.findIndex((c) => c.key === "name"), 0);
    this.sort = null;
    this.filter = { text: "", op: "", kind: "" };
    this.folded = new Set();
    this.grouped = false;
    this.active = 0;
    // On screens of usual width what was measured comes before what can be worked out.
    const measured = columns.some((c) => c.key === "time_share");
    const later = innerWidth < 640 ? ["op", "output_shape", "shape", "flops", "bytes", "intensity", "reference_ms", "attainable_ms"]
      : measured && innerWidth < 1700 ? ["flops", "bytes", "attainable_ms"] : [];
    columns.forEach((c) => (c.shown = c.shown && !later.includes(c.key)));
    this.visible = columns.map((c, i) => (c.shown ? i : -1)).filter((i) => i >= 0);
    this.haystack = rows.map((r, i) => (labels[i] + " " + r.filter((c) => typeof c === "string").join(" ")).toLowerCase());
    this.longest = Math.max(0, ...labels.slice(0, 2000).map((l) => l.length));
    this.largest = columns.map((c, i) => (c.unit === "share" ? Math.max(...rows.map((r) => number(r[i]) || 0), 1e-9) : 0));
    this.status = el("p", { class: "status", role: "status", "aria-live": "polite" });
    this.head = el("div", { class: "t-head", role: "row", "aria-rowindex": "1" });
    this.window = el("div", { class: "t-window", role: "rowgroup" });
    this.space = el("div", { class: "t-space", role: "presentation" }, this.window);
    this.foot = el("div", { class: "t-foot", role: "row" });
    this.box = el("div", {
      class: "t-box", role: "grid", tabindex: "0", id: "table", "aria-label": name, "aria-describedby": "table-help",
      scroll: () => this.later(), keydown: (e) => this.key(e),
    }, this.head, this.space, this.foot);
    this.detail = el("aside", { class: "detail", hidden: true, "aria-label": "Details of the selected row" });
    this.element = el("section", { class: "card wide", "aria-labelledby": "table-title" },
      el("h2", { id: "table-title" }, name), this.toolbar(), this.status, this.detail, this.box,
      el("p", { id: "table-help", class: "hint" },
        "Arrow keys move, Enter shows details, a heading sorts. A selected row is marked in the charts."));
    state.listeners.push((what) => what === "selected" && this.selectedChanged());
    this.arrange();
    new ResizeObserver(() => this.later()).observe(this.box);
  }

  toolbar() {
    const bar = el("div", { class: "toolbar", role: "search" });
    const search = el("input", {
      type: "search", id: "search", placeholder: "Search " + this.noun + "s\u2026", "aria-label": "Search " + this.noun + "s",
      input: () => { this.filter.text = search.value.trim().toLowerCase(); this.arrange(); },
    });
    this.search = search;
    bar.append(search);
    const choices = (key, title, values) => {
      const box = el("select", { "aria-label": title, change: () => { this.filter[key] = box.value; this.arrange(); } },
        el("option", { value: "" }, title), values.map(([v, words]) => el("option", { value: v }, words)));
      this[key + "Box"] = box;
      return box;
    };
    const op = this.columns.findIndex((c) => c.key === "op");
    if (op >= 0) {
      const ops = [...new Set(this.rows.map((r) => r[op]))].filter((v) => typeof v === "string").sort();
      if (ops.length > 1) bar.append(choices("op", "All operators", ops.map((o) => [o, o])));
    }
    if (this.kinds && this.kinds.length > 1) bar.append(choices("kind", "All kinds of work", this.kinds));
    if (this.lines && this.lines.some((l) => l[1] < 0)) {
      this.group = el("button", { type: "button", "aria-pressed": "false", id: "group", click: () => this.setGrouped(!this.grouped) }, "By module");
      this.fold = el("button", { type: "button", hidden: true, click: () => this.foldAll(this.folded.size === 0) }, "Collapse all");
      bar.append(this.group, this.fold);
    }
    const menu = el("div", { class: "menu", role: "group", "aria-label": "Columns" }, this.columns.map((c, i) => {
      if (this.isName(i)) return null;
      const box = el("input", { type: "checkbox", checked: c.shown, change: () => {
        this.visible = this.columns.map((_, k) => k).filter((k) => (k === i ? box.checked : this.visible.includes(k)));
        this.draw(true);
      } });
      return el("label", { title: MEANING[c.key] || c.key }, box, " ", c.title === c.key ? c.key.replaceAll("_", " ") : c.title);
    }));
    bar.append(el("details", { class: "columns" }, el("summary", {}, "Columns"), menu));
    return bar;
  }

  /** Whether a column names the rows: it stays in sight, whatever is scrolled. */
  isName(i) {
    return i === this.nameAt;
  }

  setGrouped(on) {
    this.grouped = on;
    this.group.setAttribute("aria-pressed", String(on));
    this.fold.hidden = !on;
    if (on) this.foldAll(this.rows.length > 40);
    else this.arrange();
  }

  foldAll(folded) {
    this.folded = new Set(folded ? this.lines.map((l, i) => (l[1] < 0 ? i : -1)).filter((i) => i >= 0) : []);
    this.fold.textContent = folded ? "Expand all" : "Collapse all";
    this.arrange();
  }

  setFilter(key, value) {
    this.filter[key] = key === "text" ? value.toLowerCase() : value;
    if (key === "text") this.search.value = value;
    else if (this[key + "Box"]) this[key + "Box"].value = value;
    this.arrange();
  }

  matches(i) {
    const row = this.rows[i], f = this.filter;
    if (f.text && !f.text.split(/\s+/).every((word) => this.haystack[i].includes(word))) return false;
    if (f.op && get(row, "op") !== f.op) return false;
    return !f.kind || get(row, "class") === f.kind;
  }

  compare() {
    const { at, down } = this.sort;
    const words = !isNumber(this.columns[at].unit);
    return (a, b) => {
      const [x, y] = words ? [a[at], b[at]] : [number(a[at]), number(b[at])];
      const [nox, noy] = [x === null || x === undefined, y === null || y === undefined];
      // What has no value comes last, whichever way.
      if (nox || noy) return nox - noy;
      const order = words ? String(x).localeCompare(String(y), "en", { numeric: true }) : x - y;
      return down ? -order : order;
    };
  }

  /** Decides which lines there are, in which order. A line is [level, row or -1, label, cells, index in the tree]. */
  arrange() {
    const kept = this.rows.map((_, i) => this.matches(i));
    const filtered = kept.some((k) => !k);
    if (this.grouped) {
      this.shownLines = this.treeLines(kept, filtered);
    } else {
      let order = kept.map((k, i) => (k ? i : -1)).filter((i) => i >= 0);
      if (this.sort) {
        const compare = this.compare();
        order = order.sort((a, b) => compare(this.rows[a], this.rows[b]) || a - b);
      }
      this.shownLines = order.map((i) => [0, i, this.labels[i], this.rows[i], -1]);
    }
    const n = kept.filter((k) => k).length;
    const many = (n) => n + " " + this.noun + (n === 1 ? "" : "s");
    this.status.textContent = filtered ? many(n).replace(" ", " of " + this.rows.length + " ") + " match" : many(n);
    this.active = Math.min(this.active, Math.max(this.shownLines.length - 1, 0));
    this.box.setAttribute("aria-rowcount", String(this.shownLines.length + 1));
    this.draw(true);
    state.matching = filtered ? kept : null;
    if (this.onMatching) this.onMatching(state.matching);
  }

  treeLines(kept, filtered) {
    // Lines as nodes with children, so that siblings can be sorted among themselves.
    const root = { children: [] };
    const stack = [root];
    this.lines.forEach((l, i) => {
      const node = { line: [l[0], l[1], l[2], l[1] < 0 ? l[3] : this.rows[l[1]], i], children: [] };
      stack.length = l[0] + 1;
      stack[l[0]].children.push(node);
      stack[l[0] + 1] = node;
    });
    const out = [];
    const alive = (n) => (n.line[1] >= 0 ? kept[n.line[1]] : n.children.some(alive));
    const compare = this.sort && this.compare();
    const walk = (node) => {
      let children = filtered ? node.children.filter(alive) : node.children;
      if (compare) children = [...children].sort((a, b) => compare(a.line[3], b.line[3]) || a.line[4] - b.line[4]);
      for (const child of children) {
        out.push(child.line);
        // What is searched for is shown even inside what is folded.
        if (child.line[1] < 0 && (filtered || !this.folded.has(child.line[4]))) walk(child);
      }
    };
    walk(root);
    return out;
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(false); });
  }

  cell(value, at, row) {
    const c = this.columns[at];
    const text = shown(value, c.unit);
    const node = el("div", { role: "gridcell", class: isNumber(c.unit) ? "n" : "t" });
    if (c.unit === "share" && typeof value === "number") {
      node.append(el("span", { class: "bar " + (c.key === "time_share" ? "warm" : ""), style: { "--w": (100 * value) / this.largest[at] + "%" } }));
    }
    if (text === "fused" || text === "unknown") node.classList.add("dim");
    if (!isNumber(c.unit)) node.title = text;
    node.append(text);
    return node;
  }

  headings() {
    this.head.replaceChildren(...this.visible.map((at) => {
      const c = this.columns[at];
      const sorted = this.sort && this.sort.at === at ? (this.sort.down ? "descending" : "ascending") : "none";
      const mark = { none: "", descending: " \u25be", ascending: " \u25b4" }[sorted];
      return el("div", { role: "columnheader", "aria-sort": sorted, class: (isNumber(c.unit) ? "n" : "t") + (this.isName(at) ? " first" : "") },
        el("button", { type: "button", title: MEANING[c.key] || null, "data-key": c.key, click: () => this.sortBy(at) }, c.title + mark));
    }));
  }

  sortBy(at) {
    const first = isNumber(this.columns[at].unit);
    if (!this.sort || this.sort.at !== at) this.sort = { at, down: first };
    else if (this.sort.down === first) this.sort.down = !first;
    else this.sort = null;
    this.arrange();
    this.head.querySelector('[data-key="' + this.columns[at].key + '"]').focus();
  }

  draw(all) {
    if (all) {
      this.visible = [this.nameAt, ...this.visible.filter((i) => !this.isName(i))];
      // As wide as what it holds, within reason.
      const name = Math.min(Math.max(150, 8.2 * this.longest + 34), innerWidth < 640 ? 180 : 340);
      const widths = this.visible.map((at) => (this.isName(at) ? name : WIDTH[this.columns[at].unit] || 100));
      this.box.style.setProperty("--cols", widths.map((w, i) => (i === 0 ? "minmax(" + w + "px, 2fr)" : "minmax(" + w + "px, 1fr)")).join(" "));
      this.box.style.setProperty("--width", widths.reduce((a, b) => a + b, 0) + 24 + "px");
      this.headings();
      this.space.style.height = this.shownLines.length * ROW + "px";
      this.foot.hidden = !this.total;
      if (this.total) {
        this.foot.replaceChildren(...this.visible.map((at) => this.isName(at)
          ? el("div", { role: "gridcell", class: "t first" }, "total") : this.cell(this.total[at], at)));
      }
    }
    const top = Math.max(0, this.box.scrollTop);
    const from = Math.max(0, Math.floor(top / ROW) - 8);
    const to = Math.min(this.shownLines.length, Math.ceil((top + this.box.clientHeight) / ROW) + 8);
    if (!all && this.from === from && this.to === to) return;
    [this.from, this.to] = [from, to];
    this.window.style.transform = "translateY(" + from * ROW + "px)";
    const rows = [];
    for (let i = from; i < to; i++) rows.push(this.line(i));
    this.window.replaceChildren(...rows);
  }

  line(i) {
    const [level, at, label, cells, inTree] = this.shownLines[i];
    const module = at < 0;
    const isSelected = !module && at === state.selected;
    const row = el("div", {
      role: "row", class: "t-row" + (module ? " module" : "") + (isSelected ? " selected" : "") + (i === this.active ? " active" : ""),
      "aria-rowindex": i + 2, "aria-selected": String(isSelected), id: "line-" + i,
      "aria-level": this.grouped ? level + 1 : null, "aria-expanded": module ? String(!this.folded.has(inTree)) : null,
      click: () => { this.active = i; this.act(i); },
    });
    for (const c of this.visible) {
      if (!this.isName(c)) {
        row.append(this.cell(cells[c], c));
        continue;
      }
      const mark = module ? (this.folded.has(inTree) ? "\u25b8 " : "\u25be ") : "";
      row.append(el("div", { role: "rowheader", class: "t first", title: cells[c], style: { "padding-left": 10 + 16 * level + "px" } },
        el("span", { "aria-hidden": "true" }, mark),
        // The end of a long name says most: its front gives way.
        el("span", { class: "front" }, label.slice(0, -TAIL)), el("span", { class: "tail" }, label.slice(-TAIL))));
    }
    return row;
  }

  act(i) {
    const [, at, , , inTree] = this.shownLines[i];
    if (at >= 0) return select(at, "table");
    if (!this.folded.delete(inTree)) this.folded.add(inTree);
    this.arrange();
  }

  key(e) {
    if (e.target !== this.box) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 3);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[e.key];
    const line = this.shownLines[this.active];
    if (by !== undefined) this.go(Math.min(Math.max(this.active + by, 0), this.shownLines.length - 1));
    else if ((e.key === "Enter" || e.key === " ") && line) this.act(this.active);
    else if (e.key === "ArrowRight" && line && line[1] < 0 && this.folded.has(line[4])) this.act(this.active);
    else if (e.key === "ArrowLeft" && line && line[1] < 0 && !this.folded.has(line[4])) this.act(this.active);
    else if (e.key === "Escape" && state.selected !== null) select(state.selected);
    else return;
    e.preventDefault();
  }

  go(i) {
    this.active = i;
    const [top, bottom] = [i * ROW, (i + 1) * ROW];
    const room = this.box.clientHeight - this.head.offsetHeight - this.foot.offsetHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop + room) this.box.scrollTop = bottom - room;
    this.draw(true);
    this.box.setAttribute("aria-activedescendant", "line-" + i);
  }

  /** Brings a row into sight. */
  show(at) {
    let i = this.shownLines.findIndex((l) => l[1] === at);
    if (i < 0) {
      this.filter = { text: "", op: "", kind: "" };
      this.search.value = "";
      ["opBox", "kindBox"].forEach((b) => this[b] && (this[b].value = ""));
      if (this.grouped) this.foldAll(false);
      else this.arrange();
      i = this.shownLines.findIndex((l) => l[1] === at);
    }
    if (i >= 0) this.go(i);
  }

  selectedChanged() {
    const at = state.selected;
    this.detail.hidden = at === null;
    if (at !== null) {
      const row = this.rows[at];
      const facts = this.columns.map((c, i) => [c, whole(row[i], c.unit)]).filter(([, v]) => v !== "");
      this.detail.replaceChildren(
        el("div", { class: "detail-head" }, el("h3", {}, this.labels[at]),
          el("button", { type: "button", "aria-label": "Close details", click: () => select(at) }, "\u00d7")),
        el("dl", {}, facts.map(([c, v]) => el("div", {}, el("dt", { title: MEANING[c.key] || null }, c.key.replaceAll("_", " ")), el("dd", {}, v)))));
      if (!this.shownLines.some((l) => l[1] === at)) this.show(at);
    }
    this.draw(true);
  }
}
