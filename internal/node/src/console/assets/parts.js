// Parts that several pages are made of.

import { h, measure, svg } from "./dom.js";
import { number } from "./format.js";

/** A word with a mark of its own, so that colour is not all that tells. `tone`: good, warn, bad or plain. */
export function tag(tone, word) {
  return h("span", { class: `tag ${tone}` }, mark(tone), word);
}

const SHAPES = {
  good: "M3 8.5 6.5 12 13 4.5",
  warn: "M8 2.5 14 13.5H2ZM8 6.5v3.2M8 11.6v.2",
  bad: "M5.4 2.5h5.2l3 3v5l-3 3H5.4l-3-3v-5ZM6 6l4 4M10 6l-4 4",
  plain: "M4 8h8",
};

function mark(tone) {
  return svg("svg", { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: SHAPES[tone] }));
}

/** A table in a region that can be scrolled. Columns: { name, cell(row), kind } with kind "number" or "wide" (left out on phones). */
export function table(label, columns, rows, key, none = "There is nothing.") {
  const kinds = (column) => column.kind ?? null;
  const head = columns.map((column) => h("th", { scope: "col", class: kinds(column) }, column.name));
  const line = (row) =>
    h("tr", { "data-key": key(row) }, columns.map((column, place) => {
      const first = place === 0;
      return h(first ? "th" : "td", { scope: first ? "row" : null, class: kinds(column) }, column.cell(row));
    }));
  const empty = h("tr", { class: "none" }, h("td", { colspan: columns.length }, none));
  return h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 },
    h("table", null,
      h("caption", { class: "unseen" }, label),
      h("thead", null, h("tr", null, head)),
      h("tbody", null, rows.length ? rows.map(line) : empty)));
}

/** How much of something is used. */
export function bar(part, all, label, tone = "plain") {
  const share = all > 0 ? Math.min(100, (100 * part) / all) : 0;
  const fill = measure(h("span", { class: `fill ${tone}` }), "--share", `${share}%`);
  return h("span", { class: "bar", role: "img", "aria-label": label }, fill);
}

/** Values over time, the newest on the right. */
export function line(values) {
  const width = 120;
  const height = 32;
  const most = Math.max(1, ...values);
  const place = (value, index) => {
    const x = values.length < 2 ? width : (index * width) / (values.length - 1);
    return `${x.toFixed(1)},${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`;
  };
  const points = values.map(place);
  const path = points.length > 1 ? `M${points.join("L")}` : "";
  const area = path && `${path}L${width},${height}L0,${height}Z`;
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "area", d: area }), svg("path", { class: "stroke", d: path }));
}

/** Links to the pages of a list; none if there is only one. */
export function pager(list, link, noun) {
  const { page, pages, total } = list;
  if (pages <= 1) return h("p", { class: "count" }, `${number(total)} ${noun}`);
  const step = (to, word) =>
    to >= 0 && to < pages ? h("a", { class: "button", href: link(to) }, word) : h("span", { class: "button off", "aria-hidden": "true" }, word);
  return h("nav", { class: "pager", "aria-label": `Pages of ${noun}` },
    step(page - 1, "Previous"),
    h("span", null, `Page ${page + 1} of ${pages}, ${number(total)} ${noun}`),
    step(page + 1, "Next"));
}

/** A field to search with; says what is typed after a pause. */
export function search(label, value, say) {
  let pause = null;
  const typed = (event) => {
    clearTimeout(pause);
    const text = event.target.value;
    pause = setTimeout(() => say(text), 250);
  };
  return h("form", { class: "search", role: "search", onsubmit: (event) => event.preventDefault() },
    h("label", { for: "search" }, label),
    h("input", { id: "search", type: "search", value, autocomplete: "off", spellcheck: "false", maxlength: 200, oninput: typed }));
}

/** Words instead of what could not be had. */
export function trouble(error) {
  return h("p", { class: "trouble", role: "alert" }, tag("bad", "Not told"), " ", error.message);
}

export const TONES = { critical: "bad", warning: "warn", notice: "plain" };
export const WORDS = { critical: "Critical", warning: "Warning", notice: "Notice" };
